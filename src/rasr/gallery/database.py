"""The database inside a gallery: its layout, opening it without trusting it, and checking its rows.

SQLite notices a torn page, not a flipped bit. So every row carries a checksum over its entry and its vector, the
manifest carries one over the set of rows, and whoever reads, reads all of them and compares. Neither the order of rows
nor an index is relied on: rows out of order are found by reading them all, and missed by a change that looks for one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from operator import lt
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from rasr.errors import GalleryCorrupt
from rasr.gallery.photo import Photo, encode_entry, parse_entries, photo_from

__all__ = [
    "DATABASE",
    "EncoderId",
    "Manifest",
    "Row",
    "Table",
    "are_unit",
    "check_pages",
    "checksum_row",
    "connect",
    "damaged",
    "lay_out",
    "now",
    "read_blocks",
    "read_manifest",
    "row_of",
    "sum_checksums",
    "write_manifest",
]

DATABASE = "gallery.db"
FORMAT = 2
"""Version of the layout; a reader refuses what is newer than itself."""
APPLICATION = 0x52415352
"""SQLite's application id: ``RASR``."""
SCHEMA = (
    "CREATE TABLE manifest (content TEXT NOT NULL, checksum BLOB NOT NULL)",
    "CREATE TABLE photos (number INTEGER PRIMARY KEY, entry TEXT NOT NULL, checksum BLOB NOT NULL, vector BLOB)",
)
PAGE = 16384
"""Bytes of a page: twelve photos of the default encoder, three of 1 280 dimensions."""
LARGEST = 1 << 20
"""Bytes of the largest value that is read."""

Row = tuple[str, bytes, bytes]
"""Entry (:func:`rasr.gallery.photo.encode_entry`), checksum and vector of a photo as they are stored."""
Block = tuple[tuple[int, ...], tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]]
"""Numbers, entries, checksums and vectors of some rows."""


@dataclass(frozen=True, slots=True)
class EncoderId:
    """Identity of the encoder that made the vectors. Galleries and queries must agree in ``fingerprint``."""

    name: str
    version: str
    dimension: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One state of a gallery, in few words."""

    encoder: EncoderId
    photos: int = 0
    checksum: int = 0
    """Sum of the rows' checksums, modulo 2^64: a row that is lost, doubled or an older one changes it."""
    version: str = "0"
    """Number of commits and checksum: different after every commit."""
    created: str = ""
    updated: str = ""


@dataclass(slots=True, eq=False)
class Table:
    """A gallery as read and checked."""

    folder: Path
    manifest: Manifest
    entries: list[bytes]
    """Of the photos, in no order; see :func:`rasr.gallery.photo.parse_entries`."""
    vectors: NDArray[np.float32] | None
    """(N, D), of length 1 each; None when they were not asked for."""

    def parse(self, rows: Iterable[int] | None = None) -> list[list[Any]]:
        """Fields of the photos in some rows, or in all. Raises GalleryCorrupt for what no writer of ours wrote."""
        try:
            return parse_entries(self.entries if rows is None else [self.entries[row] for row in rows])
        except ValueError as error:
            raise GalleryCorrupt(damaged(self.folder / DATABASE, "has an entry that is damaged", error)) from error

    def photos(self, rows: Iterable[int] | None = None) -> list[Photo]:
        """The photos in some rows, or all. Raises as :meth:`parse` does."""
        return [photo_from(fields, self.folder) for fields in self.parse(rows)]


def now() -> str:
    """The current UTC time, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def connect(database: Path, timeout: float) -> sqlite3.Connection:
    """Open a database that must exist, trusting nothing it brings along; for reading only where its file is."""
    connection = sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None)
    connection.text_factory = bytes
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "synchronous=EXTRA"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def lay_out(connection: sqlite3.Connection, manifest: Manifest, rows: Iterable[Row]) -> None:
    """Fill an empty database with the tables, the manifest and its rows, in one transaction."""
    for pragma in (f"page_size={PAGE}", f"application_id={APPLICATION}", f"user_version={FORMAT}"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO manifest VALUES ('', '')")
    write_manifest(connection, manifest)
    connection.executemany("INSERT INTO photos VALUES (NULL, ?, ?, ?)", rows)
    connection.execute("COMMIT")


def write_manifest(connection: sqlite3.Connection, manifest: Manifest) -> None:
    """Replace the manifest, within the caller's transaction."""
    content = json.dumps(asdict(manifest), ensure_ascii=False)
    connection.execute(
        "UPDATE manifest SET content = ?, checksum = ?", (content, xxhash.xxh3_64_digest(content.encode()))
    )


def read_manifest(connection: sqlite3.Connection, database: Path) -> Manifest:
    """Read the manifest, once the database has been found to be one of ours.

    Raises ValueError for what is damaged or foreign, GalleryCorrupt for a newer format, and what sqlite3 raises.
    """

    def value(pragma: str) -> Any:
        return connection.execute(f"PRAGMA {pragma}").fetchone()[0]

    if value("application_id") != APPLICATION or value("journal_mode") != b"delete":
        raise ValueError("it is not a gallery's database")
    if (version := value("user_version")) > FORMAT:
        raise GalleryCorrupt(
            f"{database} has format {version}, and this version of rasr reads up to {FORMAT}. Upgrade rasr."
        )
    if connection.execute("SELECT sql FROM sqlite_schema").fetchmany(3) != [(sql.encode(),) for sql in SCHEMA]:
        raise ValueError("its tables are not a gallery's")
    rows = connection.execute("SELECT content, checksum FROM manifest").fetchmany(2)
    if len(rows) != 1 or type(rows[0][0]) is not bytes or xxhash.xxh3_64_digest(rows[0][0]) != rows[0][1]:
        raise ValueError("its manifest does not match its checksum")
    values = json.loads(rows[0][0])
    manifest = Manifest(**{**values, "encoder": EncoderId(**values["encoder"])})
    numbers = (manifest.photos, manifest.checksum, manifest.encoder.dimension)
    if {*map(type, numbers)} != {int} or min(*numbers, numbers[2] - 1) < 0:
        raise ValueError("its manifest counts what cannot be counted")
    return manifest


def check_pages(connection: sqlite3.Connection) -> None:
    """Let SQLite check how its pages hang together, used and free ones. Raises ValueError."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != b"ok":
        raise ValueError(found.decode(errors="replace"))


def read_blocks(connection: sqlite3.Connection, manifest: Manifest) -> Iterator[Block]:
    """Read the rows in blocks, checked for type, order and length, not for their checksums. Raises as before."""
    cursor = connection.execute("SELECT number, entry, checksum, vector FROM photos")
    cursor.arraysize = 256
    last, count, sizes = -(2**63), 0, {manifest.encoder.dimension * 4}
    while rows := cursor.fetchmany():
        numbers, entries, checksums, vectors = zip(*rows, strict=True)
        if not all(map(lt, (last, *numbers), numbers)) or {*map(type, entries + checksums + vectors)} != {bytes}:
            raise ValueError("its rows are out of order or of other types")
        if {*map(len, vectors)} != sizes:
            raise ValueError(f"a vector does not have {manifest.encoder.dimension} numbers")
        last, count = numbers[-1], count + len(rows)
        if count > manifest.photos:
            raise ValueError(f"it holds more photos than the {manifest.photos} that its manifest counts")
        yield numbers, entries, checksums, vectors


def are_unit(vectors: NDArray[np.float32]) -> bool:
    """True when all rows of (N, D) have length 1: none is zero, infinite or not a number."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((np.abs(np.einsum("ij,ij->i", vectors, vectors) - 1) < 2e-3).all())


def row_of(photo: Photo, vector: NDArray[np.float32], root: Path) -> Row:
    """A photo of the gallery in ``root`` and its unit vector (D,) as they are stored."""
    entry, stored = encode_entry(photo, root), np.ascontiguousarray(vector, "<f4").tobytes()
    return entry, checksum_row(entry.encode(), stored), stored


def checksum_row(entry: bytes, vector: bytes) -> bytes:
    """xxh3-64 of an entry and its vector, 8 bytes."""
    return xxhash.xxh3_64_digest(entry + vector)


def sum_checksums(checksums: Iterable[bytes]) -> int:
    """Sum of some rows' checksums, of which a manifest keeps the lowest 64 bits."""
    return sum(int.from_bytes(checksum, "big") for checksum in checksums)


def damaged(path: Path, what: str, error: BaseException | None = None) -> str:
    """The message for a gallery file that fails a check."""
    detail = f" ({str(error).splitlines()[0]})" if error is not None and str(error) else ""
    return (
        f"Gallery file {path} {what}{detail}; searching could give wrong answers. See what is damaged with: "
        f"rasr gallery verify {path.parent}. Photos are not stored in a gallery: delete it and rebuild it with "
        "'rasr gallery add'."
    )
