"""A server as users run it: its own process, on a free port of this machine."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("python_multipart", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx, which talks to the server in tests, is not installed")

START_SECONDS = 300
"""A busy machine compiles and loads for long; a server that has ended is noticed at once."""


@dataclass
class Server:
    """A running `handgraph serve`."""

    process: subprocess.Popen[bytes]
    url: str
    port: int
    folder: Path
    """Its temporary folder."""
    log: Path

    def rss_mb(self) -> float:
        """Memory of the process, or 0 where the system does not say."""
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0.0
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]

    def stop(self, seconds: float = 60) -> int:
        """Ask it to stop, wait, and give the return code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def need_loopback() -> None:
    """Skip where this machine cannot even reach itself, as in a network namespace without `lo`."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        pytest.skip(f"no loopback network ({error})")


def start(folder: Path, *arguments: str) -> Server:
    """Start a server whose temporary files go below `folder`; returns when it answers."""
    need_loopback()
    temporary = folder / "tmp"
    temporary.mkdir()
    log = folder / "log.txt"
    environment = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "handgraph", "serve", "--port", "0", *arguments],
            stdout=out,
            stderr=out,
            env=environment,
        )
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        found = re.search(r"(http://[\d.]+:(\d+)) ", log.read_text())
        if found:
            return Server(process, found[1], int(found[2]), temporary, log)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"the server did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as they find it."""
    running = start(tmp_path_factory.mktemp("server"), "--workers", "1")
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(60)
