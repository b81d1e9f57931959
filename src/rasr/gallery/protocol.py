"""What keeps a gallery: the protocol of its stores and of those who change one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rasr.gallery.database import Added, EncoderId, Manifest, Row, Table
from rasr.gallery.photo import Photo


class Writer(Protocol):
    """Who may change a gallery, from one state of it on."""

    manifest: Manifest
    """The state that is known: after a commit, a version that no store gives where others have committed between."""

    def commit(self, add: Added = (), remove: Collection[str] = ()) -> None:
        """Remove the photos with the ids in ``remove`` and add photos with their unit vectors, both or neither.

        A photo in both is replaced. Raises GalleryError when it cannot be done; the gallery is then as it was.
        """

    def calibrate(self, calibration: str) -> None:
        """Keep a calibration. Raises as :meth:`commit` does."""

    def vectors(self, photos: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Stored vectors, by photo id; all must be there. Raises GalleryCorrupt."""


class Store(Protocol):
    """Where a gallery is kept: a SQLite database in a folder (``store.py``), or a Lance table (``lance_store.py``)."""

    commit_photos: int
    """Photos that make a commit of their own while many are added."""
    commit_seconds: float
    """Age from which on fewer are committed: what a killed run may lose."""

    @property
    def address(self) -> str:
        """How users and messages name the gallery: a folder or an address."""

    @property
    def folder(self) -> Path | None:
        """The gallery's folder on this machine, against which paths inside it are kept; None on object storage."""

    def exists(self) -> bool:
        """True when there is a gallery, whole or damaged."""

    def manifest(self) -> Manifest:
        """The gallery's current state. Raises GalleryNotFound, GalleryCorrupt and GalleryBusy."""

    def read(self, *, vectors: bool) -> Table:
        """Read all photos of one state, each once, and compare each row with its checksum.

        Raises as :meth:`manifest` does.
        """

    def fields(self) -> tuple[Manifest, Iterator[list[Any]]]:
        """One state, and the fields of each of its photos in an entry's order, for counting them.

        Vectors may be left unread; then entries are not compared with their checksums. Raises as :meth:`read` does.
        """

    def photos(self, ids: Collection[str]) -> list[Photo]:
        """The photos with these ids, of those that are there; each row read is compared with its checksum."""

    def writing(self, encoder: EncoderId | None = None) -> AbstractContextManager[Writer]:
        """Be allowed to change the gallery; creates it when it is missing and ``encoder`` is given.

        Raises GalleryBusy, GalleryNotFound, GalleryCorrupt, EncoderMismatch, and GalleryError for what cannot be
        changed.
        """

    def inspect(self) -> Iterator[tuple[Photo | None, str]]:
        """Every row that can be read: its photo, if it holds one, and what is wrong with it, or an empty string.

        Raises GalleryCorrupt for damage beyond one row, after the rows before it.
        """

    def usage(self) -> Usage:
        """What the gallery takes up, what lies beside it, and how much of it an index covers."""

    def probe(self) -> None:
        """Find out whether this storage keeps what several writers commit. Raises StorageRefused, GalleryError."""

    def nearest(self) -> Nearest | None:
        """The current state for looking photos up by an index; None without one: it is read and searched exactly."""

    def build_index(self) -> Mapping[str, int]:
        """Build the index anew, over all photos; gives its parameters, or nothing where none is of use."""

    def upgrade(self) -> bool:
        """Bring a gallery of an older format to the current one; False when it has that."""

    def tidy(self) -> Mapping[str, int]:
        """Merge small files, drop old states and doubled rows where there can be any; gives counts by what was done."""


class Nearest(Protocol):
    """One state of a gallery, whose photos are looked up by an index."""

    manifest: Manifest

    def find(self, query: NDArray[np.float32], count: int) -> list[tuple[str, Row]]:
        """Ids and checked rows of about the ``count`` photos nearest to a unit vector (D,). Raises GalleryError."""

    def sample(self) -> NDArray[np.float32]:
        """(n, D) vectors of photos from all over the gallery. Raises GalleryError."""

    def prewarm(self) -> None:
        """Load the index into memory."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Files of a gallery."""

    files: int
    bytes: int
    leftovers: list[str] = field(default_factory=list)
    """Names of what belongs to nothing: of a writer that died, or a format left behind."""
    indexed: int = 0
    """Photos that an approximate index covers; 0 without one."""
    unindexed: int = 0
    """Photos added since, which are compared one by one; 0 without an index."""
