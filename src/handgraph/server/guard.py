"""Before and behind every request: who asks, how much comes in how slowly, what a browser may do with it.

Written against ASGI itself: it must see bytes before anybody parses or keeps them.
"""

import asyncio
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from handgraph.server.limits import Limits, Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# The page is of its own files alone; `blob:` and `data:` are the user's picture and the drawing of it.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Wraps the application. `names` are the host names, beside IP addresses, that it answers to."""

    def __init__(self, app: App, limits: Limits, names: frozenset[str]) -> None:
        self.app, self.limits, self.names = app, limits, names

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            self._check(dict(scope["headers"]))
        except Refused as refused:
            await answer_refused(send_with_headers, refused)
            return
        await self.app(scope, _Bounded(receive, self.limits), send_with_headers)

    def _check(self, headers: dict[bytes, bytes]) -> None:
        """Raise Refused for a request that another site has a browser make, or that announces too much."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._ours(_name(host)):
            # A name that an attacker lets point here would make this page part of his site (DNS rebinding).
            raise Refused(
                421, f"host {host[:80]!r} is not this server's name; open it by its address or --allow-host"
            )
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and origin.partition("://")[2] != host:
            raise Refused(403, f"requests from the page {origin[:80]!r} are not served")
        if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and (
            headers.get(b"sec-fetch-mode") != b"navigate"
        ):
            raise Refused(403, "requests from pages of other sites are not served")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.upload_bytes:
            raise too_large(self.limits)

    def _ours(self, name: str) -> bool:
        if name in self.names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # an address cannot be made to point elsewhere


class _Bounded:
    """`receive` with the limits on bytes and time; raises Refused when one is passed."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._bytes, self._whole = 0, False
        self._began: float | None = None

    async def __call__(self) -> Message:
        if self._whole:  # only the client's leaving can come now, and whoever asks waits for that
            return await self._receive()
        limits, now = self._limits, time.monotonic()
        self._began = self._began or now
        left = self._began + limits.upload_seconds - now
        try:
            message = await asyncio.wait_for(self._receive(), max(0.01, min(limits.idle_seconds, left)))
        except TimeoutError:
            raise Refused(408, "the upload stopped; send it again") from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            if self._bytes > limits.upload_bytes:
                raise too_large(limits)
            self._whole = not message.get("more_body", False)
            seconds = time.monotonic() - self._began
            slow = seconds > limits.idle_seconds and self._bytes < seconds * limits.least_bytes_per_s
            if not self._whole and (slow or seconds > limits.upload_seconds):
                raise Refused(
                    408, f"the upload is too slow ({self._bytes} bytes in {seconds:.0f} s); send it again"
                )
        return message


def too_large(limits: Limits) -> Refused:
    """The refusal of an upload that is too large."""
    return Refused(413, f"the upload is larger than {limits.upload_bytes / 1e6:g} MB; send less at once")


def error_body(message: str) -> bytes:
    """The JSON of every refusal: one line."""
    return json.dumps({"error": " ".join(message.split())}, ensure_ascii=False).encode()


async def answer_refused(send: Send, refused: Refused) -> None:
    """Send a refusal as a whole answer."""
    body = error_body(str(refused))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.retry_after_s is not None:
        headers.append((b"retry-after", str(refused.retry_after_s).encode()))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _name(host: str) -> str:
    """A Host header without its port and an IPv6 address's brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
