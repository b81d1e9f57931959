"""A gallery in one Lance table: on object storage, or in a folder with more photos than SQLite reads at ease.

Lance's own versions are the truth: a commit is one conditional PUT of a manifest, so there is no pointer, no lock and
no leftover to sweep. Photos are only ever merged by ``id``, which is declared as the table's key: Lance then repeats a
merge that met another one with the same ids. One plain append beside it would double rows (tried: 60 of 60).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasr.errors import EncoderMismatch, GalleryBusy, GalleryNotFound
from rasr.gallery import lance_index
from rasr.gallery.database import (
    Added,
    EncoderId,
    Manifest,
    Row,
    Table,
    are_unit,
    empty_matrix,
    parse_entries,
)
from rasr.gallery.lance_index import Nearest as LanceNearest
from rasr.gallery.lance_index import Parameters, build, covered
from rasr.gallery.lance_table import BLOCK, CALIBRATION, FAULTS, TABLE, LanceTable, is_passing
from rasr.gallery.photo import Photo
from rasr.gallery.protocol import Nearest, Usage, Writer
from rasr.object_path import expand
from rasr.objects import LOCAL, checked_address, is_address, probe, reason

if TYPE_CHECKING:
    import lancedb

LOSS = "two writers would overwrite each other's commits, and photos that were added would be gone without an error"
KEEP = timedelta(days=7)
"""Age of states that ``optimize`` drops: no reader or writer is that slow."""
LONGEST_PAUSE = 10.0
"""Seconds between two tries of a commit that met others."""


class LanceStore:
    """Reads and writes the gallery at an address, or at ``lance://FOLDER``."""

    commit_photos = 1000
    """Every commit writes a manifest, and each merge reads all ids: they are larger than on a local disk."""
    commit_seconds = 30.0

    def __init__(self, address: str, *, timeout: float = 60.0) -> None:
        if is_address(address):
            self._table = LanceTable(checked_address(address), None)
        else:
            folder = expand(Path(address.removeprefix(LOCAL))).resolve()
            self._table = LanceTable(f"{LOCAL}{folder}", folder)
        self.timeout = timeout
        self._honoured = False

    @property
    def address(self) -> str:
        """The address, with a folder in full."""
        return self._table.address

    @property
    def folder(self) -> Path | None:
        """The folder, or None on object storage."""
        return self._table.folder

    def exists(self) -> bool:
        """True when the table is there, whole or not. Raises GalleryError where that cannot be found out."""
        try:
            with self._table.explained():
                self._table.current()
        except GalleryNotFound:
            return False
        return True

    def manifest(self) -> Manifest:
        """The current state: one request where it is the known one. Raises GalleryNotFound and GalleryCorrupt."""
        with self._table.explained():
            return self._table.manifest(self._table.current())

    def read(self, *, vectors: bool) -> Table:
        """Read all photos of one version and compare each row with its checksum; a doubled photo is read once."""
        with self._table.explained():
            table = self._table.open()  # not the handle that other threads bring up to date
            manifest = self._table.manifest(table)
            matrix = empty_matrix(manifest.photos, manifest.encoder.dimension) if vectors else None
            entries: list[bytes] = []
            seen = set[str]()
            for key, row in self._table.rows(table, manifest):
                if not _is_sound(key, row):
                    raise ValueError("an entry does not match its checksum")
                if key in seen:
                    continue
                if matrix is not None:
                    vector = np.frombuffer(row.vector, "<f4")
                    if not are_unit(vector[None]):
                        raise ValueError("a vector does not have length 1")
                    matrix[len(entries)] = vector
                seen.add(key)
                entries.append(row.entry)
        kept = None if matrix is None else matrix[: len(entries)]
        return Table(self.folder, replace(manifest, photos=len(entries)), entries, kept, self.address)

    def fields(self) -> tuple[Manifest, Iterator[list[Any]]]:
        """The current state, and the fields of each photo: the column of entries alone is read, 150 bytes a photo."""
        with self._table.explained():
            table = self._table.open()
            return self._table.manifest(table), self._fields(table)

    def _fields(self, table: lancedb.table.Table) -> Iterator[list[Any]]:
        with self._table.explained():
            seen = set[str]()
            for batch in table.search().select(["entry"]).to_batches(BLOCK):
                for values in parse_entries([entry.encode() for entry in batch.column("entry").to_pylist()]):
                    if values[0] not in seen:
                        seen.add(values[0])
                        yield values

    @contextmanager
    def writing(self, encoder: EncoderId | None = None) -> Iterator[Writer]:
        """A writer from the current state on; others may write at the same time, no lock is held.

        The storage is probed before anything is written. Raises GalleryNotFound, GalleryCorrupt, EncoderMismatch,
        and StorageRefused for a storage that would lose commits.
        """
        if encoder is None:
            self.manifest()
        with self._table.explained(change=True):
            if not self._honoured:
                self.probe()
                self._honoured = True
            if encoder is not None and not self.exists():
                self._table.create(encoder)
        manifest = self.manifest()
        built = manifest.encoder
        if encoder is not None and encoder.fingerprint != built.fingerprint:
            raise EncoderMismatch(
                f"The gallery {self.address} was built with the encoder {built.name} {built.version}, and not with "
                f"{encoder.name} {encoder.version}; another process may have created it just now."
            )
        yield LanceWriter(self, manifest)

    def inspect(self) -> Iterator[tuple[Photo | None, str]]:
        """Every row that can be read, and what is wrong with it. Raises GalleryNotFound and GalleryCorrupt."""
        with self._table.explained():
            table = self._table.open()
            seen = dict[str, Path]()
            for key, row in self._table.rows(table, self._table.manifest(table)):
                photo, what = None, ""
                try:
                    photo = row.photo(self.folder)
                except ValueError as error:
                    what = f"the row {key} holds no photo: {error}"
                if not row.is_sound():
                    what = "the gallery's entry does not match its checksum"
                elif not are_unit(np.frombuffer(row.vector, "<f4")[None]):
                    what = "its vector does not have length 1"
                elif photo is not None and photo.id != key:
                    what = f"its row has the key of another photo ({key})"
                elif photo is not None and photo.id in seen:
                    what = f"stored twice, also as {seen[photo.id]}; it is shown once"
                elif photo is not None:
                    seen[photo.id] = photo.path
                yield photo, what

    def usage(self) -> Usage:
        """Objects and bytes of the table, and what its index covers."""
        import obstore

        with self._table.explained():
            objects = [item for some in obstore.list(self._table.place()) for item in some]
            index = covered(self._table.current())
        mine = [item["size"] for item in objects if item["path"].startswith(f"{TABLE}.lance/")]
        left = sorted(item["path"] for item in objects if item["path"].startswith("probe-"))
        return Usage(len(mine), sum(mine), left, *(index[1:] if index else ()))

    def probe(self) -> None:
        """Write one key twice on condition that it is new. Raises StorageRefused, GalleryError."""
        with self._table.explained(change=True):
            probe(self._table.place(), self.address, LOSS)

    def nearest(self) -> Nearest | None:
        """The current version, looked up by its index; None without one."""
        with self._table.explained():
            handle = self._table.open(indexed=True)
            index = covered(handle)
            return None if index is None else LanceNearest(self._table, handle, self._table.manifest(handle), index[0])

    def build_index(self) -> Mapping[str, int]:
        """Build the index; nothing for a table that is searched exactly as fast. Others may add photos meanwhile.

        Files of many commits are merged first: a search reads the rows that it found from each of them.
        """
        manifest = self.manifest()
        if manifest.photos < lance_index.FEWEST or manifest.encoder.dimension % lance_index.MULTIPLE:
            return {}
        parameters = Parameters.of(manifest.photos)
        with self._table.explained(change=True):
            if lance_index.scattered(self._table.current()):
                self._repeated(_merge_files, manifest)
            build(self._table.current(), parameters)
        self._table.forget()
        return asdict(parameters) | {"photos": manifest.photos}

    def upgrade(self) -> bool:
        """False: there is one format."""
        self.manifest()
        return False

    def tidy(self) -> Mapping[str, int]:
        """Merge small files and drop states older than seven days.

        Costs memory in proportion to the table, and may fail beside writers that remove photos: it is asked for.
        """
        with self._table.explained(change=True):
            table = self._table.current()
            before = table.stats()
            _merge_files(table)
            after = table.stats()
        self._table.forget()
        return {
            f"{name}_{when}": int(number)
            for when, facts in (("before", before), ("after", after))
            for name, number in (("files", facts["fragment_stats"]["num_fragments"]), ("bytes", facts["total_bytes"]))
        }

    def commit(self, add: Added, remove: Collection[str], manifest: Manifest) -> Manifest:
        """Merge photos by id and remove others in one commit, repeated while others are in its way."""
        import pyarrow as pa

        added, gone = [photo.id for photo, _ in add], {*remove}
        dropped = sorted(gone - {*added})
        with self._table.explained(change=True):
            rows = [Row.of(photo, vector, self.folder) for photo, vector in add]
            numbers = np.frombuffer(b"".join(row.vector for row in rows), "<f4")
            columns = {
                "id": pa.array(added, pa.string()),
                "entry": pa.array([row.entry.decode() for row in rows], pa.string()),
                "checksum": pa.array([row.checksum for row in rows], pa.binary(8)),
                "vector": pa.FixedSizeListArray.from_arrays(
                    pa.array(numbers, pa.float32()), manifest.encoder.dimension
                ),
            }

            def change(table: lancedb.table.Table) -> int:
                if not rows:
                    return int(table.delete(_among(dropped)).version)
                merge = table.merge_insert("id").when_not_matched_insert_all()
                if len(dropped) < len(gone):
                    merge = merge.when_matched_update_all()
                if dropped:
                    merge = merge.when_not_matched_by_source_delete(_among(dropped))
                schema = table.schema
                return int(merge.execute(pa.table([columns[name] for name in schema.names], schema=schema)).version)

            return self._repeated(change, manifest)

    def calibrate(self, calibration: str, manifest: Manifest) -> Manifest:
        """Keep a calibration with the table's schema."""
        update = {"path": "entry", "metadata": {CALIBRATION: calibration}}
        with self._table.explained(change=True):
            return self._repeated(lambda table: int(table.update_field_metadata(update).version), manifest)

    def photos(self, ids: Collection[str]) -> list[Photo]:
        """The photos with these ids, of those that are there: of all rows the ids are read."""
        with self._table.explained():
            return [row.photo(self.folder) for row in self._rows(ids).values()]

    def find(self, photos: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Vectors of photos by id, each row compared with its checksum."""
        with self._table.explained():
            found = {key: np.frombuffer(row.vector, "<f4") for key, row in self._rows(photos).items()}
        if len(found) != len(photos):
            raise GalleryBusy(
                f"Another process has removed photos of the gallery {self.address} that were to be changed. Repeat it."
            )
        return found

    def _rows(self, ids: Collection[str]) -> dict[str, Row]:
        """Rows by id, of those that are there, each compared with its checksum. Raises FAULTS."""
        found: dict[str, Row] = {}
        wanted = sorted(ids)
        table = self._table.open()
        manifest = self._table.manifest(table)
        for start in range(0, len(wanted), BLOCK):
            for key, row in self._table.rows(table, manifest, _among(wanted[start : start + BLOCK])):
                if not _is_sound(key, row):
                    raise ValueError("an entry does not match its checksum")
                found[key] = row
        return found

    def _repeated(self, change: Callable[[lancedb.table.Table], int], manifest: Manifest) -> Manifest:
        """Do a change that may be done twice, again while others are in its way; gives the state after it."""
        end, pause = time.monotonic() + self.timeout, 0.1
        while True:
            try:
                version = change(self._table.current())
                break
            except FAULTS as error:
                if not is_passing(error):
                    raise
                if time.monotonic() + pause > end:
                    raise GalleryBusy(
                        f"The gallery {self.address} could not be changed for {self.timeout:g} s: others change it all "
                        f"the time, or the storage does not answer ({reason(error)}). What was committed before is "
                        "kept; repeat the command to go on."
                    ) from None
                time.sleep(random.uniform(0, pause))  # noqa: S311  (jitter)
                pause = min(2 * pause, LONGEST_PAUSE)
        after = self._table.manifest(self._table.current())
        alone = version == int(manifest.version.partition(".")[0]) + 1 and after.version.startswith(f"{version}.")
        # Where others have committed in between, the writer knows no whole state: it has to read the gallery anew.
        return after if alone else replace(after, version="0")


class LanceWriter:
    """Changes a gallery from a known state on."""

    def __init__(self, store: LanceStore, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest

    def commit(self, add: Added = (), remove: Collection[str] = ()) -> None:
        """Remove and add photos in one commit; one that is there already and is not to be removed stays as it is.

        Raises GalleryBusy when others or the storage are in the way for longer than the time-out, and GalleryError.
        """
        if add or remove:
            self.manifest = self.store.commit(add, remove, self.manifest)

    def calibrate(self, calibration: str) -> None:
        """Keep a calibration. Raises as :meth:`commit` does."""
        self.manifest = self.store.calibrate(calibration, self.manifest)

    def vectors(self, photos: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """Stored vectors, by photo id. Raises GalleryBusy when another process has removed one of them."""
        return self.store.find(photos) if photos else {}


def _merge_files(table: lancedb.table.Table) -> int:
    """Make few files of many, bring the index up to date and drop states older than seven days; gives the version."""
    table.optimize(cleanup_older_than=KEEP)
    return int(table.version)


def _is_sound(key: str, row: Row) -> bool:
    """True when a row matches its checksum and is kept by the id of its own photo."""
    return row.is_sound() and row.entry.startswith(f'["{key}",'.encode())


def _among(photos: Sequence[str]) -> str:
    """The condition that a row's id is one of ``photos``."""
    quoted = ", ".join("'" + photo.replace("'", "''") + "'" for photo in photos)
    return f"id IN ({quoted})"
