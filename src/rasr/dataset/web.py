"""Asking the web politely: paced, retried with back-off, bounded in size, redirects and time, and resumable."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from rasr.dataset.config import Download
from rasr.dataset.pace import Interrupted, Pace, retry_after
from rasr.errors import SourceError
from rasr.home import offline

__all__ = ["PASSING", "FetchError", "Web"]

PASSING = ("server trouble", "rate limit", "no connection")
"""Kinds of failure that may be gone another day."""
MAX_REDIRECTS = 5
MAX_JSON_BYTES = 32 << 20
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
SECONDS_PER_FILE = 600.0
"""A server that trickles bytes would otherwise hold a worker for ever."""


_T = TypeVar("_T")


class FetchError(Exception):
    """A request that did not give what was asked for, after all attempts."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """Short name under which failures are counted: dead link, not a picture, too large, …"""


class _Again(Exception):
    """This attempt failed in a way that another one may not; ``after`` is the wait the server asked for."""

    def __init__(self, message: str, *, kind: str = "server trouble", after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.after = after


class Web:
    """A client for all workers of one build. Thread-safe. Close it, or use it in a ``with`` statement."""

    def __init__(self, settings: Download, agent: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._stop = threading.Event()
        self._paces: dict[str, Pace] = {}
        self._closed: dict[str, str] = {}
        self._lock = threading.Lock()
        self._client = httpx2.Client(
            # Headers are ASCII; a contact with other letters is better spelt oddly than not sent.
            headers={"User-Agent": agent.encode("ascii", "backslashreplace").decode("ascii")},
            timeout=settings.timeout,
            limits=httpx2.Limits(max_connections=settings.workers, max_keepalive_connections=settings.workers),
            follow_redirects=False,
        )

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    def stop(self) -> None:
        """Make every waiting worker give up with :class:`Interrupted`."""
        self._stop.set()

    def ready(self, url: str) -> None:
        """Raise SourceError when this address must not be asked: the user wants no network."""
        if offline() and urlsplit(url).hostname not in LOOPBACK:
            host = urlsplit(url).hostname
            raise SourceError(f"RASR_OFFLINE or HF_HUB_OFFLINE is set, so {host} is not asked.")

    def json(self, url: str, params: Mapping[str, str | int], busy: Callable[[Any], str] = lambda _: "") -> Any:
        """The JSON value at ``url``. Raises FetchError; a 4xx answer's body is its message's source.

        ``busy`` looks at the value and returns why it means "come back later", or an empty string: some services say
        so under status 200.
        """

        def attempt() -> Any:
            with self._open(url, params=params) as response:
                body = b"".join(self._bounded(response, MAX_JSON_BYTES))
                if response.status_code in (401, 403):
                    raise FetchError("refused", f"{_shown(url)} refused the request ({response.status_code})")
                if response.status_code >= 400:
                    said = body[:200].decode("utf-8", "replace")
                    raise FetchError("refused", f"{_shown(url)} answered {response.status_code}: {said}")
                try:
                    value = json.loads(body)
                except ValueError as error:
                    # Overloaded services put an HTML page behind status 200; it is gone a moment later.
                    raise _Again(f"{_shown(url)} answered something that is not JSON") from error
                if why := busy(value):
                    after = retry_after(response.headers.get("Retry-After"), response.headers.get("Date"))
                    raise _Again(why, after=after)
                return value

        return self._retried(url, attempt)

    def download(self, url: str, target: Path) -> None:
        """Fetch a picture into ``target``, which appears whole or not at all.

        What an earlier attempt or an earlier run left in ``target.part`` is continued when the server confirms with
        its ETag or date that the file is the same. Raises FetchError, and OSError when the disk is full.
        """
        part, mark = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.mark")
        try:
            self._retried(url, lambda: self._download_once(url, target, part, mark))
        except FetchError as error:
            if error.kind not in PASSING:
                part.unlink(missing_ok=True)
                mark.unlink(missing_ok=True)
            raise

    def _download_once(self, url: str, target: Path, part: Path, mark: Path) -> None:
        have = part.stat().st_size if part.exists() and mark.exists() else 0
        # Without compression the lengths in the headers are those of the file: Range and the cap mean what they say.
        headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": mark.read_text("ascii")}
        with self._open(url, headers=headers) as response:
            status = response.status_code
            if status == 416:
                part.unlink()
                raise _Again("the rest of the file is no longer there")
            if status >= 400:
                raise FetchError("dead link", f"{_shown(url)} answered {status}")
            _check_type(response, url)
            resumed = status == 206
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink()
                raise _Again(f"{_shown(url)} sent another part of the file than was asked for")
            if not resumed:
                # First the old bytes go, then comes the new file's mark: the two must never be of different files.
                part.unlink(missing_ok=True)
                _write_mark(mark, response.headers)
            limit = int(self._settings.max_megabytes * 1e6) - (have if resumed else 0)
            with part.open("ab" if resumed else "wb") as file:
                for chunk in self._bounded(response, limit):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        part.replace(target)
        mark.unlink(missing_ok=True)

    def _bounded(self, response: httpx2.Response, limit: int) -> Iterator[bytes]:
        """The body, cut off with FetchError as soon as it is announced or found to be longer than ``limit`` bytes."""
        said = response.headers.get("Content-Length", "")
        shown = _shown(str(response.url))
        if said.isdigit() and int(said) > limit:
            raise FetchError("too large", f"{shown} announces {int(said) / 1e6:.0f} MB, over the limit")
        started, size = self._clock(), 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > limit:
                raise FetchError("too large", f"{shown} sends more than the limit of {limit / 1e6:.0f} MB")
            if self._stop.is_set():
                raise Interrupted
            if self._clock() - started > SECONDS_PER_FILE:
                raise _Again(f"{shown} sent {size} bytes in {SECONDS_PER_FILE:.0f} s")
            yield chunk

    @contextmanager
    def _open(
        self, url: str, *, params: Mapping[str, str | int] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx2.Response]:
        """One request with its redirects, each hop at its own host's pace. Yields any answer that is not retried."""
        request = self._client.build_request("GET", url, params=params, headers=headers)
        for _ in range(MAX_REDIRECTS + 1):
            if request.url.scheme not in ("http", "https"):
                raise FetchError("dead link", f"{_shown(url)} leads to {request.url.scheme}://, which is not followed")
            self._pace(request.url.host).acquire()
            response = self._client.send(request, stream=True)
            try:
                if response.next_request is not None:
                    request = response.next_request
                    request.headers.update(headers or {})
                    # What Flickr answers for a deleted photo: a redirect to a picture that says so.
                    if "photo_unavailable" in request.url.path:
                        raise FetchError("dead link", f"{_shown(url)} was deleted by its owner")
                    continue
                if response.status_code in RETRIED:
                    after = retry_after(response.headers.get("Retry-After"), response.headers.get("Date"))
                    kind = "rate limit" if response.status_code == 429 else "server trouble"
                    raise _Again(f"{_shown(url)} answered {response.status_code}", kind=kind, after=after)
                yield response
                return
            finally:
                response.close()
        raise FetchError("redirect loop", f"{_shown(url)} redirects more than {MAX_REDIRECTS} times")

    def _retried(self, url: str, attempt: Callable[[], _T]) -> _T:
        """Run ``attempt`` until it succeeds, fails for good, or has failed as often as allowed."""
        host = urlsplit(url).hostname or ""
        for number in range(1, self._settings.attempts + 1):
            if host in self._closed:
                raise FetchError("rate limit", self._closed[host])
            try:
                return attempt()
            except _Again as error:
                message, kind, asked = str(error), error.kind, error.after
            except httpx2.RequestError as error:
                message, kind, asked = f"{_shown(url)}: {error or type(error).__name__}", "no connection", None
            except httpx2.InvalidURL as error:
                raise FetchError("dead link", f"{_shown(url)} is not a web address: {error}") from error
            if asked is not None and asked > self._settings.patience:
                self._closed[host] = f"{host} asks to wait {asked / 60:.0f} minutes"
                raise FetchError("rate limit", self._closed[host])
            if number < self._settings.attempts:
                # Jitter keeps the workers from all coming back at the same moment.
                pause = self._settings.back_off * 2 ** (number - 1) * random.uniform(1, 1.25)  # noqa: S311
                if asked is not None:
                    self._pace(host).pause(asked)
                if self._stop.wait(min(max(pause, asked or 0), self._settings.patience)):
                    raise Interrupted
        raise FetchError(kind, f"{message} ({self._settings.attempts} attempts)")

    def _pace(self, host: str) -> Pace:
        with self._lock:
            if host not in self._paces:
                self._paces[host] = Pace(self._settings.rate_of(host), clock=self._clock, wait=self._stop.wait)
            return self._paces[host]


def _check_type(response: httpx2.Response, url: str) -> None:
    """Refuse what does not even claim to be a picture; what claims it falsely is found when it is decoded."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind not in ("application/octet-stream", "binary/octet-stream"):
        raise FetchError("not a picture", f"{_shown(url)} is {kind}, not a picture")


def _write_mark(mark: Path, headers: Mapping[str, str]) -> None:
    """Keep what identifies this version of the file, so that its rest can be asked for; nothing if nothing does."""
    validator = headers.get("ETag") or headers.get("Last-Modified") or ""
    if validator and validator.isascii() and not validator.startswith("W/") and "Content-Encoding" not in headers:
        mark.write_text(validator, "ascii")
    else:
        mark.unlink(missing_ok=True)


def _shown(url: str) -> str:
    """The address without its query, which may hold an API key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
