"""Batches: one picture after the other, recorded, taken up where they were stopped, never stopped by one bad file."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rasr.errors import (
    GalleryError,
    OutOfMemory,
    OutputError,
    OutputExists,
    PictureError,
    RasrError,
    UsageError,
    WeightsError,
)
from rasr.files import hash_json, remove_leftovers, xxh3_file
from rasr.images import Limits, check_output
from rasr.progress import Progress
from rasr.restoration.journal import JOURNAL, Journal
from rasr.restoration.plan import Job, identity_of, measure_jobs
from rasr.restoration.restorer import Restorer
from rasr.restoration.result import Result
from rasr.restoration.settings import SaveOptions, Settings

FATAL = (GalleryError, WeightsError, UsageError)
"""Errors that every other picture would meet as well."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Outcome for one picture: a result, an error, or the journal's record of it when it was finished before."""

    job: Job
    result: Result | None = None
    error: RasrError | None = None
    record: Mapping[str, Any] | None = None
    """What the journal says of a result that was finished in an earlier run."""

    def to_json(self) -> dict[str, Any]:
        """The object of ``--json``; a failed picture has no output, and ``error`` says why."""
        if self.result is not None:
            return self.result.to_json()
        record = self.record or {}
        kept = {name: record.get(name) for name in ("references", "settings", "timings", "notes")}
        lists, tables = ("references", "notes"), ("settings", "timings")
        facts: dict[str, Any] = {name: kept[name] if isinstance(kept[name], list) else [] for name in lists}
        facts |= {name: kept[name] if isinstance(kept[name], dict) else {} for name in tables}
        if self.record is not None:
            facts["notes"] = [*facts["notes"], "Finished in an earlier run."]
        return {
            "input": str(self.job.input),
            "output": None if self.error else str(self.job.output),
            **facts,
            "error": str(self.error) if self.error else None,
        }


def check_job(job: Job, settings: Settings, save: SaveOptions) -> None:
    """Find out whether a measured job's result can be made and saved; no folder is left behind.

    Raises the job's own error, OutputError or OutputExists.
    """
    with _folder_for(job.output, keep=False):
        _check(job, settings, save)


def _check(job: Job, settings: Settings, save: SaveOptions) -> tuple[int, int]:
    """(width, height) of the result. Raises as :func:`check_job`."""
    if job.error is not None or job.size is None:
        raise job.error or ValueError("the job was not measured")
    target = settings.size.of(*job.size)
    if save.quality == "lossless" and (save.format or job.output.suffix).lower() in {"jpg", ".jpg", ".jpeg"}:
        raise OutputError(f"{job.output}: a JPEG is never lossless. Use --quality 1 to 100, or --format webp or png.")
    check_output(job.output, *target, overwrite=save.overwrite, source=job.input, format=save.format, bits=save.bits)
    return target


def run_batch(
    jobs: Sequence[Job],
    restorer: Restorer,
    settings: Settings,
    save: SaveOptions | None = None,
    *,
    journal_folder: Path | None = None,
    limits: Limits | None = None,
    announce: Callable[[Job, tuple[int, int]], None] | None = None,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Restore and save each job's picture, giving what became of it.

    ``announce(job, target)`` is called with the measured job and the result's (width, height) when the work on a
    picture starts, and ``progress`` as in calling a Restorer. With ``journal_folder`` everything is recorded there, and
    pictures finished before, from the same content with the same settings, are not restored again unless ``save``
    says to overwrite. Raises only what would fail every picture: GalleryError, WeightsError and UsageError.
    """
    save = save or SaveOptions()
    jobs = measure_jobs(jobs, limits)
    for folder in {job.output.parent for job in jobs}:
        remove_leftovers(folder)
    journal = None if journal_folder is None else _open(journal_folder)
    settings_hash = "" if journal is None else hash_json(_determining(restorer, settings, save))
    for job in jobs:
        hashes: dict[str, str | None] = {"input_hash": None, "settings_hash": settings_hash}
        work = _Work(job, restorer, settings, save, journal, hashes, limits, announce, progress)
        try:
            outcome = work.do()
        except FATAL:
            raise
        except RasrError as error:
            outcome = Outcome(job, error=_named(error, job.input))
        except OSError as error:
            outcome = Outcome(job, error=_named(PictureError(f"{_os_fault(error)}."), job.input))
        except MemoryError:
            outcome = Outcome(job, error=OutOfMemory(f"{job.input}: memory ran out."))
        if outcome.error is not None and journal is not None:
            with suppress(OutputError), _folder_for(journal.path):
                journal.record(outcome.to_json() | hashes, None)
        yield outcome


@dataclass(frozen=True, slots=True)
class _Work:
    """The work on one picture of a batch."""

    job: Job
    restorer: Restorer
    settings: Settings
    save: SaveOptions
    journal: Journal | None
    hashes: dict[str, str | None]
    limits: Limits | None
    announce: Callable[[Job, tuple[int, int]], None] | None
    progress: Progress | None

    def do(self) -> Outcome:
        """Restore and save the picture, or find that it is finished. Raises RasrError and OSError."""
        job = self.job
        if job.error is not None:
            raise job.error
        before = job.input.stat()
        finished = None if self.journal is None else self._finished(self.journal)
        if finished is not None:
            return Outcome(job, record=finished)
        with _folder_for(job.output):
            target = _check(job, self.settings, self.save)
            if self.announce is not None:
                self.announce(job, target)
            result = self.restorer(job.input, self.settings, limits=self.limits, progress=self.progress)
            after = job.input.stat()
            if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
                raise PictureError(f"{job.input}: changed while it was restored. Run the same command again.")
            for reference in result.references:
                if reference.accepted and identity_of(job.output) in {identity_of(reference.path)} - {None}:
                    raise OutputError(f"{job.output}: this is {reference.path}, which guided the result.")
            result.save(job.output, self.save, placing=lambda content: self._record(result, content))
        return Outcome(job, result)

    def _finished(self, journal: Journal) -> Mapping[str, Any] | None:
        """The record of this very work, done before. Raises OutputExists when something else lies in its place."""
        output, overwrite = self.job.output, self.save.overwrite
        self.hashes["input_hash"] = input_hash = xxh3_file(self.job.input)
        if overwrite:
            return None
        finished = journal.finished(output, input_hash, str(self.hashes["settings_hash"]))
        if finished is None and journal.knows(output) and os.path.lexists(output):
            unchanged = journal.is_unchanged(output)
            why = "was made from another input or with other settings" if unchanged else "was changed after it was made"
            raise OutputExists(f"{output}: exists already and {why}. Use --overwrite to replace it, or another name.")
        return finished

    def _record(self, result: Result, content: bytes) -> None:
        """Record a result whose bytes are about to be placed; where that fails, its notes say so."""
        if self.journal is None:
            return
        try:
            with _folder_for(self.journal.path):
                self.journal.record(result.to_json() | self.hashes, self.job.output, content)
        except OutputError as error:
            result.notes += (f"Not recorded, so that the next run will not know it as finished: {error}",)


def _open(folder: Path) -> Journal:
    try:
        return Journal(folder)
    except OSError as error:
        raise UsageError(f"{folder / JOURNAL}: cannot be read ({_os_fault(error)}).") from error


def _os_fault(error: OSError) -> str:
    named = f"{error.filename}: " if error.filename else ""
    return f"{named}{error.strerror or error}"


def _named(error: RasrError, picture: Path) -> RasrError:
    """The error with the name of the picture whose work it ended, when it names another file only."""
    if picture.name not in str(error):
        error.args = (f"{picture}: {error}", *error.args[1:])
    return error


def _determining(restorer: Restorer, settings: Settings, save: SaveOptions) -> dict[str, Any]:
    """Collect what makes two runs interchangeable. References picked by hand count by their content."""
    info, cleaner = restorer.generator.info, restorer.generator.cleaner
    gallery = restorer.gallery
    picked = settings.reference
    facts = settings.to_json()
    if gallery is None and not isinstance(picked, tuple):
        del facts["candidates"]  # nothing is looked at; and journals from before there was the option stay good
    if isinstance(picked, tuple):
        with suppress(OSError):
            facts["reference"] = [xxh3_file(path) for path in picked]
    return facts | {
        "preset": restorer.preset,
        "weights": _contents(info.weights),
        "cleaner": None if cleaner is None else _contents(cleaner.info.weights),
        "gallery": None if gallery is None else gallery.address,
        "save": asdict(save) | {"overwrite": None},
    }


def _contents(weights: str) -> str:
    """Name weights by what is in their files: as good wherever they lie, and others once they are trained again."""

    def content(part: str) -> str:
        path = Path(part)
        return f"{path.name} {xxh3_file(path)}" if path.is_absolute() and path.is_file() else part

    return " + ".join(map(content, weights.split(" + ")))


@contextmanager
def _folder_for(file: Path, *, keep: bool = True) -> Iterator[None]:
    """Make the folders ``file`` needs; those that are still empty go again when the work fails or ``keep`` is false."""
    missing: list[Path] = []
    try:
        try:
            missing += [folder for folder in file.parents if not folder.exists()]
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{file.parent}: the folder cannot be made ({error.strerror}).") from error
        yield
    except BaseException:
        keep = False
        raise
    finally:
        for folder in () if keep else missing:
            with suppress(OSError):
                folder.rmdir()
