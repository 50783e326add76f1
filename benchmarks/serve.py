"""The server under load: answers, latencies and memory while many clients keep asking.

    python benchmarks/serve.py                      ten minutes, 50 clients
    python benchmarks/serve.py --seconds 60 --json  one minute, one JSON document

It starts `handgraph serve` on a free port. Most clients send sample frames, some send damaged files, some
hang up half-way. Every request must be answered with 200, a 4xx for what is damaged, or 503; memory is read
from /proc, as the median of each tenth of the time, so that a leak shows as a rising line.
"""

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import handgraph

SAMPLES = Path(handgraph.__file__).parent / "samples"


def start() -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "handgraph", "serve", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://[\d.]+:(\d+) ", line):
            threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True).start()
            return process, int(found[1])
        sys.stderr.write(line)
    sys.exit("the server did not start")


def rss_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


class Client(threading.Thread):
    """Asks until the end: frames, now and then something damaged, now and then it hangs up."""

    def __init__(self, number: int, port: int, end: float) -> None:
        super().__init__()
        self.number, self.port, self.end = number, port, end
        self.answers: list[tuple[str, int, float]] = []
        self.unanswered: list[str] = []

    def run(self) -> None:
        frames = sorted(SAMPLES.glob("depth_*.png")) + sorted(SAMPLES.glob("*.jpg"))
        count = self.number
        while time.monotonic() < self.end:
            count += 1
            content, kind = frames[count % len(frames)].read_bytes(), "frame"
            if count % 7 == 0:
                content, kind = content[: len(content) // 2], "damaged"
            if count % 23 == 0:
                self.hang_up(content)
                continue
            began = time.monotonic()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
                path = "/api/predict?mesh=true" if count % 5 == 0 else "/api/predict"
                connection.request("POST", path, content)
                response = connection.getresponse()
                response.read()
                connection.close()
            except OSError as error:
                self.unanswered.append(f"{type(error).__name__}: {error}")
                continue
            self.answers.append((kind, response.status, time.monotonic() - began))
            if response.status == 503:
                time.sleep(min(0.5, max(0.0, self.end - time.monotonic())))

    def hang_up(self, content: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.putrequest("POST", "/api/predict")
            connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content[: len(content) // 3])
        finally:
            connection.close()


def measure(seconds: float, clients: int) -> dict[str, object]:
    process, port = start()
    began = time.monotonic()
    asking = [Client(number, port, began + seconds) for number in range(clients)]
    for client in asking:
        client.start()
    memory: list[tuple[float, float]] = []
    while time.monotonic() < began + seconds:
        memory.append((time.monotonic() - began, rss_mb(process.pid)))
        time.sleep(0.5)
    for client in asking:
        client.join()
    alive = process.poll() is None
    memory_after = rss_mb(process.pid) if alive else 0.0
    process.send_signal(signal.SIGTERM)
    process.wait(60)

    answers = [answer for client in asking for answer in client.answers]
    unanswered = [reason for client in asking for reason in client.unanswered]
    good = sorted(s for kind, status, s in answers if kind == "frame" and status == 200)
    tenths: list[list[float]] = [[] for _ in range(10)]
    for at, mb in memory:
        tenths[min(9, int(10 * at / seconds))].append(mb)
    return {
        "seconds": seconds,
        "clients": clients,
        "cores": os.cpu_count(),
        "answered": {
            f"{kind} {status}": n
            for (kind, status), n in sorted(Counter((k, s) for k, s, _ in answers).items())
        },
        "unanswered": len(unanswered),
        "unanswered_reasons": sorted(set(unanswered))[:5],
        "predictions_a_second": round(len(good) / seconds, 2),
        "latency_ms": {
            name: round(1000 * good[min(len(good) - 1, int(share * len(good)))])
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        }
        if good
        else None,
        "rss_mb_by_tenth": [round(statistics.median(part), 1) if part else None for part in tenths],
        "rss_mb_after": round(memory_after, 1),
        "alive": alive,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    found = measure(args.seconds, args.clients)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
