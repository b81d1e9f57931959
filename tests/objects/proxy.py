"""A proxy on loopback that passes HTTP on, and does to an answer what a test asks for."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[[str, str, dict[str, str]], str]
"""``fault(method, path, headers)``: "" to pass on, "drop" to lose the answer, "503" or "403" to answer so, "silent" to
wait, "unconditional" to take away the conditions."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Proxy:
    """Listens on loopback before ``server`` until it is left."""

    def __init__(self, server: str, fault: Fault) -> None:
        self.target = server.removeprefix("http://")
        self.fault = fault
        self.done: list[tuple[str, str, str]] = []
        """(what was done, method, path) of every request that was not passed on as it was."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                proxy._answer(self)

            def log_message(self, format: str, *args: Any) -> None: ...

        for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.handle_one)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None: ...  # clients that are killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        what = self.fault(handler.command, handler.path, headers)
        if what:
            self.done.append((what, handler.command, handler.path))
        if what == "403":
            self._send(handler, 403, {}, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
            return
        if what == "503":
            self._send(handler, 503, {}, b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>")
            return
        if what == "silent":
            handler.close_connection = True
            threading.Event().wait(8)
            return
        if what == "unconditional":
            headers = {name: value for name, value in headers.items() if name not in {"if-none-match", "if-match"}}
        with closing(http.client.HTTPConnection(self.target, timeout=60)) as connection:
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        if what == "drop":  # it took effect, and nobody is told
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(handler, answer.status, dict(answer.getheaders()), content)

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
        handler.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                handler.send_header(name, value)
        length = headers.get("Content-Length", str(len(content))) if handler.command == "HEAD" else str(len(content))
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)
