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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from rasr.errors import GalleryBusy, GalleryError, GalleryNotFound
from rasr.files import sync_folder, write_bytes
from rasr.gallery.database import Database, EncoderId, Manifest, Table, now
from rasr.gallery.photo import Photo
from rasr.gallery.protocol import Nearest, Usage, Writer

PART = f"{Database.NAME}.part"
"""A database in the making; it is renamed once it is whole."""
MARKER = "gallery.json"
"""Tells the format to versions that know older ones only, and that a database was here should it be lost."""
LOCK = "gallery.lock"
OWNER = "gallery.owner"
OLD_TABLES = "photos-*.lance"
"""Format 1: LanceDB tables beside a ``gallery.json`` that named their files (``lance_format.py``)."""

SETTLED_NS = 50_000_000
"""Age of a time stamp from which on the next commit is certain to change it: file systems count in ticks."""


class LocalStore:
    """Reads and writes the gallery in ``folder``."""

    commit_photos = 256
    commit_seconds = 3.0

    def __init__(self, folder: Path, *, lock_timeout: float = 60.0) -> None:
        self.folder = folder
        self.database, self.marker = folder / Database.NAME, folder / MARKER
        self.lock_timeout = lock_timeout
        self._known: tuple[tuple[int, ...], Manifest] | None = None
        self._sound = False

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.folder)

    def exists(self) -> bool:
        """True when the folder holds a gallery, whole or damaged."""
        return self.database.exists() or self.marker.exists() or self.outdated

    @property
    def outdated(self) -> bool:
        """True for a gallery of format 1, whole or damaged."""
        if self.database.exists():
            return False
        with suppress(OSError):
            if self.marker.read_bytes().startswith(b'{\n"format": 1,'):
                return True
        return any(self.folder.glob(OLD_TABLES))

    def manifest(self) -> Manifest:
        """The gallery's current state. Raises GalleryNotFound, GalleryCorrupt and GalleryBusy."""
        if not self.database.exists():
            return self._without_database(photos=False).manifest
        with self.explained():
            status = self.database.stat()
        identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._known is not None and self._known[0] == identity:
            return self._known[1]
        with self.opened() as database:
            manifest = database.manifest()
        if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
            self._known = identity, manifest
        return manifest

    def read(self, *, vectors: bool) -> Table:
        """Read all photos and compare each row, and the set of rows, with its checksum.

        Waits for a writer no longer than a commit takes. Raises GalleryNotFound, GalleryCorrupt and GalleryBusy.
        """
        if not self.database.exists():
            return self._without_database(photos=True)
        with self.opened() as database:
            return database.read(vectors=vectors)

    def fields(self) -> tuple[Manifest, Iterator[list[Any]]]:
        """The current state, and the fields of each photo; all rows are read and compared with their checksums."""
        table = self.read(vectors=False)
        return table.manifest, iter(table.parse())

    def photos(self, ids: Collection[str]) -> list[Photo]:
        """The photos with these ids, of those that are there; all are read."""
        return [photo for photo in self.read(vectors=False).photos() if photo.id in ids]

    def inspect(self) -> Iterator[tuple[Photo | None, str]]:
        """Every row that can be read: its photo, if it holds one, and what is wrong with it, or an empty string."""
        if self.database.exists():
            with self.opened() as database:
                yield from database.inspect()
        else:
            yield from ((photo, "") for photo in self.read(vectors=True).photos())

    def usage(self) -> Usage:
        """The database's size, and the names of what belongs to nothing."""
        files = self._files()
        return Usage(len(files), sum(path.stat().st_size for path in files), self.leftovers())

    def probe(self) -> None:
        """Nothing: the lock keeps writers apart."""

    def nearest(self) -> Nearest | None:
        """None: search is exact."""
        return None

    def build_index(self) -> Mapping[str, int]:
        """Nothing: search is exact."""
        self.manifest()
        return {}

    def tidy(self) -> Mapping[str, int]:
        """Nothing: there is one file, and room that removed photos leave is used again."""
        self.manifest()
        return {}

    def _files(self) -> list[Path]:
        """The files that hold the gallery: one, or those of format 1."""
        old = [path for table in self.folder.glob(OLD_TABLES) for path in table.rglob("*") if path.is_file()]
        return [path for path in ([self.marker, *old] if self.outdated else [self.database]) if path.is_file()]

    def leftovers(self) -> list[str]:
        """Names in the folder that belong to nothing: a database that was never finished, a format left behind."""
        found = [*self.folder.glob(f"{PART}*"), *(self.folder.glob(OLD_TABLES) if self.database.exists() else ())]
        return sorted(path.name for path in found)

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
        elif not self.exists():
            self.manifest()
        with self._locked():
            if self.outdated:
                self.manifest()
                raise GalleryError(
                    f"The gallery {self.folder} has format 1, which can be read and not changed. Bring it over with: "
                    f"rasr gallery upgrade {self.folder}"
                )
            if not self.database.exists():
                if encoder is None or self.marker.exists():
                    self.manifest()
                else:
                    self.create(Manifest(encoder, created=now(), updated=now()))
            with self.opened() as database:
                manifest = database.manifest()
                if not self._sound:
                    database.check_pages()
                    self._sound = True
            self._tidy()
            yield LocalWriter(self, manifest)

    def upgrade(self) -> bool:
        """Bring a gallery of format 1 over without embedding anything again; False when it has this format already.

        Every old file and row is checked, and the new database read back, before the old files are removed: killed at
        any moment, it is repeated or already done. Raises what reading and writing a gallery raise.
        """
        self.manifest()
        with self._locked():
            outdated = self.outdated
            if outdated:
                old = self.read(vectors=True)
                assert old.vectors is not None  # noqa: S101  (narrowing: asked for)
                photos = list(zip(old.photos(), old.vectors, strict=True))
                self.create(replace(old.manifest, photos=0, version="0"), photos)
            self._tidy()
        return outdated

    def create(self, manifest: Manifest, photos: Sequence[tuple[Photo, NDArray[np.float32]]] = ()) -> None:
        """Make the database, read it back and only then give it its name; its caller holds the lock."""
        part = self.folder / PART
        with self.explained(part, change=True):
            for leftover in self.folder.glob(f"{PART}*"):
                leftover.unlink()
            made = Database.create(part, manifest, photos)
        with self.opened(part) as database:
            if database.read(vectors=False).manifest != made:
                raise Database.damage(part, "is not what was written")
        with self.explained(part, change=True):
            part.rename(self.database)
            sync_folder(self.folder)

    @contextmanager
    def opened(self, path: Path | None = None, *, change: bool = False) -> Iterator[Database]:
        """The database, or another one at ``path``; whatever goes wrong in the block is one sentence."""
        path = path or self.database
        with self.explained(path, change=change), Database(path, timeout=self.lock_timeout, change=change) as database:
            yield database

    @contextmanager
    def explained(self, path: Path | None = None, *, change: bool = False) -> Iterator[None]:
        """Raise GalleryError with one sentence for whatever a database can be found to be, or a disk do."""
        path = path or self.database
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0)
            if code & 0xFF == sqlite3.SQLITE_BUSY:
                raise GalleryBusy(self._busy(reading=change)) from error
            if code == sqlite3.SQLITE_READONLY_ROLLBACK:
                raise GalleryError(
                    f"The gallery {self.folder} holds an interrupted change, which cannot be undone where nothing can "
                    "be written. Open it once where something can, or copy it there."
                ) from error
            if not change or code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                raise Database.damage(path, "cannot be read", error) from error
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise GalleryError(
                f"The gallery {self.folder} could not be changed and is as it was before: {reason}. "
                "Check that the disk is writable and has space, then repeat."
            ) from error
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            raise Database.damage(path, "is damaged", error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
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

    def _tidy(self) -> None:
        """Write the marker and remove what belongs to nothing, beside a sound database."""
        content = f'{{"format": {Database.FORMAT}, "database": "{Database.NAME}"}}\n'.encode()
        with self.explained(change=True):
            if not self.marker.exists() or self.marker.read_bytes() != content:
                write_bytes(content, self.marker, overwrite=True)
            for name in self.leftovers():
                path = self.folder / name
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _without_database(self, *, photos: bool) -> Table:
        """A gallery of format 1, or its manifest alone; raises why there is none."""
        if self.outdated:
            from rasr.gallery.lance_format import read_format_1

            with self.explained(self.marker):
                return read_format_1(self.folder, photos=photos)
        if self.marker.exists():
            raise Database.damage(self.database, "is missing")
        raise GalleryNotFound(
            f"There is no gallery at {self.folder}. Create one with: rasr gallery add {self.folder} FOLDER_OF_PHOTOS"
        )

    def _busy(self, *, reading: bool = False) -> str:
        if reading:
            return (
                f"The gallery {self.folder} is being read and could not be changed for {self.lock_timeout:g} s. Try "
                "again."
            )
        try:
            owner = f"process {int((self.folder / OWNER).read_text())}"
        except (OSError, ValueError):
            owner = "another process"
        return (
            f"The gallery {self.folder} has been locked for writing by {owner} for more than {self.lock_timeout:g} s. "
            "Wait for it to finish, or end it: what it has committed is kept."
        )


class LocalWriter:
    """The holder of the write lock."""

    def __init__(self, store: LocalStore, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest

    def commit(self, add: Sequence[tuple[Photo, NDArray[np.float32]]] = (), remove: Collection[str] = ()) -> None:
        """Remove the photos with the ids in ``remove`` and add photos with their unit vectors, both or neither.

        Raises GalleryError when the disk is full or read-only, and GalleryCorrupt when a photo to be removed is not
        where it was; the gallery is then as it was.
        """
        with self.store.opened(change=True) as database:
            self.manifest = database.commit(add, remove)

    def calibrate(self, calibration: str) -> None:
        """Keep a calibration. Raises as :meth:`commit` does."""
        with self.store.opened(change=True) as database:
            self.manifest = database.calibrate(calibration)

    def vectors(self, photos: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Stored vectors, by photo id."""
        with self.store.opened() as database:
            return {photo: np.frombuffer(row.vector, "<f4") for photo, row in database.find(photos).items()}
