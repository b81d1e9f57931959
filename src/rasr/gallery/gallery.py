"""The gallery as users hold it: open or create, add, search, look after."""

import shutil
import tempfile
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import xxhash
from numpy.typing import NDArray

from rasr.cluster import ClusterOptions
from rasr.errors import EncoderMismatch, GalleryNotFound, PictureError, UsageError
from rasr.files import cache_dir
from rasr.gallery.catalogue import AddReport, IngestFile
from rasr.gallery.database import Manifest
from rasr.gallery.encoders import DEFAULT_ENCODER, ENCODERS, Encoder, load_encoder
from rasr.gallery.indexed_search import IndexedSnapshot
from rasr.gallery.ingest import ingest
from rasr.gallery.patterns import matching
from rasr.gallery.photo import Photo, Reference
from rasr.gallery.protocol import Store
from rasr.gallery.search import CleanQuery, Filters, Query, Queryable, Snapshot
from rasr.gallery.store import LocalStore
from rasr.gallery.stores import is_gallery, open_store
from rasr.gallery.verify import GalleryInfo, VerifyReport
from rasr.images import Picture
from rasr.object_path import expand
from rasr.progress import Progress

# Plain ``list`` means the method inside the class below.
References = list[Reference]
Photos = list[Photo]
Queries = list[Query]


class Gallery:
    """Good photos, searchable by likeness.

    ``path`` is the gallery's folder, ``":memory:"`` for one that lasts as long as this object, or the address of a
    Lance table as a str: ``"s3://…"``, ``"gs://…"``, ``"az://…"`` or ``"lance://FOLDER"`` (docs/scale.md). Nothing is
    read or created until it is needed.

    ``encoder`` is a name (see :data:`rasr.gallery.encoders.ENCODERS`) or an object; None means the one an existing
    gallery was built with, or the default for a new one.

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
        temporary = tempfile.mkdtemp(prefix="rasr-gallery-") if str(path) == ":memory:" else ""
        self._cleanup = weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True) if temporary else None
        self._store: Store = open_store(temporary or path, lock_timeout=lock_timeout)
        self._wanted = encoder
        self._device = device
        self._encoder: Encoder | None = None
        self._loaded: Snapshot | IndexedSnapshot | None = None
        self.refreshed: AddReport | None = None
        """What bringing a plain folder's index up to date did; None for a gallery proper."""

    def __repr__(self) -> str:
        return f"Gallery({self.address!r})"

    @property
    def address(self) -> str:
        """The gallery's folder in full, or its address."""
        return self._store.address

    @property
    def path(self) -> Path:
        """The gallery's folder; of one on object storage, the folder of this machine's cache for what is made of it."""
        if self._store.folder is not None:
            return self._store.folder
        kept = cache_dir("galleries") / xxhash.xxh3_128_hexdigest(self.address.encode())
        with suppress(OSError):
            kept.mkdir(parents=True, exist_ok=True)
        return kept

    def close(self) -> None:
        """Delete the files of a ``":memory:"`` gallery; others need no closing."""
        if self._cleanup is not None:
            self._cleanup()

    def __len__(self) -> int:
        """Number of photos. Raises GalleryNotFound and GalleryCorrupt."""
        return self._store.manifest().photos

    @property
    def encoder(self) -> Encoder:
        """The gallery's encoder. Raises EncoderMismatch when another one was asked for than it was built with."""
        built = self._existing()
        if self._encoder is None:
            wanted = self._wanted or (built.encoder.name if built else DEFAULT_ENCODER)
            try:
                self._encoder = load_encoder(wanted, device=self._device) if isinstance(wanted, str) else wanted
            except UsageError as error:
                if built is None or self._wanted is not None:
                    raise
                raise EncoderMismatch(
                    f"The gallery {self.address} was built with the encoder {wanted}, which this version of rasr does "
                    f"not have (it has {', '.join(ENCODERS)}). Build another with: "
                    f"rasr gallery add {self.address}-{DEFAULT_ENCODER} FOLDER_OF_PHOTOS"
                ) from error
        if built is not None:
            self._check_encoder(self._encoder, built)
        return self._encoder

    def add(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        category: str | None = None,
        tags: Collection[str] = (),
        workers: int | None = None,
        cluster: ClusterOptions | None = None,
        progress: Progress | None = None,
    ) -> AddReport:
        """Add files, and folders with everything below them; creates the gallery when it is missing.

        A photo's category is its folder relative to the folder given here ("mammal/zebra"), unless ``category`` says
        otherwise. Known files are skipped, moved ones recognised by content, unreadable ones named in the report.
        ``workers`` decoding threads run beside the encoder (default: one per core). On a ``cluster`` photos are read
        and embedded by its machines, each of which must have them where this one has them; the gallery is written by
        this process alone, and is the same. Raises PictureError when a path does not exist or nothing is found,
        EncoderMismatch, GalleryBusy, GalleryCorrupt, GalleryError (disk full), ClusterError, and UsageError.
        """
        embedding = None
        if cluster is not None and cluster.cluster is not None:
            if workers is not None or not isinstance(self._wanted, str | None):
                raise UsageError(
                    "On a cluster the encoder is one by name, and no --workers are needed: leave them out."
                )
            from rasr.gallery.embedding import embedding_on

            embedding = embedding_on(cluster, self.encoder, device=self._device)
        files = IngestFile.find(paths, category, tags)
        return ingest(self._store, self.encoder, files, workers=workers, embedding=embedding, progress=progress)

    def refresh(self, folder: str | Path, *, workers: int | None = None, progress: Progress | None = None) -> AddReport:
        """Make the gallery hold exactly the photos below ``folder``: :meth:`add` it and forget what is gone.

        The report is kept as ``refreshed``. Raises PictureError when there is no picture, and what :meth:`add` raises.
        """
        files = IngestFile.find(folder)
        report = ingest(self._store, self.encoder, files, workers=workers, progress=progress)
        current = {file.path for file in files}
        gone = [photo.path for photo in self.list() if photo.path not in current] if self._existing() else []
        if gone:
            report.removed = len(self.remove(gone))
        self.refreshed = report
        return report

    @property
    def manifest(self) -> Manifest:
        """The current state in few words: encoder, number of photos, version. Raises as :meth:`__len__` does."""
        return self._store.manifest()

    def find(self, ids: Collection[str]) -> Photos:
        """The photos with these content hashes, in no particular order, of those that are there."""
        return self._store.photos({*ids})

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
        snapshot = self._snapshot()
        prepared = self.prepare(queries, guard=filters.get("exclude_near_duplicates", False))
        return [
            [
                _reference(photo, score, rank)
                for rank, (photo, (_, score)) in enumerate(zip(snapshot.photos(hits), hits, strict=True), 1)
            ]
            for hits in snapshot.search(prepared, k, filters)
        ]

    def prepare(self, queries: Sequence[Queryable], *, clean: CleanQuery | None = None, guard: bool = False) -> Queries:
        """Embed queries in batches, once for several searches, pictures after ``clean``.

        ``guard`` also computes what ``exclude_near_duplicates`` compares.
        """
        dimension = self._store.manifest().encoder.dimension
        return Query.prepare(queries, self.encoder, dimension, clean=clean, guard=guard)

    def scores(self, query: Queryable) -> NDArray[np.float32]:
        """(N,) cosine similarities of all photos with ``query``, in no particular order: the gallery's own spread."""
        return self._snapshot().scores(self.prepare([query])[0])

    def embedding_of(self, picture: Picture | str | Path) -> NDArray[np.float32]:
        """Unit embedding (D,) of a picture or picture file by this gallery's encoder."""
        return self.prepare([picture])[0].embedding

    def list(self, *, category: str | Collection[str] | None = None) -> Photos:
        """All photos, sorted by path."""
        photos = self._store.read(vectors=False).photos()
        return sorted(matching(photos, category=category), key=lambda photo: str(photo.path))

    def info(self) -> GalleryInfo:
        """Counts, encoder, size and version."""
        return GalleryInfo.of(self._store)

    def embeddings(self) -> tuple[Photos, NDArray[np.float32]]:
        """All photos, in no particular order, and their unit embeddings, (N, D), not to be changed."""
        table = self._snapshot().table
        assert table.vectors is not None  # noqa: S101  (narrowing: snapshots have them)
        return table.photos(), table.vectors

    @property
    def calibration(self) -> str:
        """What :func:`rasr.gallery.calibrate` found out for this gallery and its encoder, as JSON; empty before."""
        return self._store.manifest().calibration

    @calibration.setter
    def calibration(self, found: str) -> None:
        with self._store.writing() as writer:
            writer.calibrate(found)

    def verify(self, *, deep: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Check the database, every row and every photo's presence; ``deep`` also reads and hashes the photos."""
        return VerifyReport.of(self._store, deep=deep, progress=progress)

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
            photos = self._store.read(vectors=False).photos()
            chosen = matching(photos, patterns or None, category=category, missing=missing)
            if chosen:
                gone = {photo.id for photo in chosen}
                # The flags of those that were near-duplicates of one of them go, too.
                freed = [one for one in photos if one.near_duplicate_of in gone and one.id not in gone]
                vectors = writer.vectors([photo.id for photo in freed])
                kept = [(replace(photo, near_duplicate_of=""), vectors[photo.id]) for photo in freed]
                writer.commit(kept, {*gone, *vectors})
        return sorted(chosen, key=lambda photo: str(photo.path))

    def upgrade(self) -> bool:
        """Bring a gallery of an older format to the current one, embedding nothing again; False when it has that.

        Raises GalleryBusy, GalleryCorrupt, and GalleryError where a package is needed that is not installed.
        """
        return self._store.upgrade()

    def index(self) -> Mapping[str, int]:
        """Build an approximate index of a Lance table of over 100 000 photos; gives its parameters, {} without one.

        Search by it gives exact scores and nearly always the nearest photos. Files of many commits are merged first.
        What is added later is compared one by one until this or :meth:`optimize` is called. Raises GalleryError.
        """
        built = self._store.build_index()
        self._loaded = None
        return built

    def prewarm(self) -> str:
        """Load what a search needs, so that the first one does not wait; says in words what. Raises GalleryError."""
        return self._snapshot().prewarm() if self._existing() else "none yet"

    def optimize(self) -> Mapping[str, int]:
        """Merge a Lance table's small files and drop its states older than seven days; gives counts before and after.

        Never done by itself: it takes memory in proportion to the table. A gallery in a folder needs none and gives {}.
        """
        return self._store.tidy()

    def _snapshot(self) -> Snapshot | IndexedSnapshot:
        loaded = self._loaded
        if loaded is None or loaded.manifest.version != self._store.manifest().version:
            nearest = self._store.nearest()
            loaded = self._read() if nearest is None else IndexedSnapshot(nearest, self._store.folder, self._read)
            self._loaded = loaded
        return loaded

    def _read(self) -> Snapshot:
        return Snapshot(self._store.read(vectors=True))

    def _existing(self) -> Manifest | None:
        try:
            return self._store.manifest()
        except GalleryNotFound:
            return None

    def _check_encoder(self, encoder: Encoder, manifest: Manifest) -> None:
        built = manifest.encoder
        if encoder.fingerprint == built.fingerprint:
            return
        asked = f"{encoder.name} {encoder.version}"
        same = " of another make (other weights or preprocessing)" if asked == f"{built.name} {built.version}" else ""
        raise EncoderMismatch(
            f"The gallery {self.address} was built with the encoder {built.name} {built.version} and cannot be used "
            f"with {asked}{same}. Leave the encoder out to use the gallery as it is, or build another with: "
            f"rasr gallery add {self.address}-{encoder.name} FOLDER_OF_PHOTOS --encoder {encoder.name}"
        )


def open_gallery_or_folder(
    path: str | Path,
    *,
    encoder: str | Encoder | None = None,
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """The gallery at ``path``, or one made of the photos below it.

    A plain folder is indexed into ``cache_dir("galleries")`` on first use, one index per folder and encoder; each
    later use adds what is new or changed and forgets what is gone; ``gallery.refreshed`` reports it. Nothing is written
    into the folder itself. Raises GalleryNotFound when there is neither, and what :class:`Gallery` raises.
    """
    index, chosen = _index(path, encoder, device)
    if chosen is None:
        return Gallery(path, encoder=encoder, device=device)
    if LocalStore(index).outdated:
        shutil.rmtree(index)
    gallery = Gallery(index, encoder=chosen)
    try:
        gallery.refresh(expand(Path(path)), workers=workers, progress=progress)
    except PictureError as error:
        raise GalleryNotFound(f"There is no gallery and no picture in {path}.") from error
    return gallery


def gallery_address(path: str | Path) -> str:
    """The address of the gallery that :func:`open_gallery_or_folder` gives for ``path``; nothing is read or indexed.

    Raises GalleryNotFound as that does.
    """
    index, chosen = _index(path, None, "cpu")
    return Gallery(path if chosen is None else index).address


def _index(path: str | Path, encoder: str | Encoder | None, device: str) -> tuple[Path, Encoder | None]:
    """The place of a plain folder's index, and the encoder that makes it; None for a gallery proper."""
    folder = expand(Path(path))
    if "://" in str(path) or is_gallery(path):
        return folder, None
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise GalleryNotFound(f"{path} {what}; give a gallery, or a folder of photos.")
    wanted = DEFAULT_ENCODER if encoder is None else encoder
    chosen = load_encoder(wanted, device=device) if isinstance(wanted, str) else wanted
    key = xxhash.xxh3_128_hexdigest(f"{folder.resolve()}\n{chosen.fingerprint}".encode("utf-8", "surrogateescape"))
    return cache_dir("galleries") / key, chosen


def _reference(photo: Photo, score: float, rank: int) -> Reference:
    fault = photo.fault()
    return Reference(
        photo.path,
        score,
        rank,
        photo.category,
        photo.tags,
        accepted=not fault,
        why=fault,
        id=photo.id,
        usable=not fault,
    )
