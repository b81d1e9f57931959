"""Changing a gallery: what the holder of its write lock does."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasr.errors import GalleryError
from rasr.gallery import index
from rasr.gallery.photo import schema
from rasr.gallery.pointer import Pointer, checksum_file, sync_folder, write_pointer
from rasr.gallery.table import HINT, create_table, table_files

if TYPE_CHECKING:
    import pyarrow as pa

    from rasr.gallery.store import Store

__all__ = ["COMPACT_COMMITS", "Writer"]

_log = logging.getLogger(__name__)

COMPACT_COMMITS = 64
"""Compact when a table has grown by so many commits: every file is opened once by a reader."""


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
                table = create_table(self.store.folder, pointer.table, schema(pointer.encoder.dimension).empty_table())
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
            try:
                self.compact()
            except GalleryError as error:  # what was asked for is done; a rewrite needs the table's size once more
                shutil.rmtree(self.store.folder / f"{self._next().table}.lance", ignore_errors=True)
                _log.warning("%s", error)
        return self.pointer

    def compact(self, *, force_index: bool = False) -> Pointer:
        """Rewrite all photos into a fresh table of one file, leaving out what was removed.

        A large gallery (:data:`rasr.gallery.index.INDEX_FROM`), or any with ``force_index``, also gets an index.
        """
        with _reported(self.store.folder):
            old = self.store.open_table(self.pointer)
            if old is None:
                return self.pointer
            pointer = self._next()
            table = create_table(self.store.folder, pointer.table, old.search().to_batches(batch_size=8192))
            large = force_index or pointer.photos >= index.INDEX_FROM
            indexed = index.build_index(table, pointer.encoder.dimension) if large else 0
            self._publish(pointer, table, indexed=indexed)
            os.utime(old_folder := self.store.folder / f"{old.name}.lance")
            sync_folder(old_folder)
        return self.pointer

    def _next(self) -> Pointer:
        return self.pointer.moved_on(generation=self.pointer.generation + 1, files={})

    def _publish(self, pointer: Pointer, table: Any, *, indexed: int) -> None:
        folder = self.store.folder
        table_folder = folder / f"{pointer.table}.lance"
        (table_folder / "_versions" / HINT).unlink(missing_ok=True)
        files = dict(pointer.files)
        touched = set[Path]()
        for name in table_files(folder, table_folder):
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
