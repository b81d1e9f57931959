"""Which file becomes which: inputs, folders among them mirrored, and the names of the results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rasr.errors import PictureError, UsageError
from rasr.images import walk_pictures

__all__ = ["DEFAULT_NAME", "Job", "is_folder", "plan_jobs"]

DEFAULT_NAME = "{stem}_rasr{ext}"
READ_ONLY = {".heic", ".heif", ".hif"}
"""Read but not written: such results become JPEG, as phones export them."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to restore, or one input that cannot be."""

    input: Path
    output: Path
    error: PictureError | None = None
    """Set when there is nothing to restore: a folder without pictures."""


def plan_jobs(
    inputs: Sequence[Path],
    out: str | Path,
    *,
    name: str = DEFAULT_NAME,
    format: str | None = None,
) -> list[Job]:
    """Pair every picture with its result's path.

    ``out`` is a file for a single picture; a folder when it exists as one, ends in a slash, has no extension, or when
    there are several inputs. Folders are searched through and their tree is mirrored below ``out``; results of earlier
    runs in ``out`` are not taken as inputs. ``name`` is made of {stem}, {ext} and {name}, the input's whole name.
    Raises UsageError when ``name`` is impossible or two pictures would get one name.
    """
    folder = Path(out)
    if not _into_folder(inputs, out):
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
    """Whether there is a folder; False, not an error, for a path the system refuses (a name too long)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _into_folder(inputs: Sequence[Path], out: str | Path) -> bool:
    several = len(inputs) > 1 or is_folder(inputs[0])
    return several or is_folder(Path(out)) or str(out).endswith(("/", os.sep)) or not Path(out).suffix


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
