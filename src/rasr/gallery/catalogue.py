"""What the gallery holds, as one adding process sees it, and the changes it has ready to commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasr.errors import GalleryNotFound
from rasr.gallery.duplicates import NEAR_BITS, hamming
from rasr.gallery.photo import Photo, from_row, to_table
from rasr.gallery.pointer import EncoderId, Pointer
from rasr.gallery.report import AddReport
from rasr.gallery.sources import Source
from rasr.gallery.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Catalogue", "Facts", "Prepared"]


class Facts(NamedTuple):
    """What decoding tells about a picture."""

    width: int
    height: int
    phash: int


@dataclass(slots=True, eq=False)
class Prepared:
    """A file on its way into the gallery: read, then embedded, then staged."""

    source: Source
    photo: Photo | None = None
    tensor: NDArray[np.float32] | None = None
    facts: Facts | None = None
    """Known once the picture is decoded."""
    vector: NDArray[np.float32] | None = None
    error: str = ""
    unchanged: bool = False


class Catalogue:
    """The gallery's photos by path and by content.

    Built without the lock, brought up to date under it at every commit: what is decided there (new, moved, duplicate)
    is decided on what the gallery holds at that moment, whoever added it.
    """

    def __init__(self, store: Store, encoder: EncoderId, report: AddReport) -> None:
        self._store = store
        self._encoder = encoder
        self._report = report
        self._staged: list[Prepared] = []
        self._pointer: Pointer | None = None
        self._by_id: dict[str, Photo] = {}
        self._by_path: dict[Path, Photo] = {}
        self._order: list[str] = []
        self._phashes = np.zeros(0, np.uint64)
        try:
            pointer, rows = store.read(vectors=False)
        except GalleryNotFound:
            return
        self._pointer = pointer
        self._load(rows)

    @property
    def staged(self) -> int:
        """Number of files waiting for the next commit."""
        return len(self._staged)

    def knows(self, photo: str) -> bool:
        """True when a photo with this content hash is in the gallery; safe to ask from any thread."""
        return photo in self._by_id

    def unchanged(self, source: Source) -> Prepared | None:
        """Answer for a known file whose size and modification time are as recorded, else None."""
        photo = self._by_path.get(source.path)
        if photo is None:
            return None
        try:
            status = source.path.stat()
        except OSError:
            return None
        if (status.st_size, status.st_mtime_ns) != (photo.size, photo.mtime_ns):
            return None
        return Prepared(source, photo, unchanged=True)

    def stage(self, items: Sequence[Prepared]) -> None:
        """Queue embedded, known or failed files for the next commit."""
        for item in items:
            if item.error:
                self._report.failed.append((item.source.path, item.error))
            elif item.unchanged and item.photo is not None and _relabelled(item.photo, item.source) == item.photo:
                self._report.unchanged += 1
            else:
                self._staged.append(item)

    def commit(self) -> list[Source]:
        """Write what is staged, in one step.

        Returns the files that turned out to need an embedding they do not have.
        """
        items, self._staged = self._staged, []
        if not items:
            return []
        with self._store.writing(self._encoder) as writer:
            if writer.pointer != self._pointer:
                self._load(writer.rows() if writer.pointer.generation else None)
            missing, changes = self._decide(items)
            if changes.added or changes.changed or changes.dropped:
                new = [photo for photo, _ in changes.added]
                vectors = np.stack([vector for _, vector in changes.added]) if new else self._no_vectors()
                kept = writer.vectors(list(changes.changed))
                rows = to_table(
                    [*new, *changes.changed.values()],
                    np.concatenate([vectors, *(kept[photo][None] for photo in changes.changed)]),
                    self._store.root,
                )
                writer.commit(rows, {*changes.dropped, *changes.changed})
            self._pointer = writer.pointer
        return missing

    def _decide(self, items: Sequence[Prepared]) -> tuple[list[Source], _Changes]:
        changes, missing = _Changes(), []
        arriving = {item.photo.id for item in items if item.photo is not None}
        for item in items:
            photo = item.photo
            if photo is None:
                continue
            path = item.source.path
            known = self._by_id.get(photo.id)
            previous = self._by_path.get(path)
            if known is None and item.vector is None:
                missing.append(item.source)
                continue
            if known is not None and known.path != path and known.path.exists():
                same = self._by_path.get(known.path)
                if same is not None and same.id == known.id and _is_current(known):
                    self._report.duplicates.append((path, known.path))
                    continue
            if previous is not None and previous.id != photo.id:
                self._forget(previous, changes, keep=previous.id in arriving)
            if known is None:
                self._add(item, changes, replaced=previous is not None)
            else:
                self._change(known, item, changes)
        return missing, changes

    def _add(self, item: Prepared, changes: _Changes, *, replaced: bool) -> None:
        assert item.photo is not None  # noqa: S101  (narrowing: decided by the caller)
        assert item.vector is not None  # noqa: S101
        assert item.facts is not None  # noqa: S101
        width, height, phash = item.facts
        photo = replace(item.photo, width=width, height=height, phash=phash)
        twin = self._twin(photo.phash)
        if twin is not None:
            photo = replace(photo, near_duplicate_of=twin.id)
            self._report.near_duplicates.append((photo.path, twin.path))
        if replaced:
            self._report.updated.append(photo.path)
        else:
            self._report.added += 1
        changes.added.append((photo, item.vector))
        self._remember(photo)

    def _change(self, known: Photo, item: Prepared, changes: _Changes) -> None:
        assert item.photo is not None  # noqa: S101
        photo = _relabelled(known, item.source)
        relabelled = photo != known
        moved = known.path != item.source.path
        photo = replace(photo, path=item.source.path, size=item.photo.size, mtime_ns=item.photo.mtime_ns)
        if moved and (item.source.category or item.source.explicit):
            photo = replace(photo, category=item.source.category)
        if moved:
            self._report.moved.append((photo.path, known.path))
            if self._by_path.get(known.path) == known:
                del self._by_path[known.path]
        elif relabelled:
            self._report.updated.append(photo.path)
        else:
            self._report.unchanged += 1
        self._remember(photo)
        for position, (added, vector) in enumerate(changes.added):
            if added.id == photo.id:
                changes.added[position] = photo, vector
                return
        if photo != known:
            changes.changed[photo.id] = photo

    def _forget(self, photo: Photo, changes: _Changes, *, keep: bool) -> None:
        """The file at ``photo.path`` has other content now."""
        if self._by_path.get(photo.path) == photo:
            del self._by_path[photo.path]
        if keep:  # its old content has just been seen elsewhere: a swap, not a loss
            return
        self._by_id.pop(photo.id, None)
        changes.dropped.add(photo.id)
        changes.changed.pop(photo.id, None)
        changes.added[:] = [entry for entry in changes.added if entry[0].id != photo.id]

    def _twin(self, phash: int) -> Photo | None:
        count = len(self._order)
        near = np.flatnonzero(hamming(self._phashes[:count], phash) <= NEAR_BITS)
        for position in near:
            photo = self._by_id.get(self._order[position])
            if photo is not None:
                return photo
        return None

    def _remember(self, photo: Photo) -> None:
        if photo.id not in self._by_id:
            count = len(self._order)
            if count == len(self._phashes):
                self._phashes = np.concatenate([self._phashes, np.zeros(max(256, count), np.uint64)])
            self._phashes[count] = photo.phash
            self._order.append(photo.id)
        self._by_id[photo.id] = photo
        self._by_path[photo.path] = photo

    def _load(self, rows: pa.Table | None) -> None:
        photos = [from_row(row, self._store.root) for row in rows.to_pylist()] if rows is not None else []
        by_id = {photo.id: photo for photo in photos}
        self._by_path = {photo.path: photo for photo in photos}
        self._order = list(by_id)
        self._phashes = np.array([photo.phash for photo in photos], np.uint64)
        self._by_id = by_id

    def _no_vectors(self) -> NDArray[np.float32]:
        return np.zeros((0, self._encoder.dimension), np.float32)


@dataclass(slots=True)
class _Changes:
    added: list[tuple[Photo, NDArray[np.float32]]] = field(default_factory=list)
    changed: dict[str, Photo] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)


def _relabelled(photo: Photo, source: Source) -> Photo:
    tags = (*photo.tags, *(tag for tag in source.tags if tag not in photo.tags))
    return replace(photo, tags=tags, category=source.category if source.explicit else photo.category)


def _is_current(photo: Photo) -> bool:
    """True unless the file at its path has visibly changed since it was added."""
    try:
        status = photo.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (photo.size, photo.mtime_ns)
