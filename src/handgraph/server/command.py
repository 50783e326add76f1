"""`handgraph serve`: the page and the HTTP interface, until told to stop."""

import argparse
import ipaddress
import os
import socket
import sys
from dataclasses import replace
from typing import Any

from handgraph.errors import InputError, MissingExtraError
from handgraph.server.limits import Limits

STOP_SECONDS = 30
"""What runs at the end of the server may take so long."""
MOST_WORKERS = 4


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Serve until SIGINT or SIGTERM, then finish what runs. Returns what was answered.

    Raises MissingExtraError without the extra `serve`, InputError for an address that cannot be used.
    """
    try:
        import uvicorn

        from handgraph.server.app import make_app
        from handgraph.server.protocol import protocol
        from handgraph.server.work import Models
    except ImportError as error:
        raise MissingExtraError(f"serve needs {error.name}: pip install 'handgraph[serve]'") from None

    listening = _socket(args.host, args.port)
    limits = replace(Limits(), places=args.places, request_seconds=float(args.seconds))
    workers = args.workers or _workers()
    _threads(workers)
    names = frozenset(name.lower() for name in (*args.allow_host, *_own_names(args.host)))
    app = make_app(Models(args.model, args.checkpoint, args.runtime), limits, workers=workers, names=names)
    config = uvicorn.Config(
        app,
        http=protocol(limits),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=32_768,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = uvicorn.Server(config)
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def serve() -> None:
        await server.serve(sockets=[listening])

    _announce(url, host, server)
    import asyncio

    asyncio.run(serve())
    if not server.started:
        raise InputError("the server could not start; the line above says why")
    return {"url": url, "answered": server.server_state.total_requests}


def _announce(url: str, host: str, server: Any) -> None:
    """Say where the server is once it answers, and warn where others can reach it."""
    started = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await started(sockets=sockets)
        if not server.started:
            return
        if not ipaddress.ip_address(host).is_loopback:
            _say(
                f"warning: {host} can be reached by other machines, and there is no password; without --host "
                "only this one can"
            )
        _say(f"{url} (Ctrl+C stops)")

    server.startup = startup


def _socket(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port}: cannot be used ({error.strerror}); choose another"
        ) from None
    return listening


def _own_names(host: str) -> list[str]:
    """Names that this machine has itself, where others are let in."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        return [host]
    return [] if loopback else [socket.gethostname(), f"{socket.gethostname()}.local"]


def _workers() -> int:
    """Worker threads: OMP_NUM_THREADS cores each where it is set, else one each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0]
    return max(1, min(MOST_WORKERS, cores // max(1, int(wanted) if wanted.isdigit() else 1)))


def _threads(workers: int) -> None:
    """Share the cores between the workers: threads of one network that wait for cores of another are slow."""
    import cv2
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    cv2.setNumThreads(1)


def _say(message: str) -> None:
    print(f"handgraph serve: {message}", file=sys.stderr, flush=True)
