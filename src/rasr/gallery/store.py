"""A gallery on disk: a folder with one SQLite database, which holds everything, and a write lock.

A change is one transaction with a rollback journal: what is committed lies in ``gallery.db`` and nowhere else, so the
folder can be copied, and put on read-only media or a network share. A process that dies within a change leaves its
journal behind, with which SQLite undoes the change when the gallery is next opened.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

import filelock
import numpy as np
from numpy.typing import NDArray

from rasr.errors import GalleryBusy, GalleryCorrupt, GalleryError, GalleryNotFound
from rasr.files import sync_folder, write_bytes
from rasr.gallery.database import (
    DATABASE,
    FORMAT,
    EncoderId,
    Manifest,
    Row,
    Table,
    are_unit,
    check_pages,
    checksum_row,
    connect,
    damaged,
    lay_out,
    now,
    read_blocks,
    read_manifest,
    row_of,
    sum_checksums,
    write_manifest,
)
from rasr.gallery.photo import Photo, parse_entries
from rasr.home import home

__all__ = ["Store", "Writer", "is_gallery", "is_outdated"]

PART = "gallery.db.part"
"""A database in the making; it is renamed once it is whole."""
MARKER = "gallery.json"
"""Tells the format to versions that know older ones only, and that a database was here should it be lost."""
LOCK = "gallery.lock"
OWNER = "gallery.owner"
OLD_TABLES = "photos-*.lance"
"""Format 1: LanceDB tables beside a ``gallery.json`` that named their files (``lance_format.py``)."""

IN_MEMORY = 250_000
"""Photos up to which vectors are held in memory (1.3 GB at 1 280 dimensions). Those of more are mapped from a temporary
file below :func:`rasr.home.home`, so that search stays exact."""
SETTLED_NS = 50_000_000
"""Age of a time stamp from which on the next commit is certain to change it: file systems count in ticks."""


def is_gallery(path: str | Path) -> bool:
    """True when ``path`` holds a gallery, whole or damaged."""
    folder = Path(path).expanduser()
    return (folder / DATABASE).exists() or (folder / MARKER).exists() or is_outdated(folder)


def is_outdated(folder: Path) -> bool:
    """True for a gallery of format 1, whole or damaged."""
    with suppress(OSError):
        if (folder / MARKER).read_bytes().startswith(b'{\n"format": 1,'):
            return True
    return any(folder.glob(OLD_TABLES))


class Store:
    """Reads and writes the gallery in ``folder``."""

    def __init__(self, folder: Path, *, lock_timeout: float = 60.0) -> None:
        self.folder = folder
        self.database = folder / DATABASE
        self.lock_timeout = lock_timeout
        self._known: tuple[tuple[int, ...], Manifest] | None = None
        self._sound = False

    def manifest(self) -> Manifest:
        """The gallery's current state. Raises GalleryNotFound, GalleryCorrupt and GalleryBusy."""
        if not self.database.exists():
            return self._without_database(vectors=None).manifest
        with self._reading(self.database):
            status = self.database.stat()
        identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._known is not None and self._known[0] == identity:
            return self._known[1]
        with self.opened() as connection:
            manifest = read_manifest(connection, self.database)
        if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
            self._known = identity, manifest
        return manifest

    def read(self, *, vectors: bool) -> Table:
        """Read all photos and compare each row, and the set of rows, with its checksum.

        Waits for a writer no longer than a commit takes. Raises GalleryNotFound, GalleryCorrupt and GalleryBusy.
        """
        if not self.database.exists():
            return self._without_database(vectors=vectors)
        return self._load(self.database, vectors=vectors)

    def _load(self, database: Path, *, vectors: bool) -> Table:
        with self.opened(database) as connection:
            manifest = read_manifest(connection, database)
            if manifest.photos * manifest.encoder.dimension * 4 > database.stat().st_size:
                raise ValueError(f"{manifest.photos} photos would not fit into it")
            matrix = _matrix(manifest.photos, manifest.encoder.dimension) if vectors else None
            entries: list[bytes] = []
            total = 0
            for _, some, checksums, blobs in read_blocks(connection, manifest):
                if tuple(map(checksum_row, some, blobs)) != checksums:
                    raise ValueError("an entry does not match its checksum")
                total += sum_checksums(checksums)
                if matrix is not None:
                    block = np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), -1)
                    if not are_unit(block):
                        raise ValueError("a vector does not have length 1")
                    matrix[len(entries) : len(entries) + len(blobs)] = block
                entries += some
            if (len(entries), total % 2**64) != (manifest.photos, manifest.checksum):
                raise ValueError(f"it holds other photos than the {manifest.photos} that its manifest counts")
        return Table(self.folder, manifest, entries, matrix)

    def files(self) -> list[Path]:
        """The files that hold the gallery: one, or those of format 1."""
        if self.database.exists():
            return [self.database]
        old = [path for table in self.folder.glob(OLD_TABLES) for path in table.rglob("*") if path.is_file()]
        return [path for path in (self.folder / MARKER, *old) if path.exists()]

    def leftovers(self) -> list[str]:
        """Names in the folder that belong to nothing: a database that was never finished, a format left behind."""
        found = [*self.folder.glob(f"{PART}*"), *(self.folder.glob(OLD_TABLES) if self.database.exists() else ())]
        return sorted(path.name for path in found)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the write lock. Raises GalleryBusy when another process does for longer than the time-out."""
        lock = filelock.FileLock(self.folder / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=self.lock_timeout, poll_interval=0.02)
        except filelock.Timeout as error:
            raise GalleryBusy(self._busy()) from error
        except OSError as error:
            raise GalleryError(f"The gallery {self.folder} cannot be written: {error.strerror}.") from error
        try:
            with suppress(OSError):
                (self.folder / OWNER).write_text(f"{os.getpid()}\n")
            yield
        finally:
            with suppress(OSError):
                (self.folder / OWNER).unlink()
            lock.release()

    @contextmanager
    def writing(self, encoder: EncoderId | None = None) -> Iterator[Writer]:
        """Hold the write lock; creates the gallery when it is missing and ``encoder`` is given.

        Raises GalleryBusy, GalleryNotFound, GalleryCorrupt, and GalleryError for a gallery of format 1.
        """
        if encoder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise GalleryError(f"The gallery {self.folder} cannot be created: {error.strerror}.") from error
        elif not is_gallery(self.folder):
            self.manifest()
        with self.locked():
            if not self.database.exists():
                if encoder is None or is_gallery(self.folder):
                    self._without_database(vectors=None)
                    raise GalleryError(
                        f"The gallery {self.folder} has format 1, which can be read and not changed. Bring it over "
                        f"with: rasr gallery upgrade {self.folder}"
                    )
                self.create(Manifest(encoder, created=now(), updated=now()), ())
            with self.opened() as connection:
                manifest = read_manifest(connection, self.database)
                if not self._sound:
                    check_pages(connection)
                    self._sound = True
            self.tidy()
            yield Writer(self, manifest)

    def upgrade(self) -> bool:
        """Bring a gallery of format 1 over without embedding anything again; False when it has this format already.

        Every old file and row is checked, and the new database read back, before the old files are removed: killed at
        any moment, it is repeated or already done. Raises what reading and writing a gallery raise.
        """
        self.manifest()
        with self.locked():
            done = self.database.exists()
            if not done:
                old = self.read(vectors=True)
                assert old.vectors is not None  # noqa: S101  (narrowing: asked for)
                rows = [row_of(*pair, self.folder) for pair in zip(old.photos(), old.vectors, strict=True)]
                checksum = sum_checksums(row[1] for row in rows) % 2**64
                self.create(replace(old.manifest, checksum=checksum, version=f"1.{checksum:016x}"), rows)
            self.tidy()
        return not done

    def create(self, manifest: Manifest, rows: Iterable[Row]) -> None:
        """Make the database, read it back and only then give it its name; its caller holds the lock."""
        part = self.folder / PART
        with self.reported():
            for leftover in self.folder.glob(f"{PART}*"):
                leftover.unlink()
            with closing(sqlite3.connect(part, isolation_level=None)) as connection:
                lay_out(connection, manifest, rows)
            if self._load(part, vectors=False).manifest != manifest:
                raise GalleryCorrupt(damaged(part, "is not what was written"))
            part.rename(self.database)
            sync_folder(self.folder)

    def tidy(self) -> None:
        """Remove what belongs to nothing and write the marker, beside a sound database; its caller holds the lock."""
        content = f'{{"format": {FORMAT}, "database": "{DATABASE}"}}\n'.encode()
        marker = self.folder / MARKER
        with self.reported():
            if not marker.exists() or marker.read_bytes() != content:
                write_bytes(content, marker, overwrite=True)
            for name in self.leftovers():
                path = self.folder / name
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Raise GalleryError with one sentence in place of what a failed change raises."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_BUSY:
                raise GalleryBusy(
                    f"The gallery {self.folder} is being read and could not be changed for {self.lock_timeout:g} s. "
                    "Try again."
                ) from error
            if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                raise GalleryCorrupt(damaged(self.database, "cannot be changed", error)) from error
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise GalleryError(
                f"The gallery {self.folder} could not be changed and is as it was before: {reason}. "
                "Check that the disk is writable and has space, then repeat."
            ) from error

    @contextmanager
    def opened(self, database: Path | None = None) -> Iterator[sqlite3.Connection]:
        """A connection within one transaction, for reading; what goes wrong in the block is one sentence, too."""
        database = database or self.database
        with self._reading(database), closing(connect(database, self.lock_timeout)) as connection:
            connection.execute("PRAGMA query_only=ON")
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def _reading(self, database: Path) -> Iterator[None]:
        """Raise GalleryError with one sentence for whatever a database can be found to be."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if code & 0xFF == sqlite3.SQLITE_BUSY:
                raise GalleryBusy(self._busy()) from error
            if code == sqlite3.SQLITE_READONLY_ROLLBACK:
                raise GalleryError(
                    f"The gallery {self.folder} holds an interrupted change, which cannot be undone where nothing can "
                    "be written. Open it once where something can, or copy it there."
                ) from error
            raise GalleryCorrupt(damaged(database, "cannot be read", error)) from error
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            raise GalleryCorrupt(damaged(database, "is damaged", error)) from error

    def _without_database(self, *, vectors: bool | None) -> Table:
        """A gallery of format 1, without its photos when ``vectors`` is None; raises why there is none."""
        if is_outdated(self.folder):
            from rasr.gallery.lance_format import read_format_1

            return read_format_1(self.folder, vectors=vectors)
        if (self.folder / MARKER).exists():
            raise GalleryCorrupt(damaged(self.database, "is missing"))
        raise GalleryNotFound(
            f"There is no gallery at {self.folder}. Create one with: rasr gallery add {self.folder} FOLDER_OF_PHOTOS"
        )

    def _busy(self) -> str:
        try:
            owner = f"process {int((self.folder / OWNER).read_text())}"
        except (OSError, ValueError):
            owner = "another process"
        return (
            f"The gallery {self.folder} has been locked for writing by {owner} for more than {self.lock_timeout:g} s. "
            "Wait for it to finish, or end it: what it has committed is kept."
        )


class Writer:
    """The holder of the write lock."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest

    def commit(self, add: Sequence[tuple[Photo, NDArray[np.float32]]] = (), remove: Collection[str] = ()) -> Manifest:
        """Remove the photos with the ids in ``remove`` and add photos with their unit vectors, both or neither.

        Raises GalleryError when the disk is full or read-only, and GalleryCorrupt when a photo to be removed is not
        where it was; the gallery is then as it was.
        """
        rows = [row_of(photo, vector, self.store.folder) for photo, vector in add]
        found = self.find(remove).values()
        old = self.manifest
        total = old.checksum + sum_checksums(row[1] for row in rows) - sum_checksums(row[2] for row in found)
        number, checksum = int(old.version.partition(".")[0]) + 1, total % 2**64
        manifest = replace(
            old,
            photos=old.photos + len(rows) - len(found),
            checksum=checksum,
            version=f"{number}.{checksum:016x}",
            updated=now(),
        )
        with self.store.reported(), closing(connect(self.store.database, self.store.lock_timeout)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            deleted = connection.executemany("DELETE FROM photos WHERE number = ?", [(row[0],) for row in found])
            if found and deleted.rowcount != len(found):
                raise GalleryCorrupt(damaged(self.store.database, "does not find its rows"))
            connection.executemany("INSERT INTO photos VALUES (NULL, ?, ?, ?)", rows)
            write_manifest(connection, manifest)
            connection.execute("COMMIT")
        self.manifest = manifest
        return manifest

    def vectors(self, photos: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Stored vectors, by photo id."""
        return {photo: np.frombuffer(row[3], "<f4") for photo, row in self.find(photos).items()}

    def find(self, photos: Collection[str]) -> dict[str, tuple[int, bytes, bytes, bytes]]:
        """Number, entry, checksum and vector of photos, by id. Raises GalleryCorrupt when one is not there."""
        found: dict[str, tuple[int, bytes, bytes, bytes]] = {}
        if photos:
            with self.store.opened() as connection:
                for block in read_blocks(connection, self.manifest):
                    for row, entry in zip(zip(*block, strict=True), parse_entries(block[1]), strict=True):
                        if entry[0] in photos:
                            found[entry[0]] = row
                if len(found) != len({*photos}) or any(checksum_row(r[1], r[3]) != r[2] for r in found.values()):
                    raise ValueError("it no longer holds the photos that it held")
        return found


def _matrix(photos: int, dimension: int) -> NDArray[np.float32]:
    """Room for (N, D) vectors: memory, or a temporary file where they are many. Raises OSError without space."""
    if photos <= IN_MEMORY:
        return np.empty((photos, dimension), np.float32)
    home().mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=home()) as file:
        os.posix_fallocate(file.fileno(), 0, photos * dimension * 4)
        return np.memmap(file, np.float32, "r+", shape=(photos, dimension))
