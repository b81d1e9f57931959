"""Many pictures, one after the other: resumable, and never stopped by one bad file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rasr.errors import GalleryError, OutputError, RasrError, UsageError, WeightsError
from rasr.images import Limits, check_output, read_header
from rasr.restoration.journal import Journal, hash_file, hash_settings
from rasr.restoration.plan import Job
from rasr.restoration.restorer import Restorer
from rasr.restoration.result import Result
from rasr.restoration.settings import Settings

__all__ = ["Outcome", "SaveOptions", "run_batch"]

FATAL = (GalleryError, WeightsError, UsageError)
"""Errors that every other picture would meet as well."""


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """How results are written; see :func:`rasr.images.write_picture`."""

    format: str | None = None
    quality: int | Literal["lossless"] | None = None
    bits: int | None = None
    metadata: Literal["keep", "strip"] = "keep"
    overwrite: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of one picture: a result, an error, or neither when it was finished before."""

    job: Job
    result: Result | None = None
    error: RasrError | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of ``--json``; a failed picture has no output, and ``error`` says why."""
        if self.result is not None:
            return self.result.to_json()
        return {
            "input": str(self.job.input),
            "output": None if self.error else str(self.job.output),
            "references": [],
            "settings": {},
            "timings": {},
            "notes": [] if self.error else ["Finished in an earlier run."],
            "error": str(self.error) if self.error else None,
        }


def run_batch(
    jobs: Sequence[Job],
    restorer: Restorer,
    settings: Settings,
    save: SaveOptions | None = None,
    *,
    journal_folder: Path | None = None,
    resume: bool = False,
    limits: Limits | None = None,
    announce: Callable[[Job, tuple[int, int], tuple[int, int]], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Outcome]:
    """Restore and save each job's picture, giving what became of it.

    ``announce(job, size, target)`` is called with (width, height) before and after, when the work on a picture starts,
    and ``progress`` with 0..1 during it. With ``journal_folder`` everything is recorded there, and ``resume`` skips
    pictures that were finished from the same input with the same settings. Raises only what would fail every picture:
    GalleryError, WeightsError and UsageError.
    """
    save = save or SaveOptions()
    journal = None
    if journal_folder is not None:
        journal = Journal(journal_folder, hash_settings(_determining(restorer, settings, save)))
    for job in jobs:
        input_hash = None
        try:
            if job.error is not None:
                raise job.error
            size = read_header(job.input, limits=limits)
            target = settings.size.of(size.width, size.height)
            if journal is not None:
                input_hash = hash_file(job.input)
                if resume and journal.is_finished(job.output, input_hash):
                    yield Outcome(job)
                    continue
            with _folder_for(job.output):
                check_output(
                    job.output, *target, overwrite=save.overwrite, source=job.input, format=save.format, bits=save.bits
                )
                if announce is not None:
                    announce(job, (size.width, size.height), target)
                result = restorer.run(job.input, settings, limits=limits, progress=progress)
                result.save(job.output, **asdict(save))
            outcome = Outcome(job, result)
        except FATAL:
            raise
        except RasrError as error:
            outcome = Outcome(job, error=error)
        if journal is not None:
            _record(journal, outcome, input_hash)
        yield outcome


def _record(journal: Journal, outcome: Outcome, input_hash: str | None) -> None:
    try:
        with _folder_for(journal.path):
            journal.record(outcome.to_json(), input_hash)
    except OutputError as error:
        if outcome.result is not None:
            outcome.result.notes += (f"Not recorded, so that --resume would redo it: {error}",)


def _determining(restorer: Restorer, settings: Settings, save: SaveOptions) -> dict[str, Any]:
    """What makes two runs interchangeable."""
    info, cleaner = restorer.generator.info, restorer.generator.cleaner
    gallery = restorer.gallery
    return settings.to_json() | {
        "preset": restorer.preset,
        "weights": info.weights,
        "cleaner": None if cleaner is None else cleaner.info.weights,
        "gallery": None if gallery is None else str(gallery.path),
        "save": asdict(save) | {"overwrite": None},
    }


@contextmanager
def _folder_for(file: Path) -> Iterator[None]:
    """Make the folders ``file`` needs; when the work fails, those that were made and are still empty go again."""
    missing: list[Path] = []
    try:
        try:
            missing += [folder for folder in file.parents if not folder.exists()]
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{file.parent}: the folder cannot be made ({error.strerror}).") from error
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise
