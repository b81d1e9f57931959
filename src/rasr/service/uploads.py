"""Uploads: files that a client sends, put on the disk under names that are safe."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rasr.errors import UNPRINTABLE
from rasr.files import sync_folder

BLOCK = 1 << 20
LONGEST = 120
"""Bytes of a name, before its extension, that are kept."""
_UNSAFE = re.compile(rf'[{UNPRINTABLE}/\\:*?"<>|]')
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}\Z")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it lies on the disk."""

    path: Path
    name: str
    digest: str
    """SHA-256 of its bytes."""
    size: int


def safe_name(given: str | None) -> str:
    """Make a file name of what a client calls a file: one part, printable, not hidden, of a bounded length."""
    name = unicodedata.normalize("NFC", (given or "").replace("\\", "/").rpartition("/")[2])
    name = _UNSAFE.sub("_", name).strip().lstrip(".").strip()
    found = _EXTENSION.search(name)
    extension = found[0] if found else ""
    stem = name.removesuffix(extension).encode("utf-8", "ignore")[:LONGEST].decode("utf-8", "ignore").rstrip(" .")
    return f"{stem or 'picture'}{extension}"


def store(source: BinaryIO, given: str | None, folder: Path) -> Stored:
    """Copy an uploaded file into ``folder``, which is made, and hash it on the way. Raises OSError."""
    name = safe_name(given)
    folder.mkdir(parents=True)
    digest, size = hashlib.sha256(), 0
    source.seek(0)
    with (folder / name).open("xb") as file:
        while block := source.read(BLOCK):
            digest.update(block)
            size += len(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return Stored(folder / name, name, digest.hexdigest(), size)


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """Give a folder of one's own below ``root``, which is gone afterwards unless it was moved to its place."""
    folder = root / secrets.token_hex(8)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place(folder: Path, target: Path) -> None:
    """Move a folder to its place, for good. Raises OSError."""
    folder.rename(target)
    sync_folder(target)
    sync_folder(target.parent)


def sweep(root: Path, keep: set[str] = frozenset()) -> None:  # type: ignore[assignment]  # only read
    """Remove what lies in a folder, but for the entries named in ``keep``."""
    for entry in root.iterdir():
        if entry.name not in keep:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
