"""Web client: paced, retried with back-off, bounded in size, redirects and time, resumable.

One pace for each host is shared by all workers of a build. Needs the extra ``dataset``, from the first request on.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import Field

from rasr.config import Table
from rasr.dataset.addresses import (
    AddressRefused,
    Resolver,
    check_proxied,
    checked_transport,
    host_of,
    resolve,
)
from rasr.dataset.answers import parse_answer
from rasr.dataset.pace import Interrupted, Pace, retry_after
from rasr.errors import ExtraMissing, SourceError
from rasr.files import offline, whole_number

if TYPE_CHECKING:
    import httpx2

TRANSIENT = ("server trouble", "rate limit", "no connection")
"""Kinds of failure that may be gone another day."""
MAX_REDIRECTS = 5
MAX_JSON_BYTES = 32 << 20
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
SECONDS_PER_FILE = 600.0
"""A server that trickles bytes would otherwise hold a worker for ever."""
RATES = {
    "www.flickr.com": 0.9,  # "under 3600 queries per hour across the whole key"
    "api.flickr.com": 0.9,
    "live.staticflickr.com": 4.0,
    "api.inaturalist.org": 0.9,  # "60 requests per minute or lower"
    "inaturalist-open-data.s3.amazonaws.com": 4.0,
    "static.inaturalist.org": 1.0,
    "commons.wikimedia.org": 1.0,  # one request at a time
    "upload.wikimedia.org": 1.0,
}
"""Requests a second that each service is known to accept, from its own public terms."""

_T = TypeVar("_T")


class Download(Table):
    """Settings of the client: how politely, how patiently, and how much."""

    workers: int = Field(default=4, ge=1, le=32)
    rate: float = Field(default=1.0, gt=0)
    """Requests a second to a host that ``rates`` does not name."""
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Host → requests a second, on top of the known ones."""
    attempts: int = Field(default=5, ge=1, le=20)
    back_off: float = Field(default=1.0, ge=0)
    """Seconds before the second attempt; doubled for each further one."""
    patience: float = Field(default=120.0, ge=0)
    """Longest wait in seconds that a server may ask for; a longer one ends that server's part of the run."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds without a byte before an attempt counts as failed."""
    max_megabytes: float = Field(default=100.0, gt=0)
    per_photographer: int = Field(default=4, ge=1)
    """Most photos of one photographer in one category."""
    long_side: int = Field(default=2048, ge=64)
    """The size to ask for where a source offers several: the smallest that reaches it."""
    loopback: bool = False
    """Allow addresses of this machine, for a stand-in that runs here; other private addresses never are."""
    oversample: float = Field(default=1.25, ge=1)
    """Good photos to gather per photo wanted, so that splits without leaks can be filled."""

    def rate_of(self, host: str) -> float:
        """Return the requests a second allowed to ``host``."""
        return self.rates.get(host, RATES.get(host, self.rate))


class FetchError(Exception):
    """A request that did not give what was asked for, after all attempts."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """Short name under which failures are counted: dead link, not a picture, too large, …"""


class _TransientError(FetchError):
    """A failed attempt that another may mend; ``after`` is the wait that the server asked for."""

    def __init__(self, message: str, *, kind: str = "server trouble", after: float | None = None) -> None:
        super().__init__(kind, message)
        self.after = after


class Web:
    """A thread-safe client for all workers of one build. Use it in a ``with`` statement."""

    def __init__(
        self,
        settings: Download,
        agent: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        resolver: Resolver = resolve,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        # Headers are ASCII; a contact with other letters is better spelt oddly than not sent.
        self._agent = agent.encode("ascii", "backslashreplace").decode("ascii")
        self._clock = clock
        self._stop = threading.Event()
        self._paces: dict[str, Pace] = {}
        self._closed: dict[str, str] = {}
        self._lock = threading.Lock()
        self._opened: tuple[httpx2.Client, httpx2.Client] | None = None
        """One that connects to checked addresses, and one through the proxies that the user's environment names."""

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for client in self._opened or ():
            client.close()

    @property
    def _clients(self) -> tuple[httpx2.Client, httpx2.Client]:
        """Connections, made when first needed: a build from local folders needs none."""
        with self._lock:
            if self._opened is None:
                try:
                    import httpx2
                except ImportError as error:
                    raise ExtraMissing("Fetching photos from the web", "dataset") from error
                count = self._settings.workers
                limits = httpx2.Limits(max_connections=count, max_keepalive_connections=count)
                direct = checked_transport(limits, self._resolver, loopback=self._settings.loopback)
                named = ((scheme, getproxies().get(scheme) or getproxies().get("all")) for scheme in ("http", "https"))
                mounts = {f"{scheme}://": httpx2.HTTPTransport(proxy=at, limits=limits) for scheme, at in named if at}
                common: Any = {"headers": {"User-Agent": self._agent}, "timeout": self._settings.timeout}
                self._opened = (
                    httpx2.Client(transport=direct, **common),
                    httpx2.Client(transport=direct, mounts=mounts, **common),
                )
            return self._opened

    def stop(self) -> None:
        """Make every waiting worker give up."""
        self._stop.set()

    def ready(self, url: str) -> None:
        """Raise SourceError when the user wants no network, ExtraMissing without the client."""
        host = urlsplit(url).hostname
        if offline() and host not in LOOPBACK:
            raise SourceError(f"RASR_OFFLINE or HF_HUB_OFFLINE is set, so {host} is not asked.")
        _ = self._clients

    def json(self, url: str, params: Mapping[str, str | int], busy: Callable[[Any], str] = lambda _: "") -> Any:
        """Fetch the JSON value at ``url``. Raises FetchError, which quotes a 4xx answer's body.

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
                    value = parse_answer(body)
                except ValueError as error:
                    # Overloaded services put an HTML page behind status 200; it is gone a moment later.
                    raise _TransientError(f"{_shown(url)} answered something that is not JSON") from error
                if why := busy(value):
                    raise _TransientError(why, after=retry_after(response.headers))
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
            if error.kind not in TRANSIENT:
                part.unlink(missing_ok=True)
                mark.unlink(missing_ok=True)
            raise

    def _download_once(self, url: str, target: Path, part: Path, mark: Path) -> None:
        known = mark.read_text("latin-1") if mark.exists() else ""
        have = part.stat().st_size if part.exists() and known.isascii() and known.isprintable() and known else 0
        # Without compression the lengths in the headers are those of the file: Range and the cap mean what they say.
        headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": known}
        with self._open(url, headers=headers) as response:
            status = response.status_code
            if status == 416:
                part.unlink()
                raise _TransientError("the rest of the file is no longer there")
            if status >= 400:
                raise FetchError("dead link", f"{_shown(url)} answered {status}")
            _check_type(response, url)
            resumed = status == 206
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink()
                raise _TransientError(f"{_shown(url)} sent another part of the file than was asked for")
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
        """Yield the body; raises FetchError once it is announced or found longer than ``limit``."""
        said = response.headers.get("Content-Length", "")
        shown = _shown(str(response.url))
        if (size := whole_number(said)) is not None and size > limit:
            raise FetchError("too large", f"{shown} announces {size / 1e6:.0f} MB, over the limit")
        started, size = self._clock(), 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > limit:
                raise FetchError("too large", f"{shown} sends more than the limit of {limit / 1e6:.0f} MB")
            if self._stop.is_set():
                raise Interrupted
            if self._clock() - started > SECONDS_PER_FILE:
                raise _TransientError(f"{shown} sent {size} bytes in {SECONDS_PER_FILE:.0f} s")
            yield chunk

    @contextmanager
    def _open(
        self, url: str, *, params: Mapping[str, str | int] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx2.Response]:
        """Send a request, redirects at their own host's pace; yields any answer not retried."""
        clients = self._clients
        import httpx2

        try:
            request = clients[0].build_request("GET", url, params=params, headers=headers)
        except (httpx2.InvalidURL, ValueError) as error:
            raise FetchError("dead link", f"{_shown(url)} is not a web address: {error}") from error
        try:
            for _ in range(MAX_REDIRECTS + 1):
                if request.url.scheme not in ("http", "https"):
                    scheme = request.url.scheme
                    raise FetchError("dead link", f"{_shown(url)} leads to {scheme}://, which is not followed")
                self._pace(request.url.host).acquire()
                response = self._send(request)
                try:
                    if response.next_request is not None:
                        if (request.url.scheme, response.next_request.url.scheme) == ("https", "http"):
                            raise FetchError("dead link", f"{_shown(url)} leads from https to http: not followed")
                        request = response.next_request
                        request.headers.update(headers or {})
                        # What Flickr answers for a deleted photo: a redirect to a picture that says so.
                        if "photo_unavailable" in request.url.path:
                            raise FetchError("dead link", f"{_shown(url)} was deleted by its owner")
                        continue
                    if response.status_code in RETRIED:
                        kind = "rate limit" if response.status_code == 429 else "server trouble"
                        after = retry_after(response.headers)
                        raise _TransientError(f"{_shown(url)} answered {response.status_code}", kind=kind, after=after)
                    yield response
                    return
                finally:
                    response.close()
            raise FetchError("redirect loop", f"{_shown(url)} redirects more than {MAX_REDIRECTS} times")
        except httpx2.RequestError as error:  # also of the caller's block, where the body is read
            why = f"{_shown(url)}: {error or type(error).__name__}"
            raise _TransientError(why, kind="no connection") from error
        except (httpx2.InvalidURL, AddressRefused) as error:
            raise FetchError("dead link", f"{_shown(url)} is not asked: {error}") from error

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request, to a checked address. A proxy resolves names itself: only what the name tells is checked.

        Raises AddressRefused.
        """
        direct, proxied = self._clients
        scheme, host = request.url.scheme, request.url.host
        if not (getproxies().keys() & {scheme, "all"}) or proxy_bypass(host):
            return direct.send(request, stream=True)
        check_proxied(host, loopback=self._settings.loopback)
        return proxied.send(request, stream=True)

    def _retried(self, url: str, attempt: Callable[[], _T]) -> _T:
        """Run ``attempt`` until it succeeds, fails for good, or has failed as often as allowed."""
        settings = self._settings
        try:
            host = host_of(url)
        except ValueError as error:
            raise FetchError("dead link", f"{_shown(url)} is not a web address: {error}") from error
        for number in range(settings.attempts):
            if host in self._closed:
                raise FetchError("rate limit", self._closed[host])
            try:
                return attempt()
            except _TransientError as error:
                failure, asked = error, error.after or 0.0
            if asked > settings.patience:
                self._closed[host] = f"{host} asks to wait {asked / 60:.0f} minutes"
                raise FetchError("rate limit", self._closed[host])
            if number + 1 < settings.attempts:
                self._pace(host).pause(asked)
                # Jitter keeps the workers from all coming back at the same moment.
                pause = settings.back_off * 2**number * random.uniform(1, 1.25)  # noqa: S311
                if self._stop.wait(min(max(pause, asked), settings.patience)):
                    raise Interrupted
        raise FetchError(failure.kind, f"{failure} ({settings.attempts} attempts)")

    def _pace(self, host: str) -> Pace:
        with self._lock:
            if host not in self._paces:
                self._paces[host] = Pace(self._settings.rate_of(host), clock=self._clock, wait=self._stop.wait)
            return self._paces[host]


def _check_type(response: httpx2.Response, url: str) -> None:
    """Refuse what does not even claim to be a picture; false claims are found when decoding."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind not in ("application/octet-stream", "binary/octet-stream"):
        raise FetchError("not a picture", f"{_shown(url)} is {kind}, not a picture")


def _write_mark(mark: Path, headers: Mapping[str, str]) -> None:
    """Keep what identifies this version of the file, if anything, to ask for its rest."""
    validator = headers.get("ETag") or headers.get("Last-Modified") or ""
    if validator and validator.isascii() and not validator.startswith("W/") and "Content-Encoding" not in headers:
        mark.write_text(validator, "ascii")
    else:
        mark.unlink(missing_ok=True)


def _shown(url: str) -> str:
    """Cut the query, which may hold an API key, from an address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0][:200]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]
