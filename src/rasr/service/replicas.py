"""Replicas: the dispatcher that hands jobs to the restorers of a cluster, several at once, and writes what they give.

Galleries and reports are the affair of one worker here, beside them: it alone writes, where the files are.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rasr.errors import RasrError, shown
from rasr.files import sync_folder
from rasr.ray_client import reason
from rasr.service.jobs import Job, Jobs
from rasr.service.refusal import Refused
from rasr.service.running import Parts, Progress, Running
from rasr.service.supervisor import Supervisor
from rasr.service.worker import EVIDENCE, MAPS, PLACES, VIEW

LOOK = 1.0
"""Seconds between two looks at which replicas there are."""
SILENCE = 60.0
"""Seconds without a word from a replica, which says something every five, after which it counts as lost."""
REST = 2.0
"""Seconds before a job that no replica could begin is handed out again."""
_log = logging.getLogger("rasr.service")


class Stream(Protocol):
    """What a replica tells of a job, as :meth:`rasr.service.replica.Restorer.restore` says."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Wait for what is told next; raises where the replica is lost."""

    def cancel(self) -> None:
        """Tell the replica to stop."""


class Cluster(Protocol):
    """The replicas, as many as there are."""

    most: int
    """How many there may be."""

    def restore(self, said: Mapping[str, Any], files: Mapping[str, bytes], removed: int) -> Stream:
        """Hand a job to whichever is free, or is going to be."""

    def look(self) -> tuple[int, str]:
        """How many there are, and why no job could be restored; empty when one could."""


class _Unsent(Exception):
    """A job cannot be handed to anybody: its gallery or its picture is gone."""


@dataclass(eq=False)
class _Lane:
    """A job that was handed out, and whoever listens to what becomes of it."""

    job: Job
    stream: Stream | None = None
    running: Running | None = None
    """None until a replica has begun: meanwhile the job waits."""
    heard: float = field(default_factory=time.monotonic)
    gone: bool = False
    """Nobody wants to hear of it any more."""

    def cancel(self) -> None:
        """Let go of it; what is already on its way is not heard."""
        stream = self.stream
        if stream is not None:
            with suppress(Exception):  # it may be lost
                stream.cancel()


class Replicas(threading.Thread):
    """Hands jobs to the replicas of a cluster; one that dies costs the job it had."""

    def __init__(self, parts: Parts, *, cluster: Cluster) -> None:
        super().__init__(name="rasr-replicas", daemon=True)
        self._parts, self._cluster = parts, cluster
        self._config, self._jobs, self._metrics, self._prepare = parts.config, parts.jobs, parts.metrics, parts.prepare
        self._desk = Supervisor(replace(parts, jobs=Jobs(Path(":memory:"))), restores=False)
        self.galleries = self._desk.galleries
        self._heard = queue.SimpleQueue[tuple[_Lane | None, Any]]()
        self._lanes: dict[str, _Lane] = {}
        self._stop_at: float | None = None
        self._rest_until = 0.0
        self._running, self._fault = 0, "The restorers are starting."
        self._removed: dict[str, int] = {}

    # What other threads ask for.

    @property
    def ready(self) -> bool:
        """Whether a job could be restored now."""
        return self._desk.ready and not self._fault

    @property
    def why(self) -> str:
        """Why it could not."""
        return self._fault if self._desk.ready else self._desk.why

    @property
    def lanes(self) -> int:
        """Jobs that are restored at the same time, at least 1."""
        return max(1, self._running)

    def wake(self) -> None:
        """Look at the queue."""
        self._heard.put((None, None))

    def ask(self, do: str, **said: Any) -> Future[dict[str, Any]]:
        """Ask the worker beside the replicas; the future may raise Refused."""
        if do == "remove":
            self._removed[said["gallery"]] = self._removed.get(said["gallery"], 0) + 1
        return self._desk.ask(do, **said)

    def cancel(self, job: str) -> None:
        """Stop a job between two tiles if it runs, and let go of it if it waits."""
        self._heard.put((None, job))

    def progress_of(self, job: str) -> Progress:
        """How far a running job is."""
        lane = self._lanes.get(job)
        return Progress() if lane is None or lane.running is None else lane.running.progress

    def stop(self, seconds: float) -> None:
        """End: running jobs have some seconds to be done, and are queued again afterwards."""
        self._stop_at = time.monotonic() + seconds
        self.wake()
        self.join()
        self._desk.stop(0)

    def measure(self) -> None:
        """Bring the gauges up to date."""
        self._desk.measure()
        self._metrics.restorers.set(self._running)
        self._metrics.worker_ready.set(self.ready)

    # The threads.

    def run(self) -> None:
        """Hand out what waits until told to stop."""
        self._desk.start()
        threading.Thread(target=self._looking, name="rasr-look", daemon=True).start()
        try:
            while not self._over():
                self._offer()
                self._hear()
                self._bury_silent()
        finally:
            for lane in self._lanes.values():
                lane.gone = True
                lane.cancel()
                if lane.running is not None:
                    lane.running.put_back()
            self._lanes.clear()

    def _over(self) -> bool:
        """Whether it is time to end: nothing runs any more, or the grace is used up."""
        if self._stop_at is None:
            return False
        return time.monotonic() >= self._stop_at or all(lane.running is None for lane in self._lanes.values())

    def _looking(self) -> None:
        """See which replicas there are, as long as the dispatcher lives."""
        while self.is_alive() and self._stop_at is None:
            try:
                self._running, self._fault = self._cluster.look()
            except Exception as error:  # noqa: BLE001 - Ray has a kind for each way to be out of reach
                self._running, self._fault = 0, f"The cluster is out of reach: {reason(error)}."
            time.sleep(LOOK)

    def _offer(self) -> None:
        """Hand out the jobs that have waited longest, as many as there may be replicas."""
        if self._stop_at is not None or not self._desk.ready or time.monotonic() < self._rest_until:
            return
        for job in self._jobs.next(self._cluster.most):
            if len(self._lanes) >= self._cluster.most:
                return
            if job.id not in self._lanes:
                lane = self._lanes[job.id] = _Lane(job)
                threading.Thread(target=self._follow, args=(lane,), name="rasr-lane", daemon=True).start()

    def _follow(self, lane: _Lane) -> None:
        """Hand a job to a replica, and pass on what it says; the files of its result are written at once."""
        received: dict[str, Path] = {}
        try:
            said = self._prepare(lane.job)
            folder = Path(said["folder"])
            names = [said["input"], *said["references"]]
            files = {Path(one).relative_to(folder).as_posix(): Path(one).read_bytes() for one in names}
        except (RasrError, Refused, OSError) as error:
            self._heard.put((lane, _Unsent(shown(error))))
            return
        wanted = {Path(said["output"]).relative_to(folder).as_posix(), VIEW, EVIDENCE, PLACES, MAPS}
        removed = self._removed.get(said["gallery"], 0)
        try:
            lane.stream = self._cluster.restore({**said, "name": lane.job.name}, files, removed)
            for told in lane.stream:
                if lane.gone:
                    lane.cancel()
                    return
                if "file" in told:
                    if told["file"] in wanted:
                        self._receive(told, received)
                    told = {"alive": True}  # noqa: PLW2901  (its content is not kept for the dispatcher)
                if "outcome" in told:
                    for name, path in received.items():
                        path.replace(folder / name)
                    received.clear()
                    sync_folder(folder / "result")
                self._heard.put((lane, told))
            self._heard.put((lane, ConnectionError("it broke off")))
        except BaseException as error:  # noqa: BLE001 - whatever it is (one that was cancelled, too), it is told
            self._heard.put((lane, error))
        finally:
            for path in received.values():
                path.unlink(missing_ok=True)

    def _receive(self, told: Mapping[str, Any], received: dict[str, Path]) -> None:
        path = received.get(told["file"])
        if path is None:
            path = received[told["file"]] = self._config.data / "tmp" / secrets.token_hex(8)
        with path.open("ab") as file:
            file.write(told["content"])

    # The dispatcher's own thread: what is heard.

    def _hear(self) -> None:
        """Wait, not long, for what the lanes and other threads say, and do all of it."""
        left = LOOK if self._stop_at is None else max(0.0, min(LOOK, self._stop_at - time.monotonic()))
        with suppress(queue.Empty):
            lane, told = self._heard.get(timeout=left)
            while True:
                if lane is None:
                    self._withdraw(told)
                elif not lane.gone:
                    lane.heard = time.monotonic()
                    self._take(lane, told)
                lane, told = self._heard.get_nowait()

    def _withdraw(self, job: str | None) -> None:
        lane = None if job is None else self._lanes.get(job)
        if lane is not None:
            lane.cancel()
            if lane.running is None:
                self._close(lane)

    def _take(self, lane: _Lane, told: Any) -> None:
        """Take what a lane says."""
        running = lane.running
        if isinstance(told, BaseException):
            self._fail(lane, told)
        elif "begun" in told:
            lane.running = None if self._stop_at is not None else self._begin(lane)
            if lane.running is None:  # cancelled, or to wait for the next start
                lane.cancel()
                self._close(lane)
        elif running is None:
            return
        elif "progress" in told:
            for step in told["progress"]:
                running.note(step)
        elif "ended" in told:
            self._metrics.worker_restarts.inc(told.get("restarts", 0))
            running.finish(told)
            self._close(lane)

    def _begin(self, lane: _Lane) -> Running | None:
        """The lane's job, running from now on; None when it does not wait any more."""
        job = self._jobs.take(self._config.hang, lane.job.id)
        if job is None:
            return None
        return Running(job, self._parts)

    def _fail(self, lane: _Lane, error: BaseException) -> None:
        """A lane broke: whoever restored is lost, or was told to stop, or the job could not be handed out."""
        running = lane.running
        if running is not None:
            wanted = self._jobs.get(lane.job.id)
            if wanted is None or not wanted.stop:
                self._metrics.worker_restarts.inc()
                _log.error("A restorer was lost: %s.", reason(error))
            running.lose(f"was lost ({shown(reason(error))})")
        elif isinstance(error, _Unsent):
            if (running := self._begin(lane)) is not None:
                running.finish({"error": str(error)})
        else:
            self._rest_until = time.monotonic() + REST
            _log.warning("A job could not be handed out, and waits: %s.", reason(error))
        self._close(lane)

    def _bury_silent(self) -> None:
        """Take those for lost that have said nothing for long."""
        for lane in list(self._lanes.values()):
            if lane.running is not None and time.monotonic() - lane.heard > SILENCE:
                threading.Thread(target=lane.cancel, daemon=True).start()
                self._fail(lane, TimeoutError(f"no sign of life for {SILENCE:g} seconds"))

    def _close(self, lane: _Lane) -> None:
        lane.gone = True
        self._lanes.pop(lane.job.id, None)
