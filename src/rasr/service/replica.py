"""Replica: on a machine of a cluster, a restorer that is sent a job's files and gives back what became of them.

It is a service without clients: the same supervisor over the same worker, and a queue in memory of what it was sent.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock

from rasr.errors import ClusterError
from rasr.service.config import ServiceConfig
from rasr.service.jobs import ENDED, Job, Jobs
from rasr.service.metrics import Metrics
from rasr.service.running import Parts, Progress
from rasr.service.supervisor import Supervisor
from rasr.service.worker import EVIDENCE, MAPS, PLACES, VIEW

ALIVE = 5.0
"""Seconds after which it says that it is there, whatever its worker does."""
PART = 8 << 20
"""Bytes of a file that are sent at a time."""
PREFIX = "rasr-restorer-"
"""Of the folders with the files of the jobs that are restored."""
DEATHS = 3
"""Workers that die one after the other, before they can begin, until the replica is given up."""


class Restorer:
    """One of a cluster's restorers; it writes nothing but its own files, and is ready once it is made."""

    def __init__(
        self, config: ServiceConfig, version: str, head: str, threads: int, processes: int, *, gpus: bool
    ) -> None:
        """``head`` is the name of the machine with the ingress; galleries are opened as jobs ask for them.

        ``processes`` restorers may share this machine and its memory.

        Raises ClusterError when this machine cannot restore as the service wants it.
        """
        if (here := importlib.metadata.version("rasr")) != version:
            raise ClusterError(
                f"The machine {platform.node()} has RASR {here}, where {version} was started. "
                "Install one version on all machines of the cluster."
            )
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if not gpus:  # Ray hides those of others, and from whoever has no share hides none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._where = "" if platform.node() == head else f" (on the machine {platform.node()})"
        self._folder, self._lock = _own_folder()
        self._following: dict[str, Callable[[Progress], None]] = {}
        self._removed: dict[str, int] = {}
        self._metrics, self._jobs = Metrics(), Jobs(Path(":memory:"))
        parts = Parts(
            replace(config, data=self._folder, galleries=()), self._jobs, self, self._metrics, {},
            lambda job: job.request, lambda job: Path(job.request["folder"]),
        )  # fmt: skip
        self._supervisor = Supervisor(parts, processes=processes)
        self._supervisor.start()
        while not self._supervisor.begun:
            if self._supervisor.deaths >= DEATHS:
                self.close()
                raise ClusterError(f"{DEATHS} workers in a row died before they could begin{self._where}.")
            time.sleep(0.05)
        if not self._supervisor.ready:
            self.close()
            raise ClusterError(f"{self._supervisor.why}{self._where}")

    def close(self) -> None:
        """End the worker, and remove what lies here."""
        self._supervisor.stop(0)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release()

    def __del__(self) -> None:
        with suppress(Exception):  # it was never made, or closed before
            self.close()

    def check_health(self) -> None:
        """Raise RuntimeError when nobody watches over the worker any more: Ray then starts another replica."""
        if not self._supervisor.is_alive():
            raise RuntimeError("the supervisor of the worker has ended")

    def publish(self, job: str) -> None:
        """Of the supervisor, in its thread: a job has changed."""
        if follow := self._following.get(job):
            follow(self._supervisor.progress_of(job))

    async def restore(
        self, said: Mapping[str, Any], files: Mapping[str, bytes], removed: int
    ) -> AsyncIterator[dict[str, Any]]:
        """Restore a job, and tell of it as it goes on; one that nobody listens to any more is stopped.

        ``files`` are its pictures, by their places below its folder; ``removed`` tells how often a gallery with its
        gallery's address was removed. What is told: "begun" with this machine's name, "progress" with all steps since,
        "alive" when there is nothing else to say, "file" with a part of a result's file, at last "ended".
        """
        yield {"begun": platform.node()}
        job = secrets.token_hex(8)  # a job that was stopped may come again before the worker has let go of it
        folder = self._folder / job
        told = asyncio.Queue[Progress]()
        loop = asyncio.get_running_loop()
        restarts = self._restarts()

        def follow(progress: Progress) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(told.put_nowait, progress)

        self._following[job] = follow
        try:
            await asyncio.to_thread(self._place, folder, files)
            await self._forget(said["gallery"], removed)
            request = exchanged(dict(said), said["folder"], str(folder))
            self._jobs.add(Job(job, said["name"], "", 1, request), 1000)
            self._supervisor.wake()
            while (ended := self._jobs.get(job)) is not None and ended.state not in ENDED:
                try:
                    steps = [await asyncio.wait_for(told.get(), ALIVE)]
                except TimeoutError:
                    yield {"alive": True}
                    continue
                while not told.empty():
                    steps.append(told.get_nowait())
                yield {"progress": [{"stage": one.stage, "done": one.done, "total": one.total} for one in steps]}
            if ended is None:
                return
            if ended.state == "done":
                for path in (Path(request["output"]), *(folder / name for name in (VIEW, EVIDENCE, PLACES, MAPS))):
                    parts = _parts(path)
                    while (part := await asyncio.to_thread(next, parts, None)) is not None:
                        yield {"file": path.relative_to(folder).as_posix(), "content": part}
            became = _became(ended, str(folder), said["folder"], self._where)
            yield {**became, "restarts": self._restarts() - restarts}
        finally:
            self._following.pop(job, None)
            if self._jobs.cancel(job) == "running":  # nobody listens any more; the worker stops between two tiles
                self._supervisor.cancel(job)
            await asyncio.to_thread(self._sweep, folder)

    async def _forget(self, gallery: str | None, removed: int) -> None:
        """Let the worker forget what it knows of a gallery that was removed and made again."""
        if gallery is not None and self._removed.get(gallery, 0) != removed:
            await asyncio.wrap_future(self._supervisor.ask("remove", gallery=gallery))
            self._removed[gallery] = removed

    @staticmethod
    def _place(folder: Path, files: Mapping[str, bytes]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "result").mkdir(parents=True)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _sweep(self, folder: Path) -> None:
        """Remove what is over, and what never began in ``folder``."""
        if self._jobs.get(folder.name) is None:
            shutil.rmtree(folder, ignore_errors=True)
        for job in self._jobs.outdated(time.time() + 1, 0):
            if self._jobs.remove(job):
                shutil.rmtree(self._folder / job, ignore_errors=True)

    def _restarts(self) -> int:
        return int(self._metrics.registry.get_sample_value("rasr_worker_restarts_total") or 0)


def exchanged(value: Any, one: str, other: str) -> Any:
    """A JSON value with another folder's name in place of one's, wherever it is told."""
    if isinstance(value, str):
        return value.replace(one, other)
    if isinstance(value, list):
        return [exchanged(item, one, other) for item in value]
    if isinstance(value, dict):
        return {name: exchanged(item, one, other) for name, item in value.items()}
    return value


def _became(job: Job, here: str, there: str, where: str) -> dict[str, Any]:
    """What the worker said at the end, with the places where the service has its files."""
    if job.state == "done":
        return {"ended": True, "outcome": exchanged(job.outcome, here, there)}
    if job.state == "cancelled":
        return {"ended": True, "cancelled": True}
    return {"ended": True, "error": f"{job.error}{where}"}


def _parts(path: Path) -> Iterator[bytes]:
    """A file in parts; at least one of a file that is there, none of one that is not."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        part = file.read(PART)
        yield part
        while part := file.read(PART):
            yield part


def _own_folder() -> tuple[Path, filelock.BaseFileLock]:
    """A folder of one's own, and its lock; those of replicas that were killed are removed."""
    root = Path(tempfile.gettempdir())
    for path in root.glob(f"{PREFIX}*.lock"):
        with suppress(OSError), filelock.FileLock(path, timeout=0):  # its owner is gone
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
    folder = root / f"{PREFIX}{secrets.token_hex(8)}"
    lock = filelock.FileLock(folder.with_suffix(".lock"))
    lock.acquire(timeout=5)
    folder.mkdir(mode=0o700)
    return folder, lock
