"""Picture files among files and folders, found by extension."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rasr.errors import PictureError

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

    Inside folders, files are chosen by extension (:data:`PICTURE_EXTENSIONS`); hidden files, system folders and loops
    of symbolic links are passed over. Paths found in a folder start with that folder as it was given, so
    ``path.relative_to(folder)`` mirrors its tree. Raises PictureError for a path that does not exist, a folder that
    cannot be listed, and when nothing is found at all.
    """
    return sorted({path for _, path in walk_pictures(paths, recursive=recursive)})


def walk_pictures(
    paths: str | Path | Iterable[str | Path], *, recursive: bool = True
) -> Iterator[tuple[Path | None, Path]]:
    """Yield what :func:`find_pictures` finds, in the order given: (its folder or None, file)."""
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    count = 0
    for path in given:
        if path.is_dir():
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
            if name.startswith(".") or file.suffix.lower() not in PICTURE_EXTENSIONS:
                continue
            if file.is_file():
                yield file
            elif file.exists():
                _log.warning("%s: passed over (not a regular file)", file)


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS
