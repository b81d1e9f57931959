"""Batches: which picture becomes which file, then one after the other, resumable, never stopped by one bad file."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rasr.errors import GalleryError, OutputError, PictureError, RasrError, UsageError, WeightsError
from rasr.files import JsonLines, hash_json, os_errors_as_output, xxh3_file
from rasr.images import Limits, check_output, read_header, walk_pictures
from rasr.progress import Progress
from rasr.restoration.restorer import Restorer, Result
from rasr.restoration.settings import SaveOptions, Settings

JOURNAL = "report.jsonl"
DEFAULT_NAME = "{stem}_rasr{ext}"
READ_ONLY = {".heic", ".heif", ".hif"}
"""Read but not written: such results become JPEG, as phones export them."""
FATAL = (GalleryError, WeightsError, UsageError)
"""Errors that every other picture would meet as well."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to restore, or one input that cannot be."""

    input: Path
    output: Path
    error: RasrError | None = None
    """Set when there is nothing to restore: a folder without pictures, or a file that is none."""
    size: tuple[int, int] | None = None
    """Width and height of the input, once its header was read."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Outcome for one picture: a result, an error, or neither when it was finished before."""

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


def plan_jobs(
    inputs: Sequence[Path], out: str | Path, *, name: str = DEFAULT_NAME, format: str | None = None
) -> list[Job]:
    """Pair every picture with its result's path.

    ``out`` is a file for a single picture; a folder when it exists as one, ends in a slash, has no extension, or when
    there are several inputs. Folders are searched through and their tree is mirrored below ``out``; results of earlier
    runs in ``out`` are not taken as inputs. ``name`` is made of {stem}, {ext} and {name}, the input's whole name.
    Raises UsageError when ``name`` is impossible or two pictures would get one name.
    """
    folder = Path(out)
    several = len(inputs) > 1 or is_folder(inputs[0])
    if not (several or is_folder(folder) or str(out).endswith(("/", os.sep)) or not folder.suffix):
        return [Job(inputs[0], folder)]
    if folder.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"} and not is_folder(folder):
        raise UsageError(f"Several pictures need a folder for the results, and {out} is named like a file.")
    jobs: dict[Path, Job] = {}
    for root in inputs:
        for job in _found(root, folder, name, format):
            other = jobs.get(job.output)
            if other is not None and other.input != job.input:
                raise UsageError(
                    f"{other.input} and {job.input} would both become {job.output}. "
                    "Use --name '{name}_rasr{ext}', or restore them into different folders."
                )
            jobs[job.output] = job
    return list(jobs.values())


def is_folder(path: Path) -> bool:
    """True for a folder; False, not an error, for a path the system refuses (a name too long)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _found(root: Path, folder: Path, name: str, format: str | None) -> list[Job]:
    if not is_folder(root):
        return [Job(root, folder / _result_name(root, name, format))]
    results = folder.resolve()
    own = results if results.is_relative_to(root.resolve()) and results != root.resolve() else None
    try:
        files = [file for _, file in walk_pictures(root) if own is None or not file.resolve().is_relative_to(own)]
    except PictureError as error:
        return [Job(root, folder / root.name, error)]
    if not files:
        return [Job(root, folder / root.name, PictureError(f"{root}: no pictures found besides earlier results."))]
    return [Job(file, folder / file.parent.relative_to(root) / _result_name(file, name, format)) for file in files]


def _result_name(file: Path, name: str, format: str | None) -> str:
    suffix = file.suffix.lower()
    ext = "." + format.lower() if format else ".jpg" if suffix in READ_ONLY else file.suffix
    try:
        made = name.format(stem=file.stem, ext=ext, name=file.name)
    except (KeyError, IndexError, ValueError) as error:
        raise UsageError(f"--name '{name}' is not possible: use {{stem}}, {{ext}} and {{name}}.") from error
    if not made or made in {".", ".."} or Path(made).name != made:
        raise UsageError(f"--name '{name}' must give a file name without folders, not '{made}'.")
    return made


def measure_jobs(jobs: Sequence[Job], limits: Limits | None = None) -> list[Job]:
    """Read each picture's header, once for all: the jobs with their ``size``, or with the ``error`` it gave."""
    return [job if job.error or job.size else _measured(job, limits) for job in jobs]


def _measured(job: Job, limits: Limits | None) -> Job:
    try:
        header = read_header(job.input, limits=limits)
    except RasrError as error:
        return replace(job, error=error)
    return replace(job, size=(header.width, header.height))


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
    resume: bool = False,
    limits: Limits | None = None,
    announce: Callable[[Job, tuple[int, int]], None] | None = None,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Restore and save each job's picture, giving what became of it.

    ``announce(job, target)`` is called with the measured job and the result's (width, height) when the work on a
    picture starts, and ``progress`` as in calling a Restorer. With ``journal_folder`` everything is recorded there, and
    ``resume`` skips pictures that were finished from the same input with the same settings. Raises only what would fail
    every picture: GalleryError, WeightsError and UsageError.
    """
    save = save or SaveOptions()
    journal = None if journal_folder is None else JsonLines(journal_folder / JOURNAL)
    settings_hash = "" if journal is None else hash_json(_determining(restorer, settings, save))
    finished = _finished(journal) if journal is not None and resume else {}
    for job in measure_jobs(jobs, limits):
        input_hash = None
        try:
            if job.error is not None:
                raise job.error
            if journal is not None:
                input_hash = xxh3_file(job.input)
                entry = finished.get(str(job.output.absolute()))
                if entry is not None and _is_current(entry, job.output, input_hash, settings_hash):
                    yield Outcome(job)
                    continue
            with _folder_for(job.output):
                target = _check(job, settings, save)
                if announce is not None:
                    announce(job, target)
                result = restorer(job.input, settings, limits=limits, progress=progress)
                result.save(job.output, save)
            outcome = Outcome(job, result)
        except FATAL:
            raise
        except RasrError as error:
            outcome = Outcome(job, error=error)
        if journal is not None:
            _record(journal, outcome, input_hash, settings_hash)
        yield outcome


def _determining(restorer: Restorer, settings: Settings, save: SaveOptions) -> dict[str, Any]:
    """Collect what makes two runs interchangeable."""
    info, cleaner = restorer.generator.info, restorer.generator.cleaner
    gallery = restorer.gallery
    return settings.to_json() | {
        "preset": restorer.preset,
        "weights": info.weights,
        "cleaner": None if cleaner is None else cleaner.info.weights,
        "gallery": None if gallery is None else str(gallery.path),
        "save": asdict(save) | {"overwrite": None},
    }


def _finished(journal: JsonLines) -> dict[str, dict[str, Any]]:
    """Absolute path of a result → its last entry without error. What is not ours is passed over, and redone."""
    found = {}
    for entry in journal.read():
        with suppress(KeyError, TypeError):
            if entry["error"] is None:
                found[str(Path(entry["output"]).absolute())] = entry
    return found


def _is_current(entry: dict[str, Any], output: Path, input_hash: str, settings_hash: str) -> bool:
    """True when ``output`` was made whole from this very input with these very settings, and is still there."""
    return (
        entry.get("input_hash") == input_hash
        and entry.get("settings_hash") == settings_hash
        and output.is_file()
        and output.stat().st_size == entry.get("output_bytes")
    )


def _record(journal: JsonLines, outcome: Outcome, input_hash: str | None, settings_hash: str) -> None:
    """Append what became of one picture; where that fails, the result's notes say so."""
    entry = outcome.to_json() | {"input_hash": input_hash, "settings_hash": settings_hash}
    try:
        with _folder_for(journal.path), os_errors_as_output(journal.path):
            entry["output_bytes"] = None if entry["output"] is None else Path(entry["output"]).stat().st_size
            journal.append(entry)
    except OutputError as error:
        if outcome.result is not None:
            outcome.result.notes += (f"Not recorded, so that --resume would redo it: {error}",)


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
