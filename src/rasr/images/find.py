"""Picture files among files and folders, found by extension."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rasr.errors import PictureError
from rasr.object_path import ObjectPath, place

PICTURE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".hif"}
)
"""Extensions looked for inside folders. A file named explicitly is always tried: its content decides."""

_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "__macosx", "$recycle.bin", "#recycle", "system volume information", "lost+found"}
)

_log = logging.getLogger(__name__)


def find_pictures(paths: str | Path | Iterable[str | Path], *, recursive: bool = True) -> list[Path]:
    """Find all picture files among ``paths`` (files and folders), sorted, each once.

    What lies below an address is found as in a folder. Inside folders, files are chosen by extension
    (:data:`PICTURE_EXTENSIONS`); hidden files, system folders and loops of symbolic links are passed over. Paths found
    in a folder start with that folder as it was given, so ``path.relative_to(folder)`` mirrors its tree. Raises
    PictureError for a path that does not exist, a folder that cannot be listed, and when nothing is found at all.
    """
    return sorted({path for _, path in walk_pictures(paths, recursive=recursive)})


def walk_pictures(
    paths: str | Path | Iterable[str | Path], *, recursive: bool = True
) -> Iterator[tuple[Path | None, Path]]:
    """Yield what :func:`find_pictures` finds, in the order given: (its folder or None, file)."""
    given = [place(paths)] if isinstance(paths, str | Path) else [place(path) for path in paths]
    count = 0
    for path in given:
        if isinstance(path, ObjectPath):
            for found in _in_storage(path, recursive=recursive):
                count += 1
                yield found
        elif path.is_dir():
            for file in _in_folder(path, recursive=recursive):
                count += 1
                yield path, file
        elif path.exists():
            count += 1
            yield None, path
        else:
            raise PictureError(f"{path}: no such file or folder.")
    if not count:
        names = ", ".join(map(str, given)) or "nothing given"
        raise PictureError(f"{names}: no pictures found (looked for {' '.join(sorted(PICTURE_EXTENSIONS))}).")


def _in_folder(top: Path, *, recursive: bool) -> Iterator[Path]:
    seen = set[tuple[int, int]]()

    def cannot_list(error: OSError) -> None:
        if Path(error.filename) == top:
            raise PictureError(f"{top}: the folder cannot be listed ({error.strerror}).") from error
        _log.warning("%s: folder passed over (%s)", error.filename, error.strerror)

    for folder, subfolders, names in os.walk(top, onerror=cannot_list, followlinks=True):
        status = Path(folder).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in seen:  # a symbolic link back to a folder already visited
            subfolders.clear()
            continue
        seen.add(identity)
        subfolders[:] = sorted(name for name in subfolders if recursive and not _is_system(name))
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith(".") or not _has_extension(file):
                continue
            if file.is_file():
                yield file
            elif file.exists():
                _log.warning("%s: passed over (not a regular file)", file)


def _in_storage(top: ObjectPath, *, recursive: bool) -> Iterator[tuple[ObjectPath | None, ObjectPath]]:
    """The object at an address, or the pictures below it, as they are listed: a page at a time."""
    count = 0
    try:
        if top.key and top.is_file():
            yield None, top
            return
        for file in top.walk_objects():
            count += 1
            *folders, name = file.relative_to(top).parts
            if (recursive or not folders) and not any(map(_is_system, (*folders, name))) and _has_extension(file):
                yield top, file
    except OSError as error:
        raise PictureError(f"{top}: cannot be listed ({error.strerror or error}).") from error
    if not count:
        raise PictureError(f"{top}: no such object, and nothing below it.")


def _has_extension(file: Path) -> bool:
    return file.suffix.lower() in PICTURE_EXTENSIONS


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS
