"""The Lance table of a gallery: its layout, opening it without trusting it, its rows, and saying what failed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rasr.errors import ExtraMissing, GalleryCorrupt, GalleryError, GalleryNotFound
from rasr.files import json_text, parse_object
from rasr.gallery.database import Database, EncoderId, Manifest, Row, now
from rasr.objects import RETRY_SECONDS, open_place, reason

if TYPE_CHECKING:
    import lancedb
    import pyarrow as pa
    from obstore.store import ObjectStore

TABLE = "photos"
COLUMNS = ("id", "entry", "checksum", "vector")
"""Of a row: those of :class:`Row`, and the photo's id, by which rows are merged."""
KEY = "lance-schema:unenforced-primary-key"
"""Metadata that declares a field as the table's key: merges then tell each other which ids they insert."""
FACTS, CALIBRATION = "rasr", "rasr:calibration"
"""Where the schema keeps the encoder, and its field ``entry`` the calibration."""
FORMAT = 1
BLOCK = 4096
"""Rows read at once."""
INDEX_MEMORY = 2 << 30
"""Bytes of indexes held in memory: that of ten million photos takes 1.2 GB, one that was replaced stays until then."""
FAULTS = (RuntimeError, ValueError, OSError, TypeError, KeyError, ArithmeticError)
"""What Lance and obstore raise for a storage that fails, and the checks here for damage."""
FEATURE = "A gallery at an address"
_PASSING = re.compile(
    r"concurrent|conflict|timed ?out|kind: timeout|kind: connect|connecterror|connection (reset|refused|closed|aborted)"
    r"|error sending|slow ?down|serviceunavailable|status: (409|429|50\d)|status code: (409|429|50\d)"
)
"""What the message of a failure that may pass holds."""
_REFUSAL = re.compile(r"accessdenied|invalidaccesskey|signaturedoesnotmatch|status(: | code: )(400|401|403)|credential")


class LanceTable:
    """Opens and reads the table at ``address``, or in ``folder`` on this machine."""

    def __init__(self, address: str, folder: Path | None) -> None:
        self.address = address
        self.folder = folder
        self._handle: lancedb.table.Table | None = None
        self._known: Manifest | None = None
        self._session: lancedb.Session | None = None
        self._session_of = ""

    def current(self) -> lancedb.table.Table:
        """The kept handle, at the newest version. Raises GalleryNotFound."""
        if self._handle is not None:
            try:
                self._handle.checkout_latest()
            except FAULTS:  # deleted, or made anew
                self.forget()
        if self._handle is None:
            self._handle = self.open()
        return self._handle

    def open(self, *, indexed: bool = False) -> lancedb.table.Table:
        """A handle that stays at the version of now; ``indexed`` ones share what they have read of the index.

        So another's commit, which leaves the index as it is, does not make it be read again. Raises GalleryNotFound,
        and as :meth:`manifest` does.
        """
        if indexed:  # a gallery made anew in this place has versions of the same numbers
            made = self.manifest(self.open()).version.partition(".")[2]
            if self._session_of != made:
                self._session, self._session_of = None, made
        if self.folder is not None and not self.folder.is_dir():
            raise self._missing()
        connection = self._connect(shared=indexed)
        try:
            return connection.open_table(TABLE)
        except FAULTS as error:
            if "was not found" in str(error):
                raise self._missing() from None
            raise

    def create(self, encoder: EncoderId) -> None:
        """Make an empty table, unless another process has just made it."""
        import pyarrow as pa

        facts = {"format": FORMAT, "encoder": asdict(encoder), "created": now(), "gallery": os.urandom(4).hex()}
        fields = [
            pa.field("id", pa.string(), nullable=False, metadata={KEY: "true"}),
            pa.field("entry", pa.string(), nullable=False),
            pa.field("checksum", pa.binary(8), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), encoder.dimension), nullable=False),
        ]
        try:
            self._connect().create_table(TABLE, schema=pa.schema(fields, {FACTS: json_text(facts)}), mode="create")
        except FAULTS as error:
            if "already exists" not in str(error) and not is_passing(error):
                raise

    def forget(self) -> None:
        """Open the table anew the next time it is needed, with nothing of its index."""
        self._handle = self._known = self._session = None

    def manifest(self, table: lancedb.table.Table) -> Manifest:
        """The state that a handle shows. Raises GalleryCorrupt for a newer format, and FAULTS for a foreign table."""
        schema, number = table.schema, table.version
        facts = parse_object((schema.metadata or {}).get(FACTS.encode(), b""))
        if facts["format"] > FORMAT:
            raise GalleryCorrupt(
                f"{self.address} has format {facts['format']}, and this version of rasr reads up to {FORMAT}. Upgrade "
                "rasr."
            )
        version = f"{number}.{facts['gallery']}"
        if self._known is not None and self._known.version == version:
            return self._known
        encoder = EncoderId(**facts["encoder"])
        key, entry, _, vector = (schema.field(name) for name in COLUMNS)
        if key.nullable or (key.metadata or {}).get(KEY.encode()) != b"true":
            raise ValueError("its table has no key")
        if vector.type.list_size != encoder.dimension:
            raise ValueError("its vectors have another length than its encoder gives")
        self._known = Manifest(
            encoder,
            table.count_rows(),
            version=version,
            created=facts["created"],
            updated=self._committed(number) or facts["created"],
            calibration=(entry.metadata or {}).get(CALIBRATION.encode(), b"").decode(),
        )
        return self._known

    def rows(
        self, table: lancedb.table.Table, manifest: Manifest, where: str | None = None
    ) -> Iterator[tuple[str, Row]]:
        """Keys and rows of a handle's version, a block at a time. Raises FAULTS."""
        query = table.search().select([*COLUMNS])
        for batch in (query if where is None else query.where(where)).to_batches(BLOCK):
            yield from unpacked(batch, manifest.encoder.dimension * 4)

    def place(self) -> ObjectStore:
        """The storage below the address."""
        return open_place(self.folder or self.address, FEATURE)

    @contextmanager
    def explained(self, *, change: bool = False) -> Iterator[None]:
        """Raise GalleryError with one sentence, free of secrets, for whatever Lance or the storage finds."""
        try:
            yield
        except (GalleryError, ExtraMissing):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise  # an interruption; a panic of Lance's decoder is damage
            cause = reason(error)
            if "nosuchbucket" in str(error).casefold():
                raise GalleryNotFound(f"{self.address}: there is no such bucket.") from None
            if is_passing(error) or _REFUSAL.search(str(error).casefold()) or isinstance(error, PermissionError):
                raise GalleryError(
                    f"The storage of the gallery {self.address} cannot be {'changed' if change else 'read'}: {cause}. "
                    "Check the address, the credentials (docs/environment.md) and the network, then repeat."
                ) from None
            if change:
                raise GalleryError(
                    f"The gallery {self.address} could not be changed and is as it was before: {cause}"
                ) from None
            file = f"{self.address}/{TABLE}.lance"
            raise Database.damage(file, f"is damaged ({cause})", gallery=self.address) from None

    def _connect(self, *, shared: bool = False) -> lancedb.DBConnection:
        # Read once, when lancedb is first imported; its warnings speak of tables that are about to be created.
        os.environ.setdefault("LANCEDB_LOG", "error")
        try:
            import lancedb
        except ImportError as error:
            raise ExtraMissing(f"The gallery {self.address}", "lance") from error
        options = {"client_retry_timeout": str(RETRY_SECONDS)} if self.folder is None else None
        session = None
        if shared:
            session = self._session = self._session or lancedb.Session(index_cache_size_bytes=INDEX_MEMORY)
        return lancedb.connect(self.folder or self.address, storage_options=options, session=session)

    def _committed(self, version: int) -> str:
        """When a version was written: the time of its manifest, without reading those of all others."""
        import obstore

        try:
            facts = obstore.head(self.place(), f"{TABLE}.lance/_versions/{2**64 - 1 - version}.manifest")
        except FileNotFoundError:
            return ""
        return facts["last_modified"].isoformat(timespec="seconds")

    def _missing(self) -> GalleryNotFound:
        return GalleryNotFound(
            f"There is no gallery at {self.address}. Create one with: rasr gallery add {self.address} FOLDER_OF_PHOTOS"
        )


def is_passing(error: BaseException) -> bool:
    """True for a failure that may be gone when what failed is repeated: another writer, or a storage that is busy."""
    return _PASSING.search(str(error).casefold()) is not None


def unpacked(batch: pa.RecordBatch, width: int) -> Iterator[tuple[str, Row]]:
    """Keys and rows of a batch with all columns, whose vectors have ``width`` bytes. Raises ValueError for holes."""
    ids, entries, checksums = (batch.column(name).to_pylist() for name in COLUMNS[:3])
    numbers = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
    vectors = np.ascontiguousarray(numbers, "<f4").tobytes()
    if len(vectors) != width * batch.num_rows or None in ids or None in entries or None in checksums:
        raise ValueError("its rows have holes")
    for place, (key, entry, checksum) in enumerate(zip(ids, entries, checksums, strict=True)):
        yield key, Row(None, entry.encode(), checksum, vectors[place * width : (place + 1) * width])
