"""Pool of decoding processes: a thread for each, a deadline for each task, a new process after any that was killed."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rasr.child import Child, Message
from rasr.service.config import ServiceConfig
from rasr.service.metrics import Metrics
from rasr.service.refusal import Refused

TASKS = 200
"""Pictures after which a process is replaced by a fresh one."""
START = 60.0
"""Seconds that a new process may take until it answers, on a busy machine."""
STATUS = {"too_large": 413, "unsupported": 415, "unreadable": 422, "too_slow": 422, "broke": 422}
RAISE = "Raise the limit with --max-megapixels N, or 'none' if you trust the file."
"""What the command line advises, and a client cannot do."""

Show = Literal["png", "photo", "thumbnail"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a picture that was sent is: it can be decoded as a whole."""

    width: int
    height: int
    format: str
    content: bytes
    """As asked to be shown, else empty."""
    type: str


class Decoders:
    """Decodes in processes that the system keeps small. Each answers one task at a time."""

    def __init__(self, config: ServiceConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._own = threading.local()
        self._all: set[Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(config.decoders, "rasr-decoder", initializer=self._start)

    def warm(self) -> None:
        """Start the processes before they are needed."""
        together = threading.Barrier(self._config.decoders)
        for one in [self._pool.submit(self._meet, together) for _ in range(self._config.decoders)]:
            one.result()

    def submit(self, path: Path, name: str, show: Show | None = None) -> Future[Decoded]:
        """Decode a file called ``name`` by its owner; the future may raise Refused."""
        return self._pool.submit(self._decode, path, name, show)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            children, self._all = self._all, set()
        for child in children:
            child.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for child in children:
            child.end()

    def pids(self) -> list[int]:
        """Process numbers."""
        with self._lock:
            return [child.pid for child in self._all]

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise Refused(503, "stopping", "The service is stopping. Try again when it is back.")
            child = Child("rasr.service.decode", largest=2**29, threads=1)
            self._all.add(child)
        self._own.child, self._own.tasks, self._own.ready = child, 0, False
        with suppress(OSError):  # where it is dead already, its first task finds out
            child.pipe.send({"max_pixels": self._config.max_pixels})

    def _wait(self) -> None:
        """Wait until this thread's process can take a task. Raises EOFError or OSError when it is dead."""
        if not self._own.ready:
            timer = threading.Timer(START, self._own.child.kill)
            timer.start()
            try:
                self._own.child.pipe.receive()
            finally:
                timer.cancel()
            self._own.ready = True

    def _meet(self, together: threading.Barrier) -> None:
        with suppress(EOFError, OSError):
            self._wait()
        together.wait(START)

    def _replace(self) -> str:
        child: Child = self._own.child
        with self._lock:
            self._all.discard(child)
        ended = child.end()
        self._start()
        return ended

    def _decode(self, path: Path, name: str, show: Show | None) -> Decoded:
        if not self._own.child.alive:  # killed while it had nothing to do: nobody's picture was at fault
            self._metrics.decoder_deaths.inc()
            self._replace()
        elif self._own.tasks >= TASKS:
            self._replace()
        seconds = self._config.decode_seconds
        self._own.tasks += 1
        child: Child = self._own.child
        task = {"path": str(path), "name": name, "show": show, "max_pixels": self._config.max_pixels}
        overdue = threading.Event()

        def kill() -> None:
            overdue.set()
            child.kill()

        pixels = 0.0
        timer = threading.Timer(seconds, kill)
        try:
            self._wait()
            timer.start()
            longest = seconds + self._config.max_pixels / 1e6
            child.pipe.send({**task, "cpu_seconds": longest})
            said, content = child.pipe.receive()
            if "header" in said:
                timer.cancel()
                pixels = float(said["header"]["width"]) * float(said["header"]["height"])
                timer = threading.Timer(seconds + pixels / 1e6, kill)
                timer.start()
                said, content = child.pipe.receive()
            return self._read((said, content), name)
        except (EOFError, OSError, KeyError, TypeError, ValueError) as error:
            self._metrics.decoder_deaths.inc()
            child.kill()
            how = self._replace()
            if overdue.is_set():
                raise self._refused("too_slow", f"{name}: decoding it took too long and was stopped.") from error
            raise self._refused("broke", f"{name}: the process that decoded it {how}.") from error
        finally:
            timer.cancel()

    def _read(self, message: Message, name: str) -> Decoded:
        said, content = message
        if "code" in said:
            code = said["code"] if said["code"] in STATUS else "unreadable"
            raise self._refused(code, str(said["message"])[:2000])
        return Decoded(int(said["width"]), int(said["height"]), str(said["format"]), content, str(said["type"]))

    def _refused(self, code: str, message: str) -> Refused:
        self._metrics.refusals.labels(code).inc()
        told = message.replace(RAISE, "Send a smaller one, or start the service with a larger --max-megapixels.")
        return Refused(STATUS[code], code, told)
