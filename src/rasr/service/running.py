"""Running: a job that was handed out, and what the table of jobs, streams and metrics are told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rasr.service.config import ServiceConfig
from rasr.service.events import Publisher
from rasr.service.jobs import Job, Jobs
from rasr.service.metrics import Metrics

RENEW = 5.0
"""Seconds between two writes of a running job's lease."""


@dataclass(slots=True)
class Progress:
    """How far a running job is."""

    stage: str = "load"
    done: float = 0.0
    total: float = 1.0
    changes: int = 0


class Dispatcher(Protocol):
    """Whoever hands out the jobs that wait: to a process of this machine, or to those of a cluster."""

    galleries: dict[str, str]
    """Addresses, by name, of those galleries of the start that were opened."""

    @property
    def ready(self) -> bool:
        """Whether a job could be restored now."""

    @property
    def why(self) -> str:
        """Why it could not."""

    @property
    def lanes(self) -> int:
        """Jobs that are restored at the same time, at least 1."""

    def start(self) -> None:
        """Begin to hand out."""

    def stop(self, seconds: float) -> None:
        """End: running jobs have some seconds to be done, and are queued again afterwards."""

    def wake(self) -> None:
        """Look at the queue."""

    def cancel(self, job: str) -> None:
        """Stop a job between two tiles if it runs, and let go of it if it waits."""

    def progress_of(self, job: str) -> Progress:
        """How far a running job is."""

    def ask(self, do: str, **said: Any) -> Future[dict[str, Any]]:
        """Ask what a gallery's encoder is needed for, or a report; may raise Refused, as the future may."""

    def measure(self) -> None:
        """Bring the gauges up to date."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of a service that a dispatcher works with."""

    config: ServiceConfig
    jobs: Jobs
    feed: Publisher
    metrics: Metrics
    galleries: Mapping[str, str | Path]
    """Addresses, by name, of the galleries of the start."""
    prepare: Callable[[Job], dict[str, Any]]
    """Gives a job as the worker takes it; may raise Refused."""
    folder: Callable[[Job], Path]
    """Where a job's files lie."""


MakeDispatcher = Callable[[Parts], Dispatcher]


class Running:
    """A job that somebody works on, until it has come to its end in the table."""

    def __init__(self, job: Job, parts: Parts) -> None:
        self.job, self.progress = job, Progress()
        self._jobs, self._feed, self._metrics, self._folder = parts.jobs, parts.feed, parts.metrics, parts.folder
        self._hang = parts.config.hang
        self._renewed = time.monotonic()
        self._feed.publish(job.id)

    def note(self, said: Mapping[str, Any]) -> None:
        """Note how far it is."""
        progress = self.progress
        if said["stage"] == progress.stage and said["done"] > progress.done:
            self._metrics.tiles.inc()
        self.progress = Progress(said["stage"], said["done"], said["total"], progress.changes + 1)
        if time.monotonic() - self._renewed > RENEW:
            self._renewed = time.monotonic()
            self._jobs.renew(self.job.id, self._hang)
        self._feed.publish(self.job.id)

    def finish(self, said: Mapping[str, Any]) -> None:
        """End it with what the worker told: its outcome, an error, or that it was stopped."""
        job = self.job
        wanted = self._jobs.get(job.id)
        if said.get("cancelled") or (wanted is not None and wanted.stop):
            self._jobs.end(job.id, "cancelled" if wanted is None or wanted.stop else "queued")
        elif "outcome" in said:
            size = sum(file.stat().st_size for file in self._folder(job).rglob("*") if file.is_file()) - job.bytes
            self._jobs.end(job.id, "done", outcome=said["outcome"], size=max(0, size))
            self._metrics.job_seconds.observe(time.time() - (job.started or time.time()))
        else:
            self._jobs.end(job.id, "failed", error=str(said.get("error") or "The restoration failed."))
        self._close()

    def lose(self, how: str) -> None:
        """End it because the process that worked on it is gone."""
        self.finish({"error": f"{self.job.name}: the process that restored it {how}. Send it again."})

    def put_back(self) -> None:
        """Let it wait again: the service stops."""
        self._jobs.end(self.job.id, "queued")
        self._feed.publish(self.job.id)

    def _close(self) -> None:
        ended = self._jobs.get(self.job.id)
        if ended is not None:
            self._metrics.ended.labels(ended.state).inc()
        self._feed.publish(self.job.id)
