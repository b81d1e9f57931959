"""Supervisor: the thread that starts the worker, hands it work, and starts it again when it dies or hangs."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from rasr import errors
from rasr.child import Child, resident
from rasr.service.refusal import Refused
from rasr.service.running import Parts, Progress, Running

PATIENCE = 0.5, 30.0
"""Seconds before a worker that died at once is started again, doubled each time, and the most."""
START = 300.0
"""Seconds without a sign of life that a worker has, at least, until it is ready: models are large, disks slow."""

_log = logging.getLogger("rasr.service")


class _Hung(EOFError):
    """The worker showed no sign of life, and was killed: says how it ended."""


@dataclass(slots=True)
class _Call:
    """A question to the worker that waits for its answer."""

    number: int
    said: Mapping[str, Any]
    future: Future[dict[str, Any]] = field(default_factory=Future)
    sent: bool = False


class Supervisor(threading.Thread):
    """Owner of the worker process: one job at a time, questions as they come."""

    def __init__(self, parts: Parts, *, restores: bool = True, processes: int = 1) -> None:
        """One that does not restore answers questions alone, and needs no generator.

        ``processes`` is how many workers, with this one, may share the machine's memory.
        """
        super().__init__(name="rasr-supervisor", daemon=True)
        self._parts, self._prepare = parts, parts.prepare
        self._config, self._jobs, self._feed, self._metrics = parts.config, parts.jobs, parts.feed, parts.metrics
        self._wanted, self._restores, self._processes = parts.galleries, restores, processes
        self._ours, self._theirs = os.pipe()
        os.set_blocking(self._ours, False)
        os.set_blocking(self._theirs, False)
        self._calls: deque[_Call] = deque()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._cancelled: set[str] = set()
        self._worker: Child | None = None
        self._stop_at: float | None = None
        self._alive = time.monotonic()
        self.lanes = 1
        self.deaths = 0
        """Workers that died one after the other, none of which did a job."""
        self.begun = False
        """Whether the worker has said that it can work, or why not."""
        self.running: Running | None = None
        self.ready = False
        self.why = "The worker is starting."
        self.galleries: dict[str, str] = {}
        """Addresses, by name, of those that the worker has opened."""
        self.faults: dict[str, str] = {}

    # What other threads ask for.

    def wake(self) -> None:
        """Look at the queue and at what was asked."""
        with suppress(BlockingIOError, OSError):
            os.write(self._theirs, b"x")

    def ask(self, do: str, **said: Any) -> Future[dict[str, Any]]:
        """Ask the worker; the future may raise Refused. Answered between two tiles, before any waiting job."""
        call = _Call(next(self._numbers), {"do": do, **said})
        with self._lock:
            if self._stop_at is not None:
                raise Refused(503, "stopping", "The service is stopping. Try again when it is back.", retry_after=10)
            self._calls.append(call)
        self.wake()
        return call.future

    def cancel(self, job: str) -> None:
        """Stop a running job between two tiles."""
        with self._lock:
            self._cancelled.add(job)
        self.wake()

    def stop(self, seconds: float) -> None:
        """End the worker: when the running job is done, or after some seconds, and then the job is queued again."""
        with self._lock:
            self._stop_at = time.monotonic() + seconds
        self.wake()
        self.join()

    def progress_of(self, job: str) -> Progress:
        """How far the running job is."""
        running = self.running
        return running.progress if running is not None and running.job.id == job else Progress()

    @property
    def pid(self) -> int | None:
        """Process number of the worker."""
        worker = self._worker
        return None if worker is None else worker.pid

    # The thread.

    def run(self) -> None:
        """Watch over workers until told to stop."""
        try:
            while not self._over():
                if self._worker is None:
                    self._start()
                try:
                    self._serve()
                except (EOFError, OSError) as error:
                    self._bury(str(error) if isinstance(error, _Hung) else "")
        finally:
            self._end()

    def _over(self) -> bool:
        """Whether it is time to end: nothing runs any more, or the grace is used up."""
        if self._stop_at is None:
            return False
        return self.running is None or time.monotonic() >= self._stop_at

    def _start(self) -> None:
        if self.deaths:
            first, most = PATIENCE
            self._sleep(min(most, first * 2 ** (self.deaths - 1)) if self.deaths > 1 else 0.0)
            if self._over():
                return
        self._worker = Child("rasr.service.worker")
        self._alive, self.begun = time.monotonic(), False
        self._worker.pipe.send(
            {
                "device": self._config.device,
                "preset": self._config.preset if self._restores else None,
                "max_pixels": self._config.max_pixels,
                "processes": self._processes,
                "galleries": {name: str(path) for name, path in self._wanted.items()},
            }
        )

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._over() and (left := until - time.monotonic()) > 0:
            wait([self._ours], min(left, 1.0))
            self._drain()

    def _serve(self) -> None:
        """One round: hand out what there is to do, wait for what happens."""
        worker = self._worker
        if worker is None:
            return
        with self._lock:
            unsent = [call for call in self._calls if not call.sent] if self.ready or self.running else []
            cancelled = {job for job in self._cancelled if self.running is not None and job == self.running.job.id}
            self._cancelled.clear()
        if not self._busy():
            self._alive = time.monotonic()  # idle, it had nothing to say: its time begins with what it is given
        for call in unsent:
            call.sent = True
            worker.pipe.send({"call": call.number, **call.said})
        for job in cancelled:
            worker.pipe.send({"cancel": job})
        if self.ready and self.running is None and self._stop_at is None:
            self._next(worker)
        left = 1.0 if self._stop_at is None else min(1.0, max(0.0, self._stop_at - time.monotonic()))
        happened = wait([worker.pipe, self._ours], left)  # type: ignore[list-item]  # anything with a fileno
        if self._ours in happened:
            self._drain()
        while worker.pipe.waiting():
            said, _ = worker.pipe.receive()
            self._alive = time.monotonic()
            self._hear(said)
        patience = self._config.hang if self.begun else max(self._config.hang, START)
        if self._busy() and time.monotonic() - self._alive > patience:
            worker.kill()
            raise _Hung(f"showed no sign of life for {patience:g} seconds and was ended")

    def _busy(self) -> bool:
        """Whether the worker has something to do, or has not said yet that it can work."""
        with self._lock:
            asked = any(call.sent for call in self._calls)
        return asked or self.running is not None or not self.begun

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._ours, 4096):
                pass

    def _next(self, worker: Child) -> None:
        job = self._jobs.take(self._config.hang)
        if job is None:
            return
        self.running = Running(job, self._parts)
        try:
            worker.pipe.send({**self._prepare(job), "restore": job.id, "name": job.name})
        except (Refused, errors.RasrError) as error:  # its gallery is gone
            self.running.finish({"error": str(error)})
            self.running = None

    def _hear(self, said: dict[str, Any]) -> None:
        if "memory" in said:
            self._metrics.memory.labels("worker").set(said["memory"])
        running = self.running
        if "progress" in said and running is not None and said["progress"] == running.job.id:
            running.note(said)
        elif "ended" in said and running is not None and said["ended"] == running.job.id:
            self.deaths = 0
            running.finish(said)
            self.running = None
        elif "answer" in said:
            self._hand_over(said)
        elif "ready" in said:
            self.begun = True
            self.ready, self.why, self.faults = bool(said["ready"]), str(said.get("why", "")), said["faults"]
            self.galleries.update(said["galleries"])
            self._metrics.worker_ready.set(self.ready)
            for name, fault in self.faults.items():
                what = "could not be loaded" if name in self.galleries else "is not offered"
                _log.warning("Gallery %s %s: %s", name, what, fault)
        elif "loading" in said:
            self.why = f"The worker is starting: gallery {said['loading']} is being loaded."
        elif "loaded" in said:
            told = [said[one] for one in ("loaded", "photos", "how", "seconds")]
            _log.info("Gallery %s: %d photos, %s; loaded in %.1f s.", *told)

    def _hand_over(self, said: dict[str, Any]) -> None:
        with self._lock:
            call = next((call for call in self._calls if call.number == said["answer"]), None)
            if call is not None:
                self._calls.remove(call)
        if call is None:
            return
        if "value" in said:
            _settle(call.future, said["value"])
        else:
            kind = getattr(errors, str(said["error"]), errors.RasrError)
            proper = isinstance(kind, type) and issubclass(kind, errors.RasrError) and kind is not errors.ExtraMissing
            _settle(call.future, Refused.of((kind if proper else errors.RasrError)(said["message"])))

    def _bury(self, hung: str) -> None:
        """The worker is dead: its job failed, its questions are answered so, the rest waits for the next one."""
        worker, self._worker, self.ready = self._worker, None, False
        self.why = "The worker is starting again."
        self._metrics.worker_ready.set(0)
        if worker is None:
            return
        ended = worker.end()
        how = hung or ended
        quick = time.monotonic() - worker.begun < PATIENCE[1]
        self.deaths = self.deaths + 1 if quick else 1
        if self._stop_at is None:
            self._metrics.worker_restarts.inc()
            _log.error("The worker %s; another one is started.", how)
        self._turn_down(Refused(503, "worker", f"The worker {how} meanwhile. Try again.", retry_after=5), sent=True)
        if self.running is not None:
            self.running.lose(how)
            self.running = None

    def _end(self) -> None:
        worker, self._worker, self.ready = self._worker, None, False
        if self.running is not None:
            self.running.put_back()
            self.running = None
        if worker is not None:
            worker.kill()
            worker.end()
        self._turn_down(Refused(503, "stopping", "The service is stopping. Try again later.", retry_after=10))
        self._metrics.worker_ready.set(0)

    def _turn_down(self, refusal: Refused, *, sent: bool = False) -> None:
        """Answer what was asked with a refusal: all of it, or what the worker had been sent."""
        with self._lock:
            asked = [call for call in self._calls if call.sent or not sent]
            for call in asked:
                self._calls.remove(call)
        for call in asked:
            _settle(call.future, refusal)

    def measure(self) -> None:
        """Bring the gauges of memory up to date."""
        self._metrics.memory.labels("web").set(resident())
        self._metrics.restorers.set(int(self.ready and self._restores))
        if self.pid is not None:
            self._metrics.memory.labels("worker").set(resident(self.pid))


def _settle(future: Future[dict[str, Any]], outcome: dict[str, Any] | Refused) -> None:
    """Answer, unless whoever asked is gone."""
    if future.set_running_or_notify_cancel():
        if isinstance(outcome, Refused):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
