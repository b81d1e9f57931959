"""The database inside a gallery: its layout, opening it without trusting it, reading, checking and changing it.

SQLite notices a torn page, not a flipped bit. So every row carries a checksum over its entry and its vector, the
manifest carries one over the set of rows, and whoever reads, reads all of them and compares. Neither the order of rows
nor an index is relied on: rows out of order are found by reading them all, and missed by a change that looks for one.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, astuple, dataclass, fields, replace
from datetime import UTC, datetime
from operator import attrgetter, lt
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from rasr.errors import GalleryCorrupt
from rasr.files import check_value, home, parse_json, parse_object, whole_number
from rasr.gallery.photo import Photo
from rasr.object_path import place
from rasr.objects import is_address

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
IN_MEMORY = 250_000
"""Photos up to which vectors are held in memory (1.3 GB at 1 280 dimensions). Those of more are mapped from a temporary
file below :func:`rasr.files.home`, so that search stays exact."""
TYPES = (str, str, int, int, int, int, int, str, list, str, str)
"""Of an entry's fields, which are those of :class:`Photo`."""

Added = Sequence[tuple[Photo, NDArray[np.float32]]]
"""Photos and their unit vectors (D,)."""


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
    calibration: str = ""
    """What `rasr gallery calibrate` found out, as JSON; empty before it ran."""

    def changed(self, added: Sequence[Row], removed: Collection[Row]) -> Manifest:
        """The manifest after rows were added and removed."""
        checksum = (self.checksum + _total(added) - _total(removed)) % 2**64
        version = f"{int(self.version.partition('.')[0]) + 1}.{checksum:016x}"
        photos = self.photos + len(added) - len(removed)
        return replace(self, photos=photos, checksum=checksum, version=version, updated=now())


@dataclass(slots=True, eq=False)
class Table:
    """A gallery as read and checked."""

    folder: Path | None
    """The gallery's folder, against which paths inside it are kept; None on object storage."""
    manifest: Manifest
    entries: list[bytes]
    """Of the photos, in no order: JSON arrays of their fields."""
    vectors: NDArray[np.float32] | None
    """(N, D), of length 1 each; None when they were not asked for."""
    address: str = ""
    """How messages name the gallery; empty for its folder."""

    @classmethod
    def of(cls, folder: Path, manifest: Manifest, photos: Added) -> Table:
        """A table of photos that come from elsewhere."""
        rows = [Row.of(*pair, folder) for pair in photos]
        vectors = np.frombuffer(b"".join(row.vector for row in rows), "<f4")
        return cls(
            folder, manifest, [row.entry for row in rows], vectors.reshape(len(rows), manifest.encoder.dimension)
        )

    def parse(self, rows: Iterable[int] | None = None) -> list[list[Any]]:
        """Fields of the photos in some rows, or in all. Raises GalleryCorrupt for what no writer of ours wrote."""
        try:
            return parse_entries(self.entries if rows is None else [self.entries[row] for row in rows])
        except ValueError as error:
            file = self.address if self.folder is None else self.folder / Database.NAME
            raise Database.damage(file, "has a damaged entry", error, gallery=self.address) from error

    def photos(self, rows: Iterable[int] | None = None) -> list[Photo]:
        """The photos in some rows, or all. Raises as :meth:`parse` does."""
        return [_photo(values, self.folder) for values in self.parse(rows)]


class Row(NamedTuple):
    """A photo as it is stored; ``number`` is None until it is."""

    number: int | None
    entry: bytes
    checksum: bytes
    vector: bytes

    @classmethod
    def of(cls, photo: Photo, vector: NDArray[np.float32], root: Path | None) -> Row:
        """The row of a photo. A file inside ``root`` is stored by relative path: both can be moved together."""
        inside = root is not None and photo.path.is_relative_to(root)
        path = photo.path.relative_to(root).as_posix() if root is not None and inside else str(photo.path)
        values = [photo.id, path, *_values(photo)[2:]]
        entry = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
        stored = np.ascontiguousarray(vector, "<f4").tobytes()
        return cls(None, entry, _checksum(entry, stored), stored)

    def is_sound(self) -> bool:
        """True when entry and vector match their checksum."""
        return _checksum(self.entry, self.vector) == self.checksum

    def photo(self, root: Path | None) -> Photo:
        """The photo, whose relative path lies in ``root``. Raises ValueError for what :meth:`of` does not write."""
        return _photo(parse_entries([self.entry])[0], root)


class Database:
    """A connection within one transaction, which ends with the block that it opens.

    ``path`` must exist. The methods raise ValueError, TypeError or KeyError for what is damaged or foreign,
    GalleryCorrupt for a newer format, and what sqlite3 raises; ``LocalStore.opened`` makes one sentence of each.
    """

    NAME = "gallery.db"
    FORMAT = 2
    """Version of the layout; a reader refuses what is newer than itself."""

    def __init__(self, path: Path, *, timeout: float = 60.0, change: bool = False) -> None:
        self.path = path
        self._connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None)
        self._connection.text_factory = bytes
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "synchronous=EXTRA"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(f"PRAGMA query_only={'OFF' if change else 'ON'}")

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @staticmethod
    def damage(path: Path | str, what: str, error: BaseException | None = None, *, gallery: str = "") -> GalleryCorrupt:
        """The error for a file of ``gallery`` (default: the file's folder) that fails a check."""
        detail = f" ({str(error).splitlines()[0]})" if error is not None and str(error) else ""
        return GalleryCorrupt(
            f"Gallery file {path} {what}{detail}; searching could give wrong answers. See what is damaged with: "
            f"rasr gallery verify {gallery or Path(path).parent}. Photos are not stored in a gallery: delete it and "
            "rebuild it with 'rasr gallery add'."
        )

    @staticmethod
    def create(path: Path, manifest: Manifest, photos: Added = ()) -> Manifest:
        """Make a database with photos, and give back its manifest. Paths are relative to its folder."""
        rows = [Row.of(*pair, path.parent) for pair in photos]
        manifest = manifest.changed(rows, ()) if rows else manifest
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for pragma in (f"page_size={PAGE}", f"application_id={APPLICATION}", f"user_version={Database.FORMAT}"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN")
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO manifest VALUES ('', '')")
            _write(connection, manifest, rows)
        return manifest

    def manifest(self) -> Manifest:
        """Read the manifest, once the database has been found to be one of ours."""
        self._connection.execute("BEGIN") if not self._connection.in_transaction else None
        if self._pragma("application_id") != APPLICATION or self._pragma("journal_mode") != b"delete":
            raise ValueError("it is not a gallery's database")
        if (version := self._pragma("user_version")) > self.FORMAT:
            raise GalleryCorrupt(
                f"{self.path} has format {version}, and this version of rasr reads up to {self.FORMAT}. Upgrade rasr."
            )
        schema = self._connection.execute("SELECT sql FROM sqlite_schema").fetchmany(len(SCHEMA) + 1)
        if schema != [(statement.encode(),) for statement in SCHEMA]:
            raise ValueError("its tables are not a gallery's")
        rows = self._connection.execute("SELECT content, checksum FROM manifest").fetchmany(2)
        if len(rows) != 1 or type(rows[0][0]) is not bytes or xxhash.xxh3_64_digest(rows[0][0]) != rows[0][1]:
            raise ValueError("its manifest does not match its checksum")
        values = parse_object(rows[0][0])
        manifest = Manifest(**{**values, "encoder": EncoderId(**values["encoder"])})
        texts = (manifest.version, manifest.created, manifest.updated, *astuple(manifest.encoder)[:2])
        texts += (manifest.calibration,)
        if {*map(type, (*texts, manifest.encoder.fingerprint))} != {str}:
            raise ValueError("its manifest has fields of other types")
        if whole_number(manifest.version.partition(".")[0]) is None:
            raise ValueError("its manifest counts no commits")
        numbers = (manifest.photos, manifest.checksum, manifest.encoder.dimension)
        if {*map(type, numbers)} != {int} or min(*numbers, numbers[2] - 1) < 0:
            raise ValueError("its manifest counts what cannot be counted")
        if manifest.photos * manifest.encoder.dimension * 4 > self.path.stat().st_size:
            raise ValueError(f"the {manifest.photos} photos that its manifest counts would not fit into it")
        return manifest

    def read(self, *, vectors: bool) -> Table:
        """Read all photos and compare each row, and the set of rows, with its checksum."""
        manifest, total = self.manifest(), 0
        matrix = empty_matrix(manifest.photos, manifest.encoder.dimension) if vectors else None
        entries: list[bytes] = []
        for _, some, checksums, blobs in self._blocks(manifest):
            if tuple(map(_checksum, some, blobs)) != checksums:
                raise ValueError("an entry does not match its checksum")
            total += sum(int.from_bytes(checksum, "big") for checksum in checksums)
            if matrix is not None:
                block = np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), -1)
                if not are_unit(block):
                    raise ValueError("a vector does not have length 1")
                matrix[len(entries) : len(entries) + len(blobs)] = block
            entries += some
        _check_set(manifest, len(entries), total)
        return Table(self.path.parent, manifest, entries, matrix)

    def inspect(self) -> Iterator[tuple[Photo | None, str]]:
        """Every row that can be read: its photo, if it holds one, and what is wrong with it, or an empty string."""
        manifest, total, seen = self.manifest(), 0, dict[str, Path]()
        self.check_pages()
        sound = True
        for block in self._blocks(manifest):
            for row in map(Row._make, zip(*block, strict=True)):
                total += int.from_bytes(row.checksum, "big")
                photo, what = None, ""
                try:
                    photo = row.photo(self.path.parent)
                except ValueError as error:
                    what = f"row {row.number} holds no photo: {error}"
                if not row.is_sound():
                    what = "the gallery's entry does not match its checksum"
                elif not are_unit(np.frombuffer(row.vector, "<f4")[None]):
                    what = "its vector does not have length 1"
                elif photo is not None and photo.id in seen:
                    what = f"stored twice, also as {seen[photo.id]}"
                elif photo is not None:
                    seen[photo.id] = photo.path
                sound = sound and not what
                yield photo, what
        if sound:
            _check_set(manifest, len(seen), total)

    def check_pages(self) -> None:
        """Let SQLite check how its pages hang together, used and free ones."""
        if (found := self._pragma("quick_check(1)")) != b"ok":
            raise ValueError(found.decode(errors="replace"))

    def find(self, photos: Collection[str]) -> dict[str, Row]:
        """Rows of photos, by id; all must be there."""
        found: dict[str, Row] = {}
        for block in self._blocks(self.manifest()) if photos else ():
            for row, values in zip(zip(*block, strict=True), parse_entries(block[1]), strict=True):
                if values[0] in photos:
                    found[values[0]] = Row._make(row)
        if len(found) != len({*photos}) or not all(row.is_sound() for row in found.values()):
            raise ValueError("it no longer holds the photos that it held")
        return found

    def commit(self, add: Added, remove: Collection[str]) -> Manifest:
        """Remove the photos with the ids in ``remove`` and add others, both or neither; gives the new manifest."""
        self._connection.execute("BEGIN IMMEDIATE")
        rows = [Row.of(*pair, self.path.parent) for pair in add]
        gone = self.find(remove).values()
        manifest = self.manifest().changed(rows, gone)
        deleted = self._connection.executemany("DELETE FROM photos WHERE number = ?", [(row.number,) for row in gone])
        if gone and deleted.rowcount != len(gone):
            raise ValueError("it does not find its rows")
        _write(self._connection, manifest, rows)
        return manifest

    def calibrate(self, calibration: str) -> Manifest:
        """Keep a calibration in place of the one there was; gives the new manifest."""
        self._connection.execute("BEGIN IMMEDIATE")
        manifest = replace(self.manifest().changed((), ()), calibration=calibration)
        _write(self._connection, manifest, ())
        return manifest

    def _blocks(self, manifest: Manifest) -> Iterator[tuple[tuple[Any, ...], ...]]:
        """Numbers, entries, checksums and vectors of some rows at a time: of the right type, order and length."""
        cursor = self._connection.execute("SELECT number, entry, checksum, vector FROM photos")
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

    def _pragma(self, name: str) -> Any:
        return self._connection.execute(f"PRAGMA {name}").fetchone()[0]


def now() -> str:
    """The current UTC time, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


_values = attrgetter(*(field.name for field in fields(Photo)))


def parse_entries(entries: Sequence[bytes]) -> list[list[Any]]:
    """Parse entries and check the types of their fields. Raises ValueError for what :meth:`Row.of` does not write."""
    text = b"[" + b",".join(entries) + b"]"
    rows: list[list[Any]] = parse_json(text, deepest=0)  # every type is checked below
    if b"\\u" in text:  # how JSON writes a NUL and half of a character
        check_value(rows, file_names=False)
    if len(rows) != len(entries):
        raise ValueError("it is not one array")
    for row in rows:
        if not isinstance(row, list) or tuple(map(type, row)) != TYPES or not all(type(tag) is str for tag in row[8]):
            raise ValueError("it has fields of other types")
        if min(row[2:6]) < -(2**63) or max(row[2:6]) >= 2**63:
            raise ValueError("a number in it has more than 64 bits")
        if not 0 <= row[6] < 2**64:
            raise ValueError("its perceptual hash has more than 64 bits")
    return rows


def _photo(values: Sequence[Any], root: Path | None) -> Photo:
    content, path, size, mtime_ns, width, height, phash, category, tags, added, original = values
    file = place(path) if root is None or is_address(path) else root / path
    return Photo(content, file, size, mtime_ns, width, height, phash, category, tuple(tags), added, original)


def _checksum(entry: bytes, vector: bytes) -> bytes:
    return xxhash.xxh3_64_digest(entry + vector)


def _total(rows: Iterable[Row]) -> int:
    return sum(int.from_bytes(row.checksum, "big") for row in rows)


def _check_set(manifest: Manifest, photos: int, total: int) -> None:
    if (photos, total % 2**64) != (manifest.photos, manifest.checksum):
        raise ValueError(f"it holds other photos than the {manifest.photos} that its manifest counts")


def are_unit(vectors: NDArray[np.float32]) -> bool:
    """True when all rows of (N, D) have length 1: none is zero, infinite or not a number."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((np.abs(np.einsum("ij,ij->i", vectors, vectors) - 1) < 2e-3).all())


def _write(connection: sqlite3.Connection, manifest: Manifest, rows: Sequence[Row]) -> None:
    """Insert rows, replace the manifest and commit."""
    entries = [(row.entry.decode(), row.checksum, row.vector) for row in rows]
    connection.executemany("INSERT INTO photos VALUES (NULL, ?, ?, ?)", entries)
    values = {name: value for name, value in asdict(manifest).items() if name != "calibration" or value}
    content = json.dumps(values, ensure_ascii=False)  # as before there were calibrations, where there is none
    digest = xxhash.xxh3_64_digest(content.encode())
    connection.execute("UPDATE manifest SET content = ?, checksum = ?", (content, digest))
    connection.execute("COMMIT")


def empty_matrix(photos: int, dimension: int) -> NDArray[np.float32]:
    """Room for (N, D) vectors: memory, or a temporary file where they are many. Raises OSError without space."""
    if photos <= IN_MEMORY:
        return np.empty((photos, dimension), np.float32)
    home().mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=home()) as file:
        os.posix_fallocate(file.fileno(), 0, photos * dimension * 4)
        return np.memmap(file, np.float32, "r+", shape=(photos, dimension))
