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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
from numpy.typing import NDArray

from rasr.errors import GalleryBusy, GalleryCorrupt, GalleryError, GalleryNotFound
from rasr.gallery import index
from rasr.gallery.photo import METADATA, schema
from rasr.gallery.pointer import (
    NAME,
    EncoderId,
    Pointer,
    checksum_file,
    now,
    read_pointer,
    sync_folder,
    write_pointer,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Store", "Writer"]

LOCK = "gallery.lock"
OWNER = "gallery.owner"
HINT = "latest_version_hint.json"
GRACE_S = 600.0
COMPACT_COMMITS = 64
"""Compact when a table has grown by so many commits: every file is opened once by a reader."""


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

    def open_table(self, pointer: Pointer) -> Any:  # noqa: ANN401  (lancedb is untyped)
        """The LanceDB table at ``pointer``'s version, or None before the first photo. Raises GalleryCorrupt."""
        if pointer.generation == 0:
            return None
        lancedb = _import_lancedb()
        try:
            # A connection of its own: lancedb caches what it has read by file name.
            table = lancedb.connect(self.folder).open_table(pointer.table)
            table.checkout(pointer.version)
        except (RuntimeError, ValueError, OSError) as error:
            raise GalleryCorrupt(_damaged(self.folder / f"{pointer.table}.lance", "cannot be opened", error)) from error
        return table

    def check_files(self, pointer: Pointer, *, full: bool, progress: Callable[[int], None] | None = None) -> None:
        """Compare every named file with its recorded size and, when ``full``, checksum.

        A file that passed before and has the same identity and time stamps since is not read again. Raises
        GalleryCorrupt for the first file that fails.
        """
        for name in pointer.files:
            problem = self.problem_of(pointer, name, full=full, progress=progress)
            if problem:
                raise GalleryCorrupt(_damaged(self.folder / name, problem))

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
        found = [name for folder in self.folder.glob("photos-*.lance") for name in _files(self.folder, folder)]
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
                for name in set(_files(self.folder, folder)) - set(pointer.files):
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
            raise GalleryCorrupt(_damaged(self.folder / f"{pointer.table}.lance", "cannot be read", error)) from error
        if rows.num_rows != pointer.photos:
            what = f"holds {rows.num_rows} photos instead of {pointer.photos}"
            raise GalleryCorrupt(_damaged(self.folder / f"{pointer.table}.lance", what))
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


class Writer:
    """The holder of the write lock."""

    def __init__(self, store: Store, pointer: Pointer) -> None:
        self.store = store
        self.pointer = pointer

    def rows(self) -> pa.Table:
        """Metadata of all photos."""
        return self.store.read(vectors=False, checked=False)[1]

    def vectors(self, photos: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Stored vectors, by photo id."""
        if not photos:
            return {}
        rows = self.store.open_table(self.pointer).search().where(_among(photos)).select(["id", "vector"]).to_arrow()
        vectors = rows.column("vector").combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
        return dict(zip(rows.column("id").to_pylist(), vectors, strict=True))

    def commit(self, add: pa.Table | None = None, remove: Collection[str] = ()) -> Pointer:
        """Remove the photos with the ids in ``remove`` and add the rows ``add``, both or neither.

        Raises GalleryError when the disk is full or read-only; the gallery is then as it was.
        """
        pointer = self.pointer
        with _reported(self.store.folder):
            table = self.store.open_table(pointer)
            if table is None:
                generation = pointer.generation + 1
                pointer = pointer.moved_on(generation=generation)
                table = _create(self.store.folder, pointer.table, schema(pointer.encoder.dimension).empty_table())
            else:
                table.checkout_latest()
            if remove:
                table.delete(_among(remove))
            if add is not None and add.num_rows:
                table.add(add)
            self._publish(pointer, table, indexed=pointer.indexed)
        commits = sum(name.endswith(".manifest") for name in self.pointer.files)
        needs_index = not self.pointer.indexed and self.pointer.photos >= index.INDEX_FROM
        if needs_index or commits > COMPACT_COMMITS + self.pointer.photos // 250:
            self.compact()
        return self.pointer

    def compact(self, *, force_index: bool = False) -> Pointer:
        """Rewrite all photos into a fresh table of one file, leaving out what was removed.

        A large gallery (:data:`rasr.gallery.index.INDEX_FROM`), or any with ``force_index``, also gets an index.
        """
        with _reported(self.store.folder):
            old = self.store.open_table(self.pointer)
            if old is None:
                return self.pointer
            pointer = self.pointer.moved_on(generation=self.pointer.generation + 1, files={})
            table = _create(self.store.folder, pointer.table, old.search().to_batches(batch_size=8192))
            large = force_index or pointer.photos >= index.INDEX_FROM
            indexed = index.build_index(table, pointer.encoder.dimension) if large else 0
            self._publish(pointer, table, indexed=indexed)
            os.utime(old_folder := self.store.folder / f"{old.name}.lance")
            sync_folder(old_folder)
        return self.pointer

    def _publish(self, pointer: Pointer, table: Any, *, indexed: int) -> None:  # noqa: ANN401
        folder = self.store.folder
        table_folder = folder / f"{pointer.table}.lance"
        # Lance rewrites this file in place, falls back to listing without it, and it cannot be checksummed.
        (table_folder / "_versions" / HINT).unlink(missing_ok=True)
        files = dict(pointer.files)
        touched = set[Path]()
        for name in _files(folder, table_folder):
            if name not in files:
                files[name] = checksum_file(folder / name, sync=True)
                touched.update(parent for parent in (folder / name).parents if parent.is_relative_to(table_folder))
        for changed in touched:
            sync_folder(changed)
        sync_folder(folder)
        version, photos = int(table.version), int(table.count_rows())
        pointer = pointer.moved_on(files=files, version=version, photos=photos, indexed=indexed)
        write_pointer(folder, pointer)
        self.pointer = pointer


def _create(folder: Path, name: str, data: Any) -> Any:  # noqa: ANN401
    return _import_lancedb().connect(folder).create_table(name, data=data)


def _files(root: Path, folder: Path) -> list[str]:
    base = str(root)
    return [
        os.path.relpath(Path(where, name), base)
        for where, _, names in os.walk(folder)
        for name in names
        if name != HINT
    ]


def _among(photos: Collection[str]) -> str:
    """SQL: the row's id is one of ``photos``, which are hexadecimal."""
    return "id IN (" + ", ".join(f"'{int(photo, 16):032x}'" for photo in photos) + ")"


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GalleryError(
            f"The gallery {folder} could not be changed and is as it was before: {reason}. "
            "Check that the disk is writable and has space, then repeat."
        ) from error


def _damaged(path: Path, what: str, error: BaseException | None = None) -> str:
    detail = f" ({str(error).splitlines()[0]})" if error is not None and str(error) else ""
    return (
        f"Gallery file {path} {what}{detail}; searching could give wrong answers. See what is damaged with: "
        f"rasr gallery verify {path.parents[0] if path.suffix == '.lance' else _gallery_of(path)}. Photos are not "
        "stored in a gallery: delete it and rebuild it with 'rasr gallery add'."
    )


def _gallery_of(path: Path) -> Path:
    return next((p.parent for p in path.parents if p.suffix == ".lance"), path.parent)


def _import_lancedb() -> Any:  # noqa: ANN401
    # Read once, when lancedb is first imported; its warnings speak of tables that are about to be created.
    os.environ.setdefault("LANCEDB_LOG", "error")
    import lancedb

    return lancedb
