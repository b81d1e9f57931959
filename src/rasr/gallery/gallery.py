"""The gallery as users hold it: open or create, add, search, look after."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from rasr.errors import EncoderMismatch, GalleryNotFound, UsageError
from rasr.gallery.encoders import DEFAULT_ENCODER, ENCODERS, Encoder, load_encoder
from rasr.gallery.index import IndexedSnapshot
from rasr.gallery.info import GalleryInfo, summarise
from rasr.gallery.ingest import Progress, ingest
from rasr.gallery.integrity import VerifyReport, verify
from rasr.gallery.photo import Photo, from_row, to_table
from rasr.gallery.pointer import Pointer
from rasr.gallery.query import Filters, Query, Queryable, prepare
from rasr.gallery.reference import Reference
from rasr.gallery.removal import matching
from rasr.gallery.report import AddReport
from rasr.gallery.snapshot import Snapshot
from rasr.gallery.sources import sources_of
from rasr.gallery.store import Store
from rasr.gallery.writer import Writer
from rasr.images import Picture

__all__ = ["Gallery"]

# Plain ``list`` means the method inside the class below.
References = list[Reference]
Photos = list[Photo]
Queries = list[Query]


class Gallery:
    """Good photos, searchable by likeness.

    ``path`` is the gallery's folder, or ``":memory:"`` for one that lasts as long as this object. Nothing is read or
    created until it is needed. ``encoder`` is a name (see :data:`rasr.gallery.encoders.ENCODERS`) or an object; None
    means the one an existing gallery was built with, or the default for a new one.

    One object may be used from several threads.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        encoder: str | Encoder | None = None,
        device: str = "cpu",
        lock_timeout: float = 60.0,
    ) -> None:
        if "://" in str(path):
            raise UsageError(
                f"{path}: a gallery is a folder; object stores are not supported (docs/gallery.md says why)."
            )
        temporary = str(path) == ":memory:"
        self.path = Path(tempfile.mkdtemp(prefix="rasr-gallery-") if temporary else path).expanduser().resolve()
        self._cleanup = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True) if temporary else None
        self._wanted = encoder
        self._device = device
        self._encoder: Encoder | None = None
        self._store = Store(self.path, lock_timeout=lock_timeout)
        self._loaded: Snapshot | None = None
        self.refreshed: AddReport | None = None
        """What bringing a plain folder's index up to date did; None for a gallery proper."""

    def __repr__(self) -> str:
        return f"Gallery({str(self.path)!r})"

    def close(self) -> None:
        """Delete the files of a ``":memory:"`` gallery; others need no closing."""
        if self._cleanup is not None:
            self._cleanup()

    def __len__(self) -> int:
        """Number of photos. Raises GalleryNotFound and GalleryCorrupt."""
        return self._store.pointer().photos

    @property
    def encoder(self) -> Encoder:
        """The gallery's encoder. Raises EncoderMismatch when another one was asked for than it was built with."""
        pointer = self._existing()
        if self._encoder is None:
            wanted = self._wanted
            if wanted is None:
                wanted = DEFAULT_ENCODER if pointer is None else pointer.encoder.name
                if pointer is not None and wanted not in ENCODERS:
                    raise EncoderMismatch(
                        f"The gallery {self.path} was built with the encoder {wanted}, which this version of rasr does "
                        f"not have (it has {', '.join(ENCODERS)}). Build another with: "
                        f"rasr gallery add {self.path}-{DEFAULT_ENCODER} FOLDER_OF_PHOTOS"
                    )
            self._encoder = load_encoder(wanted, device=self._device) if isinstance(wanted, str) else wanted
        if pointer is not None:
            self._check_encoder(self._encoder, pointer)
        return self._encoder

    def add(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        category: str | None = None,
        tags: Collection[str] = (),
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> AddReport:
        """Add files, and folders with everything below them; creates the gallery when it is missing.

        A photo's category is its folder relative to the folder given here ("mammal/zebra"), unless ``category`` says
        otherwise. Known files are skipped, moved ones recognised by content, unreadable ones named in the report.
        ``workers`` decoding threads run beside the encoder (default: one per core). Raises PictureError when a path
        does not exist or nothing is found, EncoderMismatch, GalleryBusy, GalleryCorrupt and GalleryError (disk full).
        """
        sources = sources_of(paths, category, tags)
        return ingest(self._store, self.encoder, sources, workers=workers, progress=progress)

    def refresh(self, folder: str | Path, *, workers: int | None = None, progress: Progress | None = None) -> AddReport:
        """Make the gallery hold exactly the photos below ``folder``: :meth:`add` it and forget what is gone.

        The report is kept as ``refreshed``. Raises PictureError when there is no picture, and what :meth:`add` raises.
        """
        sources = sources_of(folder)
        report = ingest(self._store, self.encoder, sources, workers=workers, progress=progress)
        current = {source.path for source in sources}
        gone = [photo.path for photo in self.list() if photo.path not in current] if self._existing() else []
        if gone:
            report.removed = len(self.remove(gone))
        self.refreshed = report
        return report

    def search(self, query: Queryable, k: int = 5, **filters: Unpack[Filters]) -> References:
        """Find the ``k`` photos most similar to a picture, a picture file or a unit embedding (D,), best first.

        ``category`` (a name or several) includes its sub-categories, ``tags`` must all be present, ``exclude`` names
        paths or content hashes, ``min_score`` leaves out what is less similar. ``exclude_near_duplicates`` is the leak
        guard: photos that show the query's own picture are left out. Raises GalleryNotFound, GalleryCorrupt,
        EncoderMismatch, PictureError and UsageError.
        """
        return self.search_many([query], k, **filters)[0]

    def search_many(self, queries: Sequence[Queryable], k: int = 5, **filters: Unpack[Filters]) -> Sequence[References]:
        """:meth:`search` for several queries, embedded and scored in batches."""
        if k < 1:
            raise UsageError(f"k is the number of photos wanted and must be at least 1, not {k}.")
        snapshot, guard = self._snapshot(), filters.get("exclude_near_duplicates", False)
        mask = snapshot.mask(filters.get("category"), filters.get("tags"), filters.get("exclude", ()))
        answers = [
            snapshot.search(query, k, mask, min_score=filters.get("min_score"), guard=guard)
            for query in self.prepare(queries, guard=guard)
        ]
        return [
            [_reference(snapshot.photo(row), score, rank) for rank, (row, score) in enumerate(hits, 1)]
            for hits in answers
        ]

    def prepare(self, queries: Sequence[Queryable], *, guard: bool = False) -> Queries:
        """Embed queries in batches, once for several searches; ``guard``: also for ``exclude_near_duplicates``."""
        return prepare(queries, self.encoder, self._store.pointer().encoder.dimension, guard=guard)

    def scores(self, query: Queryable) -> NDArray[np.float32]:
        """(N,) cosine similarities of all photos with ``query``, in no particular order: the gallery's own spread."""
        return self._snapshot().scores(self.prepare([query])[0].embedding)

    def embedding_of(self, picture: Picture | str | Path) -> NDArray[np.float32]:
        """Unit embedding (D,) of a picture or picture file by this gallery's encoder."""
        return self.prepare([picture])[0].embedding

    def list(self, *, category: str | Collection[str] | None = None) -> Photos:
        """All photos, sorted by path."""
        rows = self._store.read(vectors=False)[1]
        photos = [from_row(row, self._store.root) for row in rows.to_pylist()]
        return sorted(matching(photos, category=category), key=lambda photo: str(photo.path))

    def info(self) -> GalleryInfo:
        """Counts, encoder, size and version."""
        return summarise(self.path, *self._store.read(vectors=False, checked=False))

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Check every file, every row and every photo's presence; ``deep`` also reads and hashes the photos."""
        return verify(self._store, deep=deep, progress=progress)

    def remove(
        self,
        patterns: Iterable[str | Path] = (),
        *,
        category: str | Collection[str] | None = None,
        missing: bool = False,
    ) -> Photos:
        """Forget photos; their files are not touched. Returns the photos removed.

        A photo is removed when it fits any of ``patterns`` (a file, a folder, a glob over the whole path, a content
        hash or its first 8 or more digits) and, if given, ``category``. With ``missing`` only photos whose file is
        gone. Raises UsageError when nothing is asked for.
        """
        patterns = list(patterns)
        if not patterns and category is None and not missing:
            raise UsageError("Say what to remove: paths, globs, hashes, a category, or missing files.")
        with self._store.writing() as writer:
            photos = [from_row(row, self._store.root) for row in writer.rows().to_pylist()]
            chosen = matching(photos, patterns or None, category=category, missing=missing)
            if chosen:
                _remove(writer, photos, {photo.id for photo in chosen})
        return sorted(chosen, key=lambda photo: str(photo.path))

    def _snapshot(self) -> Snapshot:
        pointer = self._store.pointer()
        loaded = self._loaded
        if loaded is None or loaded.pointer != pointer:
            exact = not pointer.indexed
            pointer, rows = self._store.read(vectors=exact)
            if exact:
                loaded = Snapshot(pointer, rows, self._store.root)
            else:
                loaded = IndexedSnapshot(pointer, rows, self._store.root, self._store.open_table(pointer))
            self._loaded = loaded
        return loaded

    def _existing(self) -> Pointer | None:
        try:
            return self._store.pointer()
        except GalleryNotFound:
            return None

    def _check_encoder(self, encoder: Encoder, pointer: Pointer) -> None:
        built = pointer.encoder
        if encoder.fingerprint == built.fingerprint:
            return
        asked = f"{encoder.name} {encoder.version}"
        same = " of another make (other weights or preprocessing)" if asked == f"{built.name} {built.version}" else ""
        raise EncoderMismatch(
            f"The gallery {self.path} was built with the encoder {built.name} {built.version} and cannot be used "
            f"with {asked}{same}. Leave the encoder out to use the gallery as it is, or build another with: "
            f"rasr gallery add {self.path}-{encoder.name} FOLDER_OF_PHOTOS --encoder {encoder.name}"
        )


def _remove(writer: Writer, photos: Photos, gone: set[str]) -> None:
    """Drop the photos in ``gone``, and the flags of those that were near-duplicates of one of them."""
    freed = {one.id: replace(one, near_duplicate_of="") for one in photos if one.near_duplicate_of in gone}
    for photo in gone:
        freed.pop(photo, None)
    vectors = writer.vectors(list(freed))
    rows = None
    if freed:
        rows = to_table(list(freed.values()), np.stack([vectors[photo] for photo in freed]), writer.store.root)
    writer.commit(rows, {*gone, *freed})


def _reference(photo: Photo, score: float, rank: int) -> Reference:
    gone = "" if photo.path.is_file() else "The photo's file is missing."
    return Reference(photo.path, score, rank, photo.category, photo.tags, accepted=not gone, why=gone, id=photo.id)
