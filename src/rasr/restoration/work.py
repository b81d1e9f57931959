"""Work on one picture of a batch: checked, restored, told to the journal and then saved; the same in every process."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

from rasr.errors import (
    GalleryError,
    OutOfMemory,
    OutputError,
    PictureError,
    RasrError,
    UsageError,
    WeightsError,
)
from rasr.files import os_errors_as_output, write_bytes, xxh3_file
from rasr.images import Limits, check_output
from rasr.object_path import ObjectPath
from rasr.progress import Progress
from rasr.restoration.journal import stamp_facts
from rasr.restoration.plan import Job, identity_of
from rasr.restoration.restorer import Restorer
from rasr.restoration.result import Result
from rasr.restoration.settings import SaveOptions, Settings

FATAL = (GalleryError, WeightsError, UsageError)
"""Errors that every other picture would meet as well."""

Announce = Callable[[Job, tuple[int, int]], Progress | None]
"""Told of a measured job and its result's (width, height) as the work starts; gives whom to tell how far it is."""
Placing = Callable[[Result, dict[str, Any]], None]
"""Told of a result, and of what a journal has to say of its files, before it is put in its place."""


class Folders:
    """Folders of results, made as they are needed; those that are empty in the end go again."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def make(self, file: Path) -> None:
        """Make the folders that ``file`` needs; none at an address. Raises OutputError."""
        if isinstance(file, ObjectPath):
            return
        try:
            if not file.parent.is_dir():
                self._made += [folder for folder in file.parents if not folder.exists()]
                file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{file.parent}: the folder cannot be made ({error.strerror}).") from error

    def sweep(self) -> None:
        """Remove those that are empty."""
        for folder in sorted(set(self._made), key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def swept_folders() -> Iterator[Folders]:
    """Folders that are swept at the end of the block, however it ends."""
    folders = Folders()
    try:
        yield folders
    finally:
        folders.sweep()


def check_job(job: Job, settings: Settings, save: SaveOptions) -> tuple[int, int]:
    """Find out whether a measured job's result can be made and saved, and return its (width, height).

    No folder is left behind. Raises the job's own error, OutputError or OutputExists.
    """
    with swept_folders() as folders:
        folders.make(job.output)
        return _check(job, settings, save)


def _check(job: Job, settings: Settings, save: SaveOptions) -> tuple[int, int]:
    if job.error is not None or job.size is None:
        raise job.error or ValueError("the job was not measured")
    target = settings.size.of(*job.size)
    if save.quality == "lossless" and (save.format or job.output.suffix).lower() in {"jpg", ".jpg", ".jpeg"}:
        raise OutputError(f"{job.output}: a JPEG is never lossless. Use --quality 1 to 100, or --format webp or png.")
    check_output(job.output, *target, overwrite=save.overwrite, source=job.input, format=save.format, bits=save.bits)
    return target


def do_job(
    job: Job,
    restorer: Restorer,
    settings: Settings,
    save: SaveOptions,
    *,
    limits: Limits | None = None,
    announce: Announce | None = None,
    placing: Placing | None = None,
) -> Result:
    """Restore a measured job's picture and save it; the folder is there. Raises RasrError and OSError.

    A result whose bytes were told to ``placing`` gets the time that was told with them.
    """
    target = _check(job, settings, save)

    def start() -> Progress | None:
        return None if announce is None else announce(job, target)

    result, of_input = _restored(job, restorer, settings, limits, start, hashed=placing is not None)
    check_guides(job.output, (reference.path for reference in result.references if reference.accepted))
    if placing is None:
        result.save(job.output, save)
        return result
    now = time.time_ns()

    def told(content: bytes) -> None:
        placing(result, of_input | content_facts(content) | {"output_mtime_ns": now})

    result.save(job.output, save, placing=told)
    with suppress(OSError):  # then it is compared by content
        os.utime(job.output, ns=(now, now))
    return result


def make_file(
    job: Job, restorer: Restorer, settings: Settings, save: SaveOptions, *, limits: Limits | None = None
) -> tuple[Result, bytes, dict[str, Any]]:
    """Restore a measured job's picture, and write nothing; as :func:`do_job` for whoever checks and writes elsewhere.

    Gives the result, its file's content, and what a journal has to say of both files. Raises RasrError and OSError.
    """
    result, of_input = _restored(job, restorer, settings, limits, lambda: None, hashed=True)
    content = result.encode(job.output, save)
    return result, content, of_input | content_facts(content)


def _restored(
    job: Job,
    restorer: Restorer,
    settings: Settings,
    limits: Limits | None,
    start: Callable[[], Progress | None],
    *,
    hashed: bool,
) -> tuple[Result, dict[str, Any]]:
    """Restore a picture, unless it changes meanwhile; gives what a journal has to say of it, too."""
    before = job.input.stat()
    input_hash = xxh3_file(job.input) if hashed else None
    result = restorer(job.input, settings, limits=limits, progress=start())
    after = job.input.stat()
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        raise PictureError(f"{job.input}: changed while it was restored. Run the same command again.")
    return result, {"input_hash": input_hash, **stamp_facts((before.st_size, before.st_mtime_ns))}


def content_facts(content: bytes) -> dict[str, Any]:
    """What a journal has to say of a result's file."""
    return {"output_bytes": len(content), "output_hash": xxhash.xxh3_128_hexdigest(content)}


def check_guides(output: Path, guides: Iterable[Path]) -> None:
    """Refuse a result in the place of a photo that guided it. Raises OutputError."""
    for guide in guides:
        if identity_of(output) in {identity_of(guide)} - {None}:
            raise OutputError(f"{output}: this is {guide}, which guided the result.")


def draw_map(result: Result, place: Path | None, *, overwrite: bool) -> OutputError | None:
    """Draw a result's evidence map, if it has a place; returns why it could not be: the result itself is there."""
    if place is None:
        return None
    from rasr.restoration.evidence import evidence_png

    return write_map(evidence_png(result), place, overwrite=overwrite)


def write_map(content: bytes, place: Path, *, overwrite: bool) -> OutputError | None:
    """Write an evidence map; returns why it could not be."""
    try:
        with os_errors_as_output(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(content, place, overwrite=overwrite)
    except OutputError as error:
        return error
    return None


def fault_of(error: Exception, job: Job) -> RasrError:
    """What ended the work on a picture, as its own error, which names it. Raises what would fail all, and bugs."""
    if isinstance(error, FATAL):
        raise error
    if isinstance(error, RasrError):
        return _named(error, job.input)
    if isinstance(error, OSError):
        return _named(PictureError(f"{os_fault(error)}."), job.input)
    if isinstance(error, MemoryError):
        return OutOfMemory(f"{job.input}: memory ran out.")
    raise error


def os_fault(error: OSError) -> str:
    """What the system says, and of which file."""
    named = f"{error.filename}: " if error.filename else ""
    return f"{named}{error.strerror or error}"


def _named(error: RasrError, picture: Path) -> RasrError:
    """The error with the name of the picture whose work it ended, when it names another file only."""
    if picture.name not in str(error):
        error.args = (f"{picture}: {error}", *error.args[1:])
    return error
