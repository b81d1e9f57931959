"""Files on their way into a gallery, and what it holds as one adding process sees it: new, known, moved or doubled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.errors import GalleryNotFound
from rasr.gallery.database import EncoderId, Manifest
from rasr.gallery.photo import NEAR_BITS, Photo, hamming
from rasr.gallery.protocol import Store
from rasr.images import walk_pictures
from rasr.object_path import expand, place


@dataclass(frozen=True, slots=True)
class IngestFile:
    """A file to add."""

    path: Path
    """Absolute and resolved."""
    category: str = ""
    tags: tuple[str, ...] = ()
    explicit: bool = False
    """The category was given by the user, not derived from the folder: it also replaces the one of a known photo."""

    @classmethod
    def find(
        cls, paths: str | Path | Iterable[str | Path], category: str | None = None, tags: Iterable[str] = ()
    ) -> list[IngestFile]:
        """Find the files among and below ``paths``, each once; raises PictureError when there are none.

        The category of a file found in a folder is the sub-folder it is in, unless ``category`` is given.
        """
        given = [paths] if isinstance(paths, str | Path) else paths
        unique_tags = tuple(dict.fromkeys(tags))
        files: dict[Path, IngestFile] = {}
        for folder, path in walk_pictures([expand(place(path)) for path in given]):
            below = "." if folder is None else path.parent.relative_to(folder).as_posix()
            derived = "" if below == "." else below
            label = derived if category is None else category
            file = cls(path.resolve(), label, unique_tags, explicit=category is not None)
            files.setdefault(file.path, file)
        return list(files.values())


@dataclass(slots=True)
class AddReport:
    """What adding did with each file."""

    added: int = 0
    unchanged: int = 0
    updated: list[Path] = field(default_factory=list)
    """Known files with new content, or with another category or tag than before."""
    moved: list[tuple[Path, Path]] = field(default_factory=list)
    """(new path, old path): recognised by content, not embedded again."""
    duplicates: list[tuple[Path, Path]] = field(default_factory=list)
    """(file left out, photo with the same bytes)."""
    near_duplicates: list[tuple[Path, Path]] = field(default_factory=list)
    """(photo added and flagged, earlier photo that shows the same picture)."""
    failed: list[tuple[Path, str]] = field(default_factory=list)
    """(file skipped, reason)."""
    removed: int = 0
    """Photos dropped because their file is gone; only when a plain folder is searched."""
    embedded: int = 0
    seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Photos decoded and embedded per second; 0 when nothing had to be."""
        return self.embedded / self.seconds if self.embedded and self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``rasr gallery add --json`` prints them."""
        return {
            "added": self.added,
            "unchanged": self.unchanged,
            "updated": [str(path) for path in self.updated],
            "moved": [{"path": str(new), "from": str(old)} for new, old in self.moved],
            "duplicates": [{"path": str(path), "of": str(of)} for path, of in self.duplicates],
            "near_duplicates": [{"path": str(path), "of": str(of)} for path, of in self.near_duplicates],
            "failed": [{"path": str(path), "error": reason} for path, reason in self.failed],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
        }


@dataclass(slots=True, eq=False)
class Prepared:
    """A file on its way into the gallery: read, then embedded, then staged."""

    file: IngestFile
    photo: Photo | None = None
    """Without size in pixels and perceptual hash unless the picture was decoded."""
    tensor: NDArray[np.float32] | None = None
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
        self._manifest: Manifest | None = None
        self._by_id: dict[str, Photo] = {}
        self._by_path: dict[Path, Photo] = {}
        self._order: list[str] = []
        self._phashes = np.zeros(0, np.uint64)
        try:
            self._load()
        except GalleryNotFound:
            return

    @property
    def staged(self) -> int:
        """Number of files waiting for the next commit."""
        return len(self._staged)

    def knows(self, photo: str) -> bool:
        """True when a photo with this content hash is in the gallery; safe to ask from any thread."""
        return photo in self._by_id

    @property
    def contents(self) -> list[str]:
        """Content hashes of the gallery's photos."""
        return list(self._by_id)

    def unchanged(self, file: IngestFile) -> Prepared | None:
        """Answer for a known file whose size and modification time are as recorded, else None."""
        photo = self._by_path.get(file.path)
        return Prepared(file, photo, unchanged=True) if photo is not None and photo.is_current(file.path) else None

    def stage(self, items: Sequence[Prepared]) -> None:
        """Queue embedded, known or failed files for the next commit."""
        for item in items:
            if item.error:
                self._report.failed.append((item.file.path, item.error))
            elif item.unchanged and item.photo is not None and _relabelled(item.photo, item.file) == item.photo:
                self._report.unchanged += 1
            else:
                self._staged.append(item)

    def commit(self) -> list[IngestFile]:
        """Write what is staged, in one step.

        Returns the files that turned out to need an embedding they do not have.
        """
        items, self._staged = self._staged, []
        if not items:
            return []
        with self._store.writing(self._encoder) as writer:
            if self._manifest is None or writer.manifest.version != self._manifest.version:
                self._load()
            missing, changes = self._decide(items)
            if changes.added or changes.changed or changes.dropped:
                vectors = writer.vectors(changes.changed)
                kept = [(photo, vectors[photo.id]) for photo in changes.changed.values()]
                writer.commit([*changes.added, *kept], {*changes.dropped, *changes.changed})
            self._manifest = writer.manifest
        return missing

    def _decide(self, items: Sequence[Prepared]) -> tuple[list[IngestFile], _Changes]:
        changes, missing = _Changes(), []
        arriving = {item.photo.id for item in items if item.photo is not None}
        for item in items:
            photo = item.photo
            if photo is None:
                continue
            path = item.file.path
            known = self._by_id.get(photo.id)
            previous = self._by_path.get(path)
            if known is None and item.vector is None:
                missing.append(item.file)
                continue
            if known is not None and known.path != path and known.path.exists():
                same = self._by_path.get(known.path)
                if same is not None and same.id == known.id and known.is_current():
                    self._report.duplicates.append((path, known.path))
                    if previous is not None and previous.id != photo.id:  # what lay here before it became a copy
                        self._forget(previous, changes, keep=previous.id in arriving)
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
        photo = item.photo
        similar = self._near_duplicate(photo.phash)
        if similar is not None:
            photo = replace(photo, near_duplicate_of=similar.id)
            self._report.near_duplicates.append((photo.path, similar.path))
        if replaced:
            self._report.updated.append(photo.path)
        else:
            self._report.added += 1
        changes.added.append((photo, item.vector))
        self._remember(photo)

    def _change(self, known: Photo, item: Prepared, changes: _Changes) -> None:
        assert item.photo is not None  # noqa: S101
        photo = _relabelled(known, item.file)
        relabelled = photo != known
        moved = known.path != item.file.path
        photo = replace(photo, path=item.file.path, size=item.photo.size, mtime_ns=item.photo.mtime_ns)
        if moved and (item.file.category or item.file.explicit):
            photo = replace(photo, category=item.file.category)
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
        changes.changed.pop(photo.id, None)
        stored = all(added.id != photo.id for added, _ in changes.added)
        changes.added[:] = [entry for entry in changes.added if entry[0].id != photo.id]
        if stored:
            changes.dropped.add(photo.id)

    def _near_duplicate(self, phash: int) -> Photo | None:
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

    def _load(self) -> None:
        table = self._store.read(vectors=False)
        photos = table.photos()
        self._by_path = {photo.path: photo for photo in photos}
        self._phashes = np.array([photo.phash for photo in photos], np.uint64)
        self._by_id = {photo.id: photo for photo in photos}
        self._order = list(self._by_id)
        self._manifest = table.manifest


@dataclass(slots=True)
class _Changes:
    added: list[tuple[Photo, NDArray[np.float32]]] = field(default_factory=list)
    changed: dict[str, Photo] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)


def _relabelled(photo: Photo, file: IngestFile) -> Photo:
    tags = (*photo.tags, *(tag for tag in file.tags if tag not in photo.tags))
    return replace(photo, tags=tags, category=file.category if file.explicit else photo.category)
