"""Batches: pictures restored one after the other or side by side, recorded, taken up where they were stopped."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasr.cluster import ClusterOptions
from rasr.errors import OutputError, OutputExists, RasrError, UsageError
from rasr.files import remove_leftovers
from rasr.images import Limits
from rasr.restoration.journal import Journal, Record
from rasr.restoration.plan import Job, measure_jobs, of_shard
from rasr.restoration.restorer import Restorer
from rasr.restoration.result import Result
from rasr.restoration.settings import BatchOptions, SaveOptions, Settings
from rasr.restoration.work import Announce, Folders, do_job, draw_map, fault_of, os_fault
from rasr.restoration.work_key import work_key

if TYPE_CHECKING:
    from rasr.restoration.workers import Ended

REMEMBERED = 100
"""Lines that are noted together of files whose time alone has changed."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Outcome for one picture: a result, an error, or a record of what was made elsewhere or before."""

    job: Job
    result: Result | None = None
    """None for a picture that another process restored, or an earlier run."""
    error: RasrError | None = None
    read: Record | None = None
    """Reads the record of a result that another process or an earlier run made."""
    earlier: bool = False
    """True when the result was finished in an earlier run."""
    evidence: bytes = b""
    """Evidence of a result that another process made, as that packed it; empty without, or where nobody asked."""
    map_error: RasrError | None = None
    """Why the evidence map of a result could not be drawn."""

    @property
    def record(self) -> Mapping[str, Any] | None:
        """What the journal, or the process that made it, says of a result that is not here; None where none is."""
        if self.read is None:
            return None
        try:
            return self.read()
        except (OSError, ValueError):  # the journal was changed meanwhile
            return {}

    def to_json(self) -> dict[str, Any]:
        """The object of ``--json``; a failed picture has no output, and ``error`` says why."""
        if self.result is not None:
            return self.result.to_json()
        record = self.record or {}
        kept = {name: record.get(name) for name in ("references", "settings", "timings", "notes")}
        lists, tables = ("references", "notes"), ("settings", "timings")
        facts: dict[str, Any] = {name: kept[name] if isinstance(kept[name], list) else [] for name in lists}
        facts |= {name: kept[name] if isinstance(kept[name], dict) else {} for name in tables}
        if self.earlier:
            facts["notes"] = [*facts["notes"], "Finished in an earlier run."]
        return {
            "input": str(self.job.input),
            "output": None if self.error else str(self.job.output),
            **facts,
            "error": str(self.error) if self.error else None,
        }


class Run:
    """A batch being run: first a look at what is finished, then the work on what is left.

    With a ``journal`` everything is recorded there, and pictures finished before, from the same content with the same
    settings, are not restored again unless ``save`` says to overwrite.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        restorer: Restorer,
        settings: Settings,
        save: SaveOptions | None = None,
        options: BatchOptions | None = None,
        *,
        journal: Journal | None = None,
        limits: Limits | None = None,
        cluster: ClusterOptions | None = None,
    ) -> None:
        self.begun = time.monotonic()
        self.options = options or BatchOptions()
        self.cluster = None if cluster is None or cluster.cluster is None else cluster
        """Where the work is spread to, None for this machine."""
        if self.cluster is not None and self.options.workers > 1:
            raise UsageError("--workers are processes of this machine: on a cluster leave them out.")
        if self.cluster is not None:
            from rasr.restoration.spread import check_gallery

            check_gallery(self.cluster, restorer)
        self.jobs = of_shard(jobs, self.options.shard)
        self.left = self.jobs
        """Jobs to be worked on: after :meth:`look` without those that are finished."""
        self._restorer, self._settings, self._save = restorer, settings, save or SaveOptions()
        self._journal = journal
        workers = self.options.workers
        self._limits = Limits.from_memory(workers) if limits is None and workers > 1 else limits
        self._settings_hash = ""

    def look(self) -> list[Outcome]:
        """Tell finished pictures, and results that stand in the way, from those that are left. Nothing is decoded.

        Raises UsageError for a journal that cannot be read, and GalleryNotFound.
        """
        if self._journal is None:
            return []
        self._settings_hash = work_key(self._restorer, self._settings, self._save)
        outcomes, left = [], []
        try:
            if not self._save.overwrite:
                self._journal.knows(self._journal.path)  # reads it
        except OSError as error:
            raise UsageError(f"{self._journal.path}: cannot be read ({os_fault(error)}).") from error
        for job in self.jobs:
            outcome = self._known(job, self._journal)
            if outcome is None:
                left.append(job)
            else:
                outcomes.append(outcome)
            self._note(REMEMBERED)
        self._note(1)
        self.left = left
        return outcomes

    def _known(self, job: Job, journal: Journal) -> Outcome | None:
        """The outcome of this very work, done before, or refused since something else lies in its place."""
        output = job.output
        if job.error is not None or self._save.overwrite:
            return None
        try:
            if not journal.knows(output):
                return None
            verify = self.options.verify
            read = journal.finished(output, job.input, self._settings_hash, verify=verify)
            if read is not None:
                return Outcome(job, read=read, earlier=True)
            if not os.path.lexists(output):
                return None
            unchanged = journal.is_unchanged(output)
        except OSError:
            return None  # the work will meet it, too, and tell it
        why = "was made from another input or with other settings" if unchanged else "was changed after it was made"
        told = f"{output}: exists already and {why}. Use --overwrite to replace it, or another name."
        return Outcome(job, error=OutputExists(told))

    def _note(self, least: int) -> None:
        if self._journal is not None:
            with suppress(OutputError):  # the next run reads those files again
                self._journal.remember(least=least)

    def measure(self) -> None:
        """Read the headers of the pictures that are left."""
        self.left = measure_jobs(self.left, self._limits)

    def go(
        self,
        announce: Announce | None = None,
        *,
        maps: Mapping[Path, Path] | None = None,
        keep_evidence: bool = False,
    ) -> Iterator[Outcome]:
        """Restore and save what is left, giving what became of each, with several workers as they are done.

        ``maps`` are places for evidence maps, by result; ``keep_evidence`` has other processes send the evidence, too.
        Raises only what would fail every picture: GalleryError, WeightsError and UsageError.
        """
        self.measure()
        for folder in {job.output.parent for job in self.left}:
            remove_leftovers(folder)
        folders, workers = Folders(), min(self.options.workers, len(self.left))
        try:
            if workers > 1 or (self.cluster is not None and self.left):
                outcomes = self._elsewhere(workers, announce, maps or {}, folders, keep_evidence=keep_evidence)
            else:
                outcomes = (self._done(job, announce, maps or {}, folders) for job in self.left)
            for outcome in outcomes:
                if outcome.error is not None:
                    self._record_failure(outcome, folders)
                for error in (outcome.error, outcome.map_error):
                    if error is not None and len(self.jobs) > 1:  # its frames hold pictures
                        error.__traceback__ = error.__context__ = error.__cause__ = None
                yield outcome
        finally:
            folders.sweep()

    def _done(self, job: Job, announce: Announce | None, maps: Mapping[Path, Path], folders: Folders) -> Outcome:
        """Work on one picture in this process."""
        restorer, settings, save = self._restorer, self._settings, self._save
        placing = None if self._journal is None else self._placing(job)
        if job.error is not None:
            return Outcome(job, error=fault_of(job.error, job))
        try:
            folders.make(job.output)
            result = do_job(
                job, restorer, settings, save, limits=self._limits, announce=announce, placing=placing
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - what is no picture's own fault is raised again
            return Outcome(job, error=fault_of(error, job))
        return Outcome(job, result, map_error=draw_map(result, maps.get(job.output), overwrite=save.overwrite))

    def _placing(self, job: Job) -> Any:
        def placing(result: Result, facts: dict[str, Any]) -> None:
            if unrecorded := self._record(job, result.to_json() | facts):
                result.notes += (unrecorded,)

        return placing

    def _elsewhere(
        self,
        workers: int,
        announce: Announce | None,
        maps: Mapping[Path, Path],
        folders: Folders,
        *,
        keep_evidence: bool,
    ) -> Iterator[Outcome]:
        """Work in other processes: on a cluster where there is one, else in workers on this machine."""
        from rasr.restoration.workers import Workers, setup_of

        setup = setup_of(self._restorer, self._settings, self._save, self._limits, keep_evidence=keep_evidence)
        record = None if self._journal is None else self._record
        if self.cluster is None:
            with Workers(workers, setup, record=record) as pool:
                yield from map(_outcome, pool.work(self.left, announce, maps, folders))
            return
        from rasr.restoration.spread import Spread

        setup["key"] = work_key(self._restorer, self._settings, self._save)
        spread = Spread(self.cluster, setup, self._settings, self._save, record=record)
        with closing(spread.work(self.left, announce, maps, folders)) as work:
            yield from map(_outcome, work)

    def _record(self, job: Job, facts: Mapping[str, Any]) -> str:
        """Record a result that is about to be placed; returns what its notes say where that fails."""
        if self._journal is None:
            return ""
        try:
            self._journal.record({**facts, "settings_hash": self._settings_hash}, job.output)
        except OutputError as error:
            return f"Not recorded, so that the next run will not know it as finished: {error}"
        return ""

    def _record_failure(self, outcome: Outcome, folders: Folders) -> None:
        if self._journal is None:
            return
        with suppress(OutputError):
            folders.make(self._journal.path)
            self._journal.record(outcome.to_json() | {"input_hash": None, "settings_hash": self._settings_hash})


def run_batch(
    jobs: Sequence[Job],
    restorer: Restorer,
    settings: Settings,
    save: SaveOptions | None = None,
    options: BatchOptions | None = None,
    *,
    journal_folder: Path | None = None,
    limits: Limits | None = None,
    cluster: ClusterOptions | None = None,
    announce: Announce | None = None,
) -> Iterator[Outcome]:
    """Restore and save each job's picture, giving what became of it: in the jobs' order, or as several processes go on.

    ``announce(job, target)`` is called with the measured job and the result's (width, height) when the work on a
    picture starts; what it returns is called as ``progress`` of a Restorer is, or is None. With ``journal_folder``
    everything is recorded there; see :class:`Run`. Raises only what would fail every picture: GalleryError,
    WeightsError, ClusterError and UsageError.
    """
    shard = None if options is None else options.shard
    journal = None if journal_folder is None else Journal(journal_folder, shard)
    run = Run(jobs, restorer, settings, save, options, journal=journal, limits=limits, cluster=cluster)
    finished = {outcome.job.output: outcome for outcome in run.look()}
    if run.options.workers > 1 or run.cluster is not None:
        yield from finished.values()
        finished.clear()
    worked = run.go(announce)
    for job in run.jobs if finished else ():
        yield finished.pop(job.output) if job.output in finished else next(worked)
    yield from worked


def _outcome(ended: "Ended") -> Outcome:
    """What another process made of a picture."""
    return Outcome(
        ended.job,
        error=ended.error,
        read=None if ended.facts is None else ended.read,
        evidence=ended.evidence,
        map_error=ended.map_error,
    )
