"""Guard before the application, pure ASGI: host, origin, token and queue before a body is read, limits, headers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.concurrency import run_in_threadpool

from rasr.service.config import ServiceConfig
from rasr.service.metrics import Metrics
from rasr.service.refusal import Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
"""Added to every answer that does not say otherwise itself."""
OPEN = ("/", "/about", "/health/live", "/health/ready", "/favicon.ico")
"""Answered without the token: the page, which asks for it, and nothing of anybody's pictures."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Counted by name; a client may make up others without end."""
BODIES = 64
"""Requests with a body that are read at once."""
STALL = 30.0
"""Seconds without a byte of a body after which the client is given up."""


class Guard:
    """Refuses what the application need not see, and counts what it answers."""

    def __init__(self, app: App, config: ServiceConfig, metrics: Metrics, admit: Callable[[str], None]) -> None:
        """``admit`` raises Refused when a job with this Idempotency-Key, or "", would not be taken now."""
        self._app, self._config, self._metrics, self._admit = app, config, metrics, admit
        self._token = hashlib.sha256(config.token.encode()).digest() if config.token else None
        self._hosts = {"localhost", config.host.lower(), *(name.lower() for name in config.hosts)}
        self._bodies = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                said = {name.lower() for name, _ in message.get("headers", ())}
                added = [(name, value) for name, value in HEADERS.items() if name not in said]
                message["headers"] = [*message.get("headers", ()), *added]
                route = self._route(scope)
                self._metrics.seconds.labels(route).observe(time.perf_counter() - begun)
                method = scope["method"] if scope["method"] in METHODS else "other"
                self._metrics.requests.labels(method, route, str(status)).inc()
            await send(message)

        headers = _headers(scope)
        try:
            has_body = self._check(scope, headers)
            if (scope["method"], scope["path"]) == ("POST", "/jobs"):
                await run_in_threadpool(self._admit, headers.get("idempotency-key", ""))
        except Refused as refused:
            self._metrics.refusals.labels(refused.code).inc()
            await refused.response()(scope, receive, answer)
            return
        if not has_body:
            await self._app(scope, receive, answer)
            return
        self._bodies += 1
        try:
            await self._app(scope, _paced(receive), answer)
        finally:
            self._bodies -= 1

    def _check(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> bool:
        """Whether a body follows. Raises Refused."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Refused(
                421, "host", "This service is not known by that name. Name it with: rasr serve --allow-host NAME"
            )
        if scope["method"] not in {"GET", "HEAD", "OPTIONS"}:
            site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
            if site not in {"none", "same-origin"} or (origin is not None and origin.partition("://")[2] != host):
                raise Refused(403, "origin", "Pages of other sites cannot change anything here.")
        path = scope["path"]
        if self._token is not None and path not in OPEN and not path.startswith("/static/"):
            scheme, _, shown = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(hashlib.sha256(shown.strip().encode()).digest(), self._token)
            if not (right and scheme.lower() == "bearer"):
                raise Refused(401, "token", "This service asks for a token: send it as 'Authorization: Bearer TOKEN'.")
        length, chunked = headers.get("content-length", "0"), "transfer-encoding" in headers
        if length.isascii() and length.isdecimal() and int(length[:20]) > self._config.max_bytes:
            limit = self._config.max_bytes >> 20
            raise Refused(
                413, "too_large", f"A request may have {limit} MiB, and this one has more. Send a smaller picture."
            )
        has_body = chunked or length != "0"
        if has_body and self._bodies >= BODIES:
            raise Refused(
                429, "busy", f"{BODIES} uploads are being read already. Try again in a moment.", retry_after=1
            )
        return has_body

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this service: an address, which no name can be made to be, or a known name."""
        name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
        name = name.strip("[]").lower()
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    @staticmethod
    def _route(scope: MutableMapping[str, Any]) -> str:
        """Template of the route that was taken: paths hold names, and there is no end of them."""
        path = getattr(scope.get("route"), "path", None)
        return path if isinstance(path, str) else "/static" if scope["path"].startswith("/static/") else "other"


class Lasting:
    """Goes on with a request whose client has left, as the server of one machine does: Serve would cut it off."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._left: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left = asyncio.Event()

        async def receiving() -> Message:
            waiting = {asyncio.ensure_future(receive()), asyncio.ensure_future(left.wait())}
            try:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waiting:
                    one.cancel()
            said = [one.result() for one in done]
            return next((one for one in said if isinstance(one, MutableMapping)), {"type": "http.disconnect"})

        async def sending(message: Message) -> None:
            if not left.is_set():
                await send(message)

        task = asyncio.ensure_future(self._app(scope, receiving, sending))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            left.set()
            self._left.add(task)
            task.add_done_callback(self._over)
            raise

    def _over(self, task: asyncio.Task[None]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # it was told in the log


def _headers(scope: MutableMapping[str, Any]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _paced(receive: Receive) -> Receive:
    """The body as it comes, given up when nothing comes: what is left then looks like a client that went away."""
    complete = False

    async def paced() -> Message:
        nonlocal complete
        if complete:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), STALL)
        except TimeoutError:
            complete = True
            return {"type": "http.disconnect"}
        complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return paced
