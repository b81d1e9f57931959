"""Workers of a batch: processes with a model each, handed one picture at a time, whose death costs little."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rasr.child import Child, Message
from rasr.device import choose_threads
from rasr.errors import OutputError, RasrError, UsageError, error_of
from rasr.files import remove_leftovers, xxh3_file
from rasr.images import Limits
from rasr.progress import Progress
from rasr.restoration.plan import Job
from rasr.restoration.restorer import Restorer
from rasr.restoration.result import Result
from rasr.restoration.settings import SaveOptions, Settings, TargetSize
from rasr.restoration.work import Announce, Folders, fault_of

TRIES = 2
"""Times that a picture is worked on whose worker dies."""
STARTS = 3
"""Workers that die one after the other before they can begin, until the batch is given up."""

Recording = Callable[[Job, Mapping[str, Any]], str]
"""Notes a result before it is placed; returns what to say of it where that fails."""


@dataclass(slots=True)
class Ended:
    """What became of a picture."""

    job: Job
    facts: Mapping[str, Any] | None = None
    """As ``Result.to_json``, of one that was restored."""
    error: RasrError | None = None
    evidence: bytes = b""
    map_error: RasrError | None = None

    def read(self) -> Mapping[str, Any]:
        """The facts, as a journal's record is read."""
        return self.facts or {}


@dataclass(slots=True)
class _Worker:
    child: Child
    ready: bool = False
    job: Job | None = None
    progress: Progress | None = None
    placed: Mapping[str, Any] = field(default_factory=dict)
    """What the journal was told of the running picture's result."""


def setup_of(
    restorer: Restorer, settings: Settings, save: SaveOptions, limits: Limits | None, *, keep_evidence: bool
) -> dict[str, Any]:
    """What a worker is told before its first picture, in JSON. Raises UsageError for what cannot be told."""
    made_of = {
        name: str(value) if isinstance(value, Path) else value for name, value in (restorer.made_of or {}).items()
    }
    if not made_of or not all(isinstance(value, str | int | float | None) for value in made_of.values()):
        raise UsageError("Several workers need a preset and options by name, not objects: use one worker.")
    gallery = restorer.gallery
    reference = settings.reference if isinstance(settings.reference, str) else [*map(str, settings.reference)]
    return {
        "restorer": made_of,
        "gallery": None if gallery is None else gallery.address,
        "settings": asdict(settings) | {"reference": reference},
        "save": asdict(save),
        "limits": None if limits is None else asdict(limits),
        "keep_evidence": keep_evidence,
    }


def read_setup(setup: Mapping[str, Any]) -> tuple[Restorer, Settings, SaveOptions, Limits | None]:
    """What :func:`setup_of` was made of, in another process. Raises what the restorer does for what is not there."""
    told = setup["settings"]
    settings = Settings(**told | {"size": TargetSize(**told["size"])})
    made_of = dict(setup["restorer"])
    restorer = Restorer(made_of.pop("preset"), setup["gallery"], **made_of)
    restorer.check(settings)
    limits = None if setup["limits"] is None else Limits(**setup["limits"])
    return restorer, settings, SaveOptions(**setup["save"]), limits


def packed_evidence(result: Result) -> bytes:
    """The evidence of a result as bytes; none without."""
    if result.evidence is None:
        return b""
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, maps=result.evidence.maps, places=result.evidence.places)
    return content.getvalue()


class Workers:
    """A number of worker processes, gone at the end of the block.

    ``record`` is called with a picture's facts before its result is placed: the parent alone writes the journal.
    """

    def __init__(self, count: int, setup: dict[str, Any], *, record: Recording | None) -> None:
        self._count = count
        self._setup = setup | {"workers": count, "record": record is not None}
        self._record = record
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.child.kill()
        for worker in self._workers:
            worker.child.end()

    def work(
        self, jobs: Sequence[Job], announce: Announce | None, maps: Mapping[Path, Path], folders: Folders
    ) -> Iterator[Ended]:
        """Work on measured jobs, and give what became of each as it is over. Raises GalleryError and its like."""
        waiting = deque((job, TRIES) for job in jobs)
        tries: dict[Path, int] = {}
        self._announce, self._maps, self._folders = announce, maps, folders
        while waiting or any(worker.job for worker in self._workers):
            while len(self._workers) < min(self._count, len(waiting) + sum(bool(one.job) for one in self._workers)):
                self._workers.append(self._start())
            for worker in [one for one in self._workers if one.ready and one.job is None]:
                while waiting and worker.job is None:
                    job, left = waiting.popleft()
                    error = self._hand(worker, job)
                    if error is not None:
                        yield Ended(job, error=error)
                    else:
                        tries[job.output] = left - 1
            heard = {worker.child.pipe.fileno(): worker for worker in self._workers}
            for worker in [heard[one] for one in wait(list(heard)) if isinstance(one, int)] if heard else ():
                running = worker.job
                try:
                    ended = self._hear(worker, worker.child.pipe.receive())
                except (EOFError, OSError):
                    ended = self._bury(worker, tries.get(running.output, 0) if running else 0)
                    if running is not None and ended is None:
                        waiting.appendleft((running, tries[running.output]))
                if ended is not None:
                    tries.pop(ended.job.output, None)
                    yield ended

    def _start(self) -> _Worker:
        threads = max(1, choose_threads().count // self._count)
        worker = _Worker(Child("rasr.restoration.worker", threads=threads))
        with suppress(OSError):  # dead already: whoever waits for it finds out
            worker.child.pipe.send(self._setup)
        return worker

    def _hand(self, worker: _Worker, job: Job) -> RasrError | None:
        """Hand a picture to a worker; returns why that is not possible."""
        if job.error is not None or job.size is None:
            return fault_of(job.error or ValueError("the job was not measured"), job)
        try:
            self._folders.make(job.output)
        except OutputError as error:
            return fault_of(error, job)
        target = TargetSize(**self._setup["settings"]["size"]).of(*job.size)
        worker.job, worker.placed = job, {}
        worker.progress = None if self._announce is None else self._announce(job, target)
        place = self._maps.get(job.output)
        told = {"input": str(job.input), "output": str(job.output), "size": job.size}
        with suppress(OSError):  # it has died: found out when it is listened to
            worker.child.pipe.send({**told, "map": None if place is None else str(place)})
        return None

    def _hear(self, worker: _Worker, message: Message) -> Ended | None:
        """Take a worker's message; what became of its picture, once it says so."""
        said, content = message
        if "ready" in said:
            worker.ready, self._failed_starts = True, 0
            return None
        job = worker.job
        if "fatal" in said:
            raise error_of(said["fatal"])
        if job is None:
            raise EOFError("it speaks out of turn")
        if "stage" in said:
            if worker.progress is not None:
                worker.progress(said["stage"], said["done"], said["total"])
        elif "place" in said:
            unrecorded = "" if self._record is None else self._record(job, said["place"])
            worker.placed = said["place"]
            worker.child.pipe.send({"unrecorded": unrecorded})
        elif "done" in said or "error" in said:
            worker.job = worker.progress = None
            if "error" in said:
                return Ended(job, error=error_of(said["error"]))
            map_error = None if said["map_error"] is None else error_of(said["map_error"])
            return Ended(job, said["done"], None, content, map_error)
        return None

    def _bury(self, worker: _Worker, tries: int) -> Ended | None:
        """Take a dead worker away; what became of its picture, unless that is to be tried again."""
        how, job = worker.child.end(), worker.job
        self._workers.remove(worker)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise RasrError(f"{STARTS} worker processes in a row {how} before they could begin. Try --workers 1.")
        if job is None:
            return None
        remove_leftovers(job.output.parent)
        if _is_placed(job.output, worker.placed):
            return Ended(job, worker.placed)
        if tries > 0:
            return None
        hint = "Memory may have run out: try fewer --workers, or a smaller --tile." if "signal 9" in how else ""
        told = f"{job.input}: the process that restored it {how}, {TRIES} times. {hint}"
        return Ended(job, error=RasrError(told.rstrip()))


def _is_placed(output: Path, facts: Mapping[str, Any]) -> bool:
    """True when a result lies in its place as the journal was told."""
    try:
        return bool(facts) and output.is_file() and xxh3_file(output) == facts.get("output_hash")
    except OSError:
        return False
