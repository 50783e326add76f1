"""`handgraph serve` says in one line why it cannot start, and who it would answer to."""

import socket

import pytest

from handgraph.cli import main
from handgraph.server.command import _own_names, _workers

from .conftest import need_loopback


def test_a_port_that_is_taken_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    need_loopback()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        taken.listen()
        assert main(["serve", "--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert f"--port {port}: cannot be used" in told
    assert "choose another" in told
    assert main(["serve", "--host", "203.0.113.77", "--port", "0"]) == 2
    assert "--host 203.0.113.77" in capsys.readouterr().err


def test_a_model_without_weights_is_said_before_anything_is_served(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "--port", "0", "--model", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err


def test_names_are_those_of_the_host_that_was_chosen() -> None:
    assert _own_names("127.0.0.1") == []
    assert _own_names("::1") == []
    assert _own_names("0.0.0.0") == [socket.gethostname(), f"{socket.gethostname()}.local"]
    assert _own_names("pc.example") == ["pc.example"]


def test_workers_leave_each_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert _workers() == 4, "not more than four"
    for threads, expected in (("1", 4), ("4", 2), ("8", 1), ("64", 1), ("3,2", 2), ("x", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert _workers() == expected, threads
