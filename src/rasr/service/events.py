"""Events: whoever follows a job is told when it changes, and let go when the service stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from prometheus_client import Gauge

PING = 15.0
"""Seconds after which a comment shows that the stream lives."""


class Publisher(Protocol):
    """Whoever is told that a job has changed."""

    def publish(self, job: str) -> None:
        """Tell that a job has changed."""


class Feed:
    """Wakes the streams of a job, from any thread."""

    def __init__(self, streams: Gauge) -> None:
        self._streams = streams
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say in which loop the streams run."""
        self._loop = loop

    def publish(self, job: str) -> None:
        """Tell that a job has changed."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job)

    def close(self) -> None:
        """End all streams, in the loop's thread."""
        self.closed = True
        for job in list(self._waiting):
            self._wake(job)

    def _wake(self, job: str) -> None:
        for event in self._waiting.get(job, ()):
            event.set()

    async def follow(
        self, job: str, look: Callable[[], Mapping[str, Any] | None], seen: int | None
    ) -> AsyncIterator[bytes]:
        """Yield the stream of a job: ``look()`` whenever it changed since the revision ``seen``, until it ends.

        ``look`` gives the job as clients see it, with ``revision``; None when it is gone.
        """
        changed = asyncio.Event()
        self._waiting.setdefault(job, set()).add(changed)
        self._streams.inc()
        try:
            yield b": rasr\nretry: 2000\n\n"
            while not self.closed:
                changed.clear()
                shown = await asyncio.to_thread(look)
                if shown is None:
                    return
                facts = dict(shown)
                revision, ended = int(facts.pop("revision")), facts["state"] in {"done", "failed", "cancelled"}
                if revision != seen or ended:
                    seen = revision
                    yield f"event: job\nid: {revision}\ndata: {json.dumps(facts)}\n\n".encode()
                if ended:
                    return
                try:
                    await asyncio.wait_for(changed.wait(), PING)
                except TimeoutError:
                    yield b": alive\n\n"
        finally:
            self._streams.dec()
            waiting = self._waiting[job]
            waiting.discard(changed)
            if not waiting:
                del self._waiting[job]
