"""uvicorn's HTTP/1.1 with what it leaves open: clients that never finish a header or never read an answer."""

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from handgraph.server.guard import error_body
from handgraph.server.limits import Limits

LINGER_SECONDS = 2.0
"""How long the rest of an upload is read and thrown away after its refusal, so that the client sees it."""
READING_SECONDS = 30.0
"""An answer that has not been read for so long is thrown away."""


class _Lingering:
    """A transport that, told to close amid an upload, first lets the client read why.

    Closed at once with bytes unread, TCP resets the connection and the client may never see the answer. So
    only the sending half is closed; what still comes is thrown away by `data_received`.
    """

    def __init__(self, transport: asyncio.Transport, protocol: H11Protocol) -> None:
        self._transport, self._protocol, self._lingers = transport, protocol, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def close(self) -> None:
        if self._lingers or self._transport.is_closing():
            return
        if self._protocol.conn.their_state is not h11.SEND_BODY or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._lingers = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._protocol.loop.call_later(LINGER_SECONDS, self._transport.close)


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn's `http`, with these limits."""

    class TimedProtocol(H11Protocol):
        _header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(_Lingering(transport, self))  # type: ignore[arg-type]
            if len(self.connections) > limits.connections:
                self._close_with(503, "busy: too many connections; come again in a moment")
                return
            self._wait_for_header()

        def connection_lost(self, exc: Exception | None) -> None:
            self._header_came()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._header_came()
            elif self._header_timer is None:
                self._wait_for_header()

        def send_400_response(self, msg: str) -> None:
            self._header_came()
            self._close_with(400, "not a valid HTTP request, or its header is too long")

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:
                self.transport.close()
            if self.transport.get_write_buffer_size():
                self.loop.call_later(READING_SECONDS, self._drop_if_unread)

        def _wait_for_header(self) -> None:
            self._header_timer = self.loop.call_later(limits.header_seconds, self._header_late)

        def _header_came(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _header_late(self) -> None:
            self._header_timer = None
            if not self.transport.is_closing():
                self._close_with(408, "the request's header did not come in time")

        def _drop_if_unread(self) -> None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()

        def _close_with(self, status: int, message: str) -> None:
            """Answer past h11, whose state allows no answer here, and hang up."""
            if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
                body = error_body(message)
                retry = "retry-after: 2\r\n" if status == 503 else ""
                self.transport.write(
                    f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n".encode()
                    + body
                )
            self.transport.close()

    return TimedProtocol
