"""Plan of a batch: which picture becomes which file, and that no result takes the place of what is read."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rasr.errors import OutputError, PictureError, RasrError, UsageError
from rasr.files import check_writable
from rasr.images import Limits, read_header, walk_pictures
from rasr.object_path import ObjectPath, place
from rasr.restoration.journal import Journal, is_journal
from rasr.restoration.settings import Shard

DEFAULT_NAME = "{stem}_rasr{ext}"
READ_ONLY = {".heic", ".heif", ".hif"}
"""Read but not written: such results become JPEG, as phones export them."""


class Listed(NamedTuple):
    """A picture that a list names."""

    path: Path
    folder: Path | None = None
    """The folder of the inputs that it was found in, whose tree is mirrored; None for one that stands for itself."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to restore, or one input that cannot be."""

    input: Path
    output: Path
    error: RasrError | None = None
    """Set when there is nothing to restore: a folder without pictures, or a file that is none."""
    size: tuple[int, int] | None = None
    """Width and height of the input, once its header was read."""
    folder: Path | None = None
    """The folder of the inputs in which it was found; None for a picture that was named itself."""

    @property
    def name(self) -> str:
        """Path below the folder it was found in, with forward slashes, by which shards are told."""
        return self.input.name if self.folder is None else self.input.relative_to(self.folder).as_posix()


def plan_jobs(
    inputs: Sequence[Path | Listed],
    out: str | Path,
    *,
    name: str = DEFAULT_NAME,
    format: str | None = None,
    journal: Journal | None = None,
) -> list[Job]:
    """Pair every picture with its result's path.

    ``out`` is a file for a single picture; a folder when it exists as one, ends in a slash, has no extension, or when
    there are several inputs. Folders are searched through and their tree is mirrored below ``out``; results of earlier
    runs in ``out`` are not taken as inputs, even if ``out`` is the inputs' own folder. ``name`` is made of {stem},
    {ext} and {name}, the input's whole name. ``journal`` is that of ``out``, for a caller that goes on with it.
    Raises UsageError when ``name`` is impossible, two pictures would get one name, or a result would take the place of
    another input.
    """
    folder = place(out)
    several = are_several(inputs)
    if not (several or is_folder(folder) or str(out).endswith(("/", os.sep)) or not folder.suffix):
        return [Job(_path(inputs[0]), folder)]
    if folder.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"} and not is_folder(folder):
        raise UsageError(f"Several pictures need a folder for the results, and {out} is named like a file.")
    found = [(root, _found(root, folder)) for root in inputs]
    # Read after the folders: a result that another shard put there meanwhile is in its journal before it is in place.
    earlier = _earlier_results(journal or Journal(folder)) if several else set()
    jobs: dict[Path, Job] = {}
    for root, files in found:
        for job in _paired(root, files, folder, name, format, earlier):
            other = jobs.get(job.output)
            if other is not None and other.input != job.input:
                raise UsageError(
                    f"{other.input} and {job.input} would both become {job.output}. "
                    "Use --name '{name}_rasr{ext}', or restore them into different folders."
                )
            jobs[job.output] = job
    if not jobs:
        given = ", ".join(str(_path(root)) for root in inputs)
        raise UsageError(f"{given}: these are results of earlier runs in {out}. Name others.")
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
    """Device and number of the file that a path leads to, None without one; of an object's address, without asking."""
    if isinstance(path, ObjectPath):
        return path.identity
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _earlier_results(journal: Journal) -> set[tuple[int, int]]:
    try:
        results = journal.results()
    except OSError:
        return set()
    return {identity for place in results if (identity := identity_of(place)) is not None}


def _path(root: Path | Listed) -> Path:
    return root.path if isinstance(root, Listed) else root


def are_several(inputs: Sequence[Path | Listed]) -> bool:
    """True when the inputs make a batch: more than one, a folder, or taken from a list."""
    return len(inputs) != 1 or isinstance(inputs[0], Listed) or is_folder(inputs[0])


def is_folder(path: Path) -> bool:
    """True for a folder; False, not an error, for a path the system refuses (a name too long)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _found(root: Path | Listed, folder: Path) -> list[Path] | PictureError:
    """The pictures of an input, results in a folder of their own below it left out; or why there are none."""
    if isinstance(root, Listed) and root.folder is not None:
        return [root.path]
    root = _path(root)
    if not is_folder(root):
        return [root]
    try:
        results = folder.resolve()
        own = results if results.is_relative_to(root.resolve()) and results != root.resolve() else None
        return [file for _, file in walk_pictures(root) if own is None or not file.resolve().is_relative_to(own)]
    except PictureError as error:
        return error
    except OSError as error:
        return unreadable(error.filename or root, error)


def _paired(
    root: Path | Listed,
    files: list[Path] | PictureError,
    out: Path,
    name: str,
    format: str | None,
    earlier: set[tuple[int, int]],
) -> list[Job]:
    path, top = root if isinstance(root, Listed) else (root, None)
    if isinstance(files, PictureError):
        return [Job(path, out / path.name, files)]
    if earlier:
        files = [file for file in files if identity_of(file) not in earlier]
    if top is None and is_folder(path):
        if not files:
            return [Job(path, out / path.name, PictureError(f"{path}: no pictures found besides earlier results."))]
        top = path
    if top is None:
        return [Job(file, out / _result_name(file, name, format)) for file in files]
    jobs = []
    for file in files:
        below = file.parent.relative_to(top) if file.is_relative_to(top) and file != top else Path("..")
        if ".." in below.parts:
            raise UsageError(f"{file} is listed as a picture in {top}, and is not in there.")
        jobs.append(Job(file, out / below / _result_name(file, name, format), folder=top))
    return jobs


def of_shard(jobs: Iterable[Job], shard: Shard | None) -> list[Job]:
    """The jobs that belong to a shard; all without one. Each belongs to exactly one of them."""
    return [job for job in jobs if shard is None or shard.holds(job.name)]


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
    if not made or made in {".", ".."} or Path(made).name != made or "\0" in made or is_journal(made):
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
