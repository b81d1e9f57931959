"""A gallery on disk: one folder with a LanceDB table, ``gallery.json`` and a write lock.

A change is made in three steps, under the lock: Lance writes new files and commits; the new files are made durable;
``gallery.json`` is replaced by one that names them. A process that dies before the third step has changed nothing:
readers follow ``gallery.json``, and the next writer deletes what it does not name. Files are never changed or deleted
while they are named, except that a superseded table is removed ten minutes after its successor took over.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from rasr.errors import GalleryBusy, GalleryCorrupt, GalleryError, GalleryNotFound
from rasr.gallery.photo import METADATA, schema
from rasr.gallery.pointer import (
    NAME,
    EncoderId,
    Pointer,
    checksum_file,
    now,
    read_pointer,
    write_pointer,
)
from rasr.gallery.table import damaged, import_lancedb, table_files
from rasr.gallery.writer import Writer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Store"]

LOCK = "gallery.lock"
OWNER = "gallery.owner"
GRACE_S = 600.0


class Store:
    """Reads and writes the gallery in ``folder``."""

    def __init__(self, folder: Path, *, lock_timeout: float = 60.0) -> None:
        self.folder = folder
        self.lock_timeout = lock_timeout
        self._checked: dict[str, tuple[int, int, int, str]] = {}
        self._pointer: tuple[tuple[int, int, int, int], Pointer] | None = None

    @property
    def root(self) -> Path | None:
        """Folder against which stored paths are relative."""
        return self.folder

    def pointer(self) -> Pointer:
        """The current ``gallery.json``. Raises GalleryNotFound or GalleryCorrupt."""
        try:
            status = (self.folder / NAME).stat()
            identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            return read_pointer(self.folder)
        if self._pointer is None or self._pointer[0] != identity:
            self._pointer = identity, read_pointer(self.folder)
        return self._pointer[1]

    def read(self, *, vectors: bool, checked: bool = True) -> tuple[Pointer, pa.Table]:
        """All rows of the current version, once every file has passed its checksum.

        Never waits for a writer. ``checked`` False looks at the files' sizes only. Raises GalleryNotFound or
        GalleryCorrupt.
        """
        failure: GalleryError = GalleryBusy(f"The gallery {self.folder} changes faster than it can be read. Try again.")
        for delay in (0.0, 0.05, 0.1, 0.2, 0.4):
            pointer = self.pointer()
            try:
                self.check_files(pointer, full=checked)
            except GalleryCorrupt:
                if self.pointer() == pointer:
                    raise
                continue  # a writer has moved on and swept meanwhile
            try:
                return pointer, self._rows(pointer, vectors=vectors)
            except GalleryCorrupt as error:
                # The files are sound; Lance may have met what another writer had not finished or was removing.
                failure = error
                time.sleep(delay)
        raise failure

    def open_table(self, pointer: Pointer) -> Any:
        """The LanceDB table at ``pointer``'s version, or None before the first photo. Raises GalleryCorrupt."""
        if pointer.generation == 0:
            return None
        lancedb = import_lancedb()
        try:
            # A connection of its own: lancedb caches what it has read by file name.
            table = lancedb.connect(self.folder).open_table(pointer.table)
            table.checkout(pointer.version)
        except (RuntimeError, ValueError, OSError) as error:
            raise GalleryCorrupt(damaged(self.folder / f"{pointer.table}.lance", "cannot be opened", error)) from error
        return table

    def check_files(self, pointer: Pointer, *, full: bool, progress: Callable[[int], None] | None = None) -> None:
        """Compare every named file with its recorded size and, when ``full``, checksum.

        A file that passed before and has the same identity and time stamps since is not read again. Raises
        GalleryCorrupt for the first file that fails.
        """
        for name in pointer.files:
            problem = self.problem_of(pointer, name, full=full, progress=progress)
            if problem:
                raise GalleryCorrupt(damaged(self.folder / name, problem))

    def problem_of(
        self, pointer: Pointer, name: str, *, full: bool, progress: Callable[[int], None] | None = None
    ) -> str:
        """What is wrong with one named file, or an empty string."""
        size, digest = pointer.files[name]
        path = self.folder / name
        try:
            status = path.stat()
            if status.st_size != size:
                return f"has {status.st_size} bytes instead of {size}"
            identity = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, digest)
            if full and self._checked.get(name) != identity:
                if checksum_file(path, progress=progress) != (size, digest):
                    return "does not match its checksum"
                self._checked[name] = identity
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return ""

    def forget_checks(self) -> None:
        """Read every file again at the next check, whatever its time stamps say."""
        self._checked.clear()
        self._pointer = None

    def leftovers(self, pointer: Pointer) -> list[str]:
        """Files in table folders that ``pointer`` does not name."""
        found = [name for folder in self.folder.glob("photos-*.lance") for name in table_files(self.folder, folder)]
        return sorted(set(found) - set(pointer.files))

    @contextmanager
    def writing(self, encoder: EncoderId | None = None) -> Iterator[Writer]:
        """Hold the write lock; creates the gallery when it is missing and ``encoder`` is given.

        Raises GalleryBusy when another process holds the lock for longer than the time-out, GalleryNotFound and
        GalleryCorrupt.
        """
        if encoder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise GalleryError(f"The gallery {self.folder} cannot be created: {error.strerror}.") from error
        elif not self.folder.is_dir():
            self.pointer()
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
            yield Writer(self, self._pointer_for_writing(encoder))
        finally:
            with suppress(OSError):
                (self.folder / OWNER).unlink()
            lock.release()

    def _pointer_for_writing(self, encoder: EncoderId | None) -> Pointer:
        try:
            pointer = self.pointer()
        except GalleryNotFound:
            if encoder is None:
                raise
            pointer = Pointer(encoder=encoder, created=now(), updated=now())
            write_pointer(self.folder, pointer)
        self.check_files(pointer, full=False)
        self._sweep(pointer)
        return pointer

    def _sweep(self, pointer: Pointer) -> None:
        for folder in self.folder.glob("photos-*.lance"):
            number = int(folder.name[7:13])
            if number == pointer.generation:
                for name in set(table_files(self.folder, folder)) - set(pointer.files):
                    (self.folder / name).unlink(missing_ok=True)
            elif number > pointer.generation or time.time() - folder.stat().st_mtime > GRACE_S:
                shutil.rmtree(folder, ignore_errors=True)

    def _rows(self, pointer: Pointer, *, vectors: bool) -> pa.Table:
        table = self.open_table(pointer)
        if table is None:
            return schema(pointer.encoder.dimension).empty_table()
        try:
            rows = table.to_arrow() if vectors else table.search().select(list(METADATA)).to_arrow()
        except (RuntimeError, ValueError, OSError) as error:
            raise GalleryCorrupt(damaged(self.folder / f"{pointer.table}.lance", "cannot be read", error)) from error
        if rows.num_rows != pointer.photos:
            what = f"holds {rows.num_rows} photos instead of {pointer.photos}"
            raise GalleryCorrupt(damaged(self.folder / f"{pointer.table}.lance", what))
        return rows

    def _busy(self) -> str:
        try:
            owner = f"process {int((self.folder / OWNER).read_text())}"
        except (OSError, ValueError):
            owner = "another process"
        return (
            f"The gallery {self.folder} has been locked for writing by {owner} for more than {self.lock_timeout:g} s. "
            "Wait for it to finish, or end it: what it has committed is kept."
        )
