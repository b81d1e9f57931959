"""Saving: atomically, never over an input, never over anything else unless asked."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from rasr.errors import OutputError, OutputExists
from rasr.images.encode import Encoding, encode_picture
from rasr.images.formats import check_size, depth, output_format
from rasr.images.picture import Origin, Picture

__all__ = ["check_output", "write_bytes", "write_picture"]


def write_picture(
    picture: Picture,
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    quality: int | Literal["lossless"] | None = None,
    bits: int | None = None,
    metadata: Literal["keep", "strip"] = "keep",
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    software: str | None = None,
    description: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Save a picture in the format of ``path``'s extension, or in ``format``; returns the path.

    The choices are those of :class:`Encoding`; :func:`losses` tells beforehand what a format gives up. The file appears
    whole or not at all: it is written beside its place, synced, and moved there. Raises OutputExists when something is
    there and ``overwrite`` is false (also when it appeared meanwhile), OutputError when the place is the picture's own
    input, the folder is missing or not writable, the disk is full or the format cannot hold the size.
    """
    path = Path(path)
    chosen = output_format(path, format)
    check_output(
        path,
        picture.width,
        picture.height,
        overwrite=overwrite,
        source=picture.path,
        format=format,
        bits=bits,
        origin=picture.origin,
    )
    encoding = Encoding(quality, bits, metadata, background, software, description)
    return write_bytes(encode_picture(picture, chosen, encoding), path, overwrite=overwrite)


def check_output(
    path: str | Path,
    width: int,
    height: int,
    *,
    overwrite: bool = False,
    source: str | Path | None = None,
    format: str | None = None,  # noqa: A002
    bits: int | None = None,
    origin: Origin | None = None,
) -> None:
    """Find out before any work whether a result of this size can be saved at ``path``.

    ``source`` is the input, which a result never replaces. Checks the extension, the format's size and depth, the
    folder (by making and removing a file in it) and what is at the path already. Raises OutputError or OutputExists.
    """
    path = Path(path)
    chosen = output_format(path, format)
    check_size(path, chosen, width, height)
    depth(origin or Origin(), chosen, bits)
    with _saying(path):
        if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
            raise OutputError(f"{path}: this is the input itself, which is never replaced. Choose another name.")
        if path.is_dir():
            raise OutputError(f"{path}: this is a folder. Name a file in it.")
        if os.path.lexists(path) and not overwrite:
            raise _exists(path)
        if not path.parent.is_dir():
            what = "is not a folder" if path.parent.exists() else "does not exist"
            raise OutputError(f"{path}: the folder {path.parent} {what}.")
        _create_beside(path)[1].unlink()


def write_bytes(data: bytes, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a file whole or not at all; what :func:`write_picture` ends in, for reports and tables as well.

    Raises OutputExists and OutputError as :func:`write_picture` does.
    """
    path = Path(path)
    with _saying(path):
        if not overwrite and os.path.lexists(path):
            raise _exists(path)
        descriptor, temporary = _create_beside(path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                temporary.replace(path)
            else:
                _move_if_free(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        _sync_folder(path.parent)
    return path


def _create_beside(path: Path) -> tuple[int, Path]:
    """A new, empty, hidden file in the same folder, open for writing, with the user's own permissions (umask)."""
    temporary = path.with_name(f".rasr-{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    return descriptor, temporary


def _move_if_free(temporary: Path, path: Path) -> None:
    """Rename without replacing: a hard link fails when the name is taken, which rename would not tell."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        # No hard links here (FAT, some network shares): reserve the name, then replace our own reservation.
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError as taken:
            raise _exists(path) from taken
        temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exists(path: Path) -> OutputExists:
    return OutputExists(f"{path}: exists already. Use --overwrite to replace it, or another name.")


@contextmanager
def _saying(path: Path) -> Iterator[None]:
    """Operating system errors as one sentence that names the file."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "Free some space or choose another disk.",
            errno.EDQUOT: "Your disk quota is used up.",
            errno.EFBIG: "The file would be larger than this system allows.",
            errno.EROFS: "Choose a folder on a disk that can be written.",
            errno.EACCES: "Choose a folder you may write to.",
            errno.EPERM: "Choose a folder you may write to.",
            errno.ENAMETOOLONG: "Choose a shorter name.",
        }.get(error.errno or 0, "")
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}). {advice}".rstrip()) from error
