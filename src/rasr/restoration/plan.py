"""Plan of a batch: which picture becomes which file, and that no result takes the place of what is read."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rasr.errors import OutputError, PictureError, RasrError, UsageError
from rasr.files import check_writable
from rasr.images import Limits, read_header, walk_pictures
from rasr.restoration.journal import JOURNAL, Journal

DEFAULT_NAME = "{stem}_rasr{ext}"
READ_ONLY = {".heic", ".heif", ".hif"}
"""Read but not written: such results become JPEG, as phones export them."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to restore, or one input that cannot be."""

    input: Path
    output: Path
    error: RasrError | None = None
    """Set when there is nothing to restore: a folder without pictures, or a file that is none."""
    size: tuple[int, int] | None = None
    """Width and height of the input, once its header was read."""


def plan_jobs(
    inputs: Sequence[Path], out: str | Path, *, name: str = DEFAULT_NAME, format: str | None = None
) -> list[Job]:
    """Pair every picture with its result's path.

    ``out`` is a file for a single picture; a folder when it exists as one, ends in a slash, has no extension, or when
    there are several inputs. Folders are searched through and their tree is mirrored below ``out``; results of earlier
    runs in ``out`` are not taken as inputs, even if ``out`` is the inputs' own folder. ``name`` is made of {stem},
    {ext} and {name}, the input's whole name.
    Raises UsageError when ``name`` is impossible, two pictures would get one name, or a result would take the place of
    another input.
    """
    folder = Path(out)
    several = len(inputs) > 1 or is_folder(inputs[0])
    if not (several or is_folder(folder) or str(out).endswith(("/", os.sep)) or not folder.suffix):
        return [Job(inputs[0], folder)]
    if folder.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"} and not is_folder(folder):
        raise UsageError(f"Several pictures need a folder for the results, and {out} is named like a file.")
    earlier = _earlier_results(folder) if several else set()
    jobs: dict[Path, Job] = {}
    for root in inputs:
        for job in _found(root, folder, name, format, earlier):
            other = jobs.get(job.output)
            if other is not None and other.input != job.input:
                raise UsageError(
                    f"{other.input} and {job.input} would both become {job.output}. "
                    "Use --name '{name}_rasr{ext}', or restore them into different folders."
                )
            jobs[job.output] = job
    if not jobs:
        raise UsageError(f"{', '.join(map(str, inputs))}: these are results of earlier runs in {out}. Name others.")
    check_places(jobs.values())
    return list(jobs.values())


def check_places(jobs: Iterable[Job], read: Iterable[Path] = ()) -> None:
    """Refuse a plan in which a result would take the place of a file that the run reads.

    ``read`` are files besides the jobs' inputs: references. A file is the same by its place, also where only the case
    of letters differs, and by its identity on the disk. Raises UsageError with both names. That a result does not
    replace its own input is found when it is checked.
    """
    jobs = list(jobs)
    places: dict[str, Path] = {}
    identities: dict[tuple[int, int], Path] = {}
    for file in (*(job.input for job in jobs), *read):
        places.setdefault(_place(file), file)
        if (identity := identity_of(file)) is not None:
            identities.setdefault(identity, file)
    for job in jobs:
        identity = identity_of(job.output)
        # A file that exists and is another one is another one, whatever its name looks like.
        taken = places.get(_place(job.output)) if identity is None else identities.get(identity)
        if taken is not None and taken != job.input and identity_of(taken) != identity_of(job.input):
            raise UsageError(
                f"{job.input} would become {job.output}, which is {taken}, a picture that this run reads. "
                "Choose another --name, or another folder for the results."
            )


def plan_maps(
    jobs: Sequence[Job], evidence: Path, read: Iterable[Path] = (), *, several: bool, overwrite: bool
) -> dict[Path, Path]:
    """Plan where each result's evidence map lies: ``evidence`` itself, or a file of that folder for ``several``.

    No map takes the place of a file that the run reads or of a result. Returns maps by result. Raises UsageError,
    and OutputExists or OutputError where a map cannot be written.
    """
    files = [*(job.input for job in jobs), *(job.output for job in jobs), *read]
    places, identities = {_place(file) for file in files}, {identity_of(file) for file in files} - {None}
    if several and evidence.exists() and not evidence.is_dir():
        raise OutputError(f"{evidence}: this is no folder. The maps of several pictures need one.")
    maps: dict[Path, Path] = {}
    taken: set[str] = set()
    for job in jobs:
        target = evidence
        if several:
            stem, name = job.output.stem, job.output.name
            names = (
                f"{one}_evidence.png" for one in (stem, name, *(f"{name}_{more}" for more in range(2, len(jobs) + 2)))
            )
            target = evidence / next(one for one in names if one.casefold() not in taken)
            taken.add(target.name.casefold())
        if _place(target) in places or identity_of(target) in identities:
            raise UsageError(
                f"{target}: the evidence map would replace a picture of this run. Choose another --evidence."
            )
        maps[job.output] = target
    if not several:
        check_writable(evidence, overwrite=overwrite)
    return maps


def _place(path: Path) -> str:
    with suppress(OSError):
        path = path.resolve()
    return str(path).casefold()


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and number of the file that a path leads to; None without one."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _earlier_results(folder: Path) -> set[tuple[int, int]]:
    try:
        results = Journal(folder).results()
    except OSError:
        return set()
    return {identity for place in results if (identity := identity_of(place)) is not None}


def is_folder(path: Path) -> bool:
    """True for a folder; False, not an error, for a path the system refuses (a name too long)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _found(root: Path, folder: Path, name: str, format: str | None, earlier: set[tuple[int, int]]) -> list[Job]:
    if not is_folder(root):
        return [] if identity_of(root) in earlier else [Job(root, folder / _result_name(root, name, format))]
    try:
        results = folder.resolve()
        own = results if results.is_relative_to(root.resolve()) and results != root.resolve() else None
        files = [file for _, file in walk_pictures(root) if own is None or not file.resolve().is_relative_to(own)]
    except PictureError as error:
        return [Job(root, folder / root.name, error)]
    except OSError as error:
        return [Job(root, folder / root.name, unreadable(error.filename or root, error))]
    files = [file for file in files if identity_of(file) not in earlier]
    if not files:
        return [Job(root, folder / root.name, PictureError(f"{root}: no pictures found besides earlier results."))]
    return [Job(file, folder / file.parent.relative_to(root) / _result_name(file, name, format)) for file in files]


def unreadable(path: Path | str, error: OSError) -> PictureError:
    """The error for a picture that the system does not give."""
    return PictureError(f"{path}: cannot be read ({error.strerror or error}).")


def _result_name(file: Path, name: str, format: str | None) -> str:
    suffix = file.suffix.lower()
    ext = "." + format.lower() if format else ".jpg" if suffix in READ_ONLY else file.suffix
    try:
        made = name.format(stem=file.stem, ext=ext, name=file.name)
    except (KeyError, IndexError, ValueError) as error:
        raise UsageError(f"--name '{name}' is not possible: use {{stem}}, {{ext}} and {{name}}.") from error
    if not made or made in {".", ".."} or Path(made).name != made or "\0" in made or made.lower() == JOURNAL:
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
    except OSError as error:
        return replace(job, error=unreadable(job.input, error))
    return replace(job, size=(header.width, header.height))
