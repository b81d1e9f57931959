"""Review page: every photo at a glance, kept or dropped by one key, on this machine only."""

import json
import secrets
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from rasr.dataset.manifest import file_inside, read_manifest, write_manifest
from rasr.errors import DatasetError, OutputError, RasrError
from rasr.files import JsonLines, parse_object, whole_number
from rasr.images import Picture, encode_picture, read_picture, resize

DECISIONS = "review.jsonl"
SHOWN = 1280
"""Long side in pixels of the pictures on the page."""
LARGEST_BODY = 4096
SECONDS = 30.0
"""Longest life of a connection; a page or a picture takes well under one."""


def read_decisions(folder: Path) -> dict[str, str]:
    """Read the last decision on each photo: id → "keep" or "drop"."""
    decisions: dict[str, str] = {}
    for entry in JsonLines(folder / DECISIONS).read():
        name, decision = str(entry.get("id")), entry.get("decision")
        if decision in ("keep", "drop"):
            decisions[name] = decision
        elif decision == "undo":
            decisions.pop(name, None)
    return decisions


class ReviewServer:
    """Serves the page at :attr:`url` until stopped. On this machine only; a stalled client holds no other.

    Who wants to talk to it must know the token in the address, and can only name photos of the manifest by their
    number. Decisions are appended to ``review.jsonl`` and written into the manifest at once.
    """

    def __init__(self, folder: str | Path, port: int = 0) -> None:
        """Raises DatasetError when the folder holds no dataset, OutputError when the port is taken."""
        self.folder = Path(folder)
        self.records = read_manifest(self.folder)
        if not self.records:
            raise DatasetError(f"{self.folder} has an empty manifest; there is nothing to review.")
        self._decisions = read_decisions(self.folder)
        self._lock = threading.Lock()
        # Photos that the subject check marked come first: there the eye is needed.
        self.order = sorted(range(len(self.records)), key=lambda index: (-self.records[index].deviation, index))
        self.token = secrets.token_urlsafe(16)
        try:
            self._server = _Server(("127.0.0.1", port), _handler(self))
        except OSError as error:
            raise OutputError(f"Cannot serve on port {port} of this machine: {error.strerror}.") from error

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self._server.server_port}/{self.token}/"

    @property
    def hosts(self) -> Sequence[str]:
        """Host headers answered; others come from a page whose name points here (DNS rebinding)."""
        return [f"{name}:{self._server.server_port}" for name in ("127.0.0.1", "localhost")]

    @property
    def origins(self) -> Sequence[str]:
        """Pages whose requests are answered: this one. A browser names the page with every decision that it sends."""
        return [f"http://{host}" for host in self.hosts]

    def serve(self) -> None:
        """Answer requests until :meth:`stop` is called from another thread or the user interrupts."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        """End :meth:`serve`."""
        self._server.shutdown()

    def listing(self) -> list[dict[str, Any]]:
        """List what the page shows of each photo, the largest deviations first."""
        wanted = ("id", "category", "split", "title", "author", "licence", "width", "height", "deviation")
        listed = []
        for index in self.order:
            record = asdict(self.records[index])
            decision = self._decisions.get(record["id"], "")
            listed.append({"number": index, "decision": decision, **{name: record[name] for name in wanted}})
        return listed

    def picture(self, number: int) -> bytes:
        """Return a photo, shrunk for the page, as JPEG. Raises IndexError, PictureError, DatasetError."""
        return _shrunk(file_inside(self.folder, self.records[number]))

    def decide(self, number: int, decision: str) -> None:
        """Note a decision: keep, drop or undo. Raises ValueError for anything else, OutputError."""
        known = type(number) is int and number in range(len(self.records))
        if decision not in ("keep", "drop", "undo") or not known:
            raise ValueError("not a decision")
        with self._lock:
            self._note(number, decision)

    def _note(self, number: int, decision: str) -> None:
        name = self.records[number].id
        JsonLines(self.folder / DECISIONS).append({"id": name, "decision": decision})
        self._decisions.pop(name, None) if decision == "undo" else self._decisions.update({name: decision})
        review: Any = "" if decision == "undo" else decision
        self.records[number] = replace(self.records[number], review=review)
        write_manifest(self.folder, self.records)

    def summary(self) -> dict[str, int]:
        """Count the photos kept, dropped, and not decided on."""
        names = {record.id for record in self.records}
        decided = [decision for name, decision in self._decisions.items() if name in names]
        counts = {what: decided.count(what) for what in ("keep", "drop")}
        return counts | {"open": len(names) - sum(counts.values())}


@lru_cache(maxsize=64)
def _shrunk(path: Path) -> bytes:
    pixels = read_picture(path).opaque()
    height, width = pixels.shape[:2]
    shrink = min(1.0, SHOWN / max(width, height))
    small = resize(pixels, (max(1, round(width * shrink)), max(1, round(height * shrink))), filter="area")
    return encode_picture(Picture(small.clip(0, 1)), "JPEG")


class _Server(ThreadingHTTPServer):
    """A thread for each connection, which is closed after SECONDS, whatever trickles in."""

    daemon_threads = True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one request, or close its connection when its time is up."""

        def close() -> None:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

        deadline = threading.Timer(SECONDS, close)
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing when a client went away or stalled; anything else is a fault of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _handler(review: ReviewServer) -> type[BaseHTTPRequestHandler]:
    """Make a server's request handler; HTTP/1.0, so that no idle connection stays open."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            parts = self._parts()
            if parts == [""]:
                page = files("rasr.dataset").joinpath("review.html").read_bytes()
                self._answer(HTTPStatus.OK, "text/html; charset=utf-8", page)
            elif parts == ["photos"]:
                self._answer(HTTPStatus.OK, "application/json", json.dumps(review.listing()).encode())
            elif (
                parts is not None
                and len(parts) == 2
                and parts[0] == "picture"
                and (number := whole_number(parts[1])) is not None
            ):
                try:
                    self._answer(HTTPStatus.OK, "image/jpeg", review.picture(number))
                except (IndexError, RasrError) as error:
                    self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", str(error).encode())
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"not here")

        def do_POST(self) -> None:
            size = whole_number(self.headers.get("Content-Length", ""))
            if self._parts() != ["decide"] or size is None or size > LARGEST_BODY:
                self._answer(HTTPStatus.BAD_REQUEST, "text/plain; charset=utf-8", b"not understood")
                return
            try:
                asked = parse_object(self.rfile.read(size))
                number, decision = asked["number"], asked["decision"]
                review.decide(number, decision)
            except (ValueError, TypeError, KeyError, IndexError):
                self._answer(HTTPStatus.BAD_REQUEST, "text/plain; charset=utf-8", b"not understood")
            except RasrError as error:
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", str(error).encode())
            else:
                self._answer(HTTPStatus.OK, "application/json", json.dumps(review.summary()).encode())

        def _parts(self) -> list[str] | None:
            """Split the path behind the token; None when the token, the host or the asking page is wrong."""
            path, prefix = self.path.partition("?")[0], f"/{review.token}/"
            known = secrets.compare_digest(path[: len(prefix)].encode(), prefix.encode())
            page, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site", "none")
            own = page in {None, *review.origins} and site in {"same-origin", "none"}
            known = known and own and self.headers.get("Host", "") in review.hosts
            return path[len(prefix) :].split("/") if known else None

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cache-Control", "no-store")
            self.send_header(
                "Content-Security-Policy",
                "default-src 'self'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
            )
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal belongs to the command."""

    return Handler
