"""``gallery.json``: the small file that says which files, with which checksums, make up a gallery right now.

Replacing it is the one atomic step of every change. Whatever the table's folder holds beyond the files named here is
the leftover of a writer that died, and the next writer removes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xxhash

from rasr.errors import GalleryCorrupt, GalleryNotFound

__all__ = ["FORMAT", "NAME", "EncoderId", "Pointer", "checksum_file", "read_pointer", "sync_folder", "write_pointer"]

FORMAT = 1
"""Version of the layout; a reader refuses what is newer than itself."""
NAME = "gallery.json"


@dataclass(frozen=True, slots=True)
class EncoderId:
    """Which encoder made the vectors. Galleries and queries must agree in ``fingerprint``."""

    name: str
    version: str
    dimension: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Pointer:
    """The contents of ``gallery.json``."""

    encoder: EncoderId
    generation: int = 0
    """Number of the table in use, ``photos-000001``; 0 while there is none. Compaction starts the next one."""
    version: int = 0
    """Lance version of that table."""
    photos: int = 0
    indexed: int = 0
    """Rows covered by the approximate index; 0 when there is none."""
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Path relative to the gallery → (bytes, xxh3-64 in hexadecimal)."""
    created: str = ""
    updated: str = ""

    @property
    def table(self) -> str:
        """Name of the LanceDB table."""
        return f"photos-{self.generation:06d}"

    def moved_on(self, **changes: Any) -> Pointer:
        """A copy with ``changes`` and a fresh time stamp."""
        return replace(self, updated=now(), **changes)


def now() -> str:
    """The current UTC time, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_pointer(folder: Path) -> Pointer:
    """Read and check ``gallery.json``.

    Raises GalleryNotFound when the folder is no gallery, GalleryCorrupt when the file is missing beside a table,
    damaged in any byte, or written by a newer version of the program.
    """
    path = folder / NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.is_dir() and any(folder.glob("photos-*.lance")):
            raise GalleryCorrupt(_damaged(path, "is missing")) from error
        raise GalleryNotFound(
            f"There is no gallery at {folder}. Create one with: rasr gallery add {folder} FOLDER_OF_PHOTOS"
        ) from error
    except OSError as error:
        raise GalleryCorrupt(_damaged(path, f"cannot be read ({error.strerror})")) from error
    try:
        values = json.loads(text)
        if values["format"] > FORMAT:
            raise GalleryCorrupt(
                f"{path} has format {values['format']}, and this version of rasr reads up to {FORMAT}. Upgrade rasr."
            )
        pointer = Pointer(
            encoder=EncoderId(**values["encoder"]),
            files={name: (int(size), str(digest)) for name, (size, digest) in values["files"].items()},
            **{name: values[name] for name in ("generation", "version", "photos", "indexed", "created", "updated")},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GalleryCorrupt(_damaged(path, "is damaged")) from error
    # Comparing with what we would write ourselves notices every flipped bit, also those JSON would forgive.
    if _serialise(pointer) != text:
        raise GalleryCorrupt(_damaged(path, "is damaged (its checksum does not match)"))
    return pointer


def write_pointer(folder: Path, pointer: Pointer) -> None:
    """Replace ``gallery.json`` atomically and durably: temporary file, fsync, rename, fsync of the folder."""
    path = folder / NAME
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(_serialise(pointer))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the entries of ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum_file(path: Path, *, sync: bool = False, progress: Callable[[int], None] | None = None) -> tuple[int, str]:
    """(bytes, xxh3-64) of a file; ``sync`` also makes its content durable. Raises OSError."""
    digest = xxhash.xxh3_64()
    size = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 22):
            digest.update(block)
            size += len(block)
            if progress is not None:
                progress(len(block))
        if sync:
            os.fsync(file.fileno())
    return size, digest.hexdigest()


def _serialise(pointer: Pointer) -> bytes:
    values = {"format": FORMAT, **asdict(pointer)}
    values["files"] = {name: list(pointer.files[name]) for name in sorted(pointer.files)}
    values["checksum"] = xxhash.xxh3_64(json.dumps(values, ensure_ascii=False).encode()).hexdigest()
    return _lines(values.items()).encode()


def _lines(items: Iterable[tuple[str, Any]]) -> str:
    return "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in items) + "\n}\n"


def _damaged(path: Path, what: str) -> str:
    return (
        f"{path} {what}, so the gallery cannot be trusted. Photos are not stored in it: delete {path.parent} and "
        f"rebuild it with: rasr gallery add {path.parent} FOLDER_OF_PHOTOS"
    )
