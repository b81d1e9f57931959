"""Local features of photos, kept beside a gallery: a cache that can be deleted at any time and is made again.

They stand in a database of their own, ``features.db`` in the gallery's folder: what a gallery holds never depends on
it. A folder that cannot be written to, or a damaged file, costs time and nothing else.
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import xxhash

from rasr.memory import LruCache

NAME = "features.db"
MEMORY_BYTES = 64 * 2**20
"""Of features held in memory, for photos picked by hand and for galleries that cannot be written to."""
BUSY_SECONDS = 2.0
"""Wait for another process that writes; then the features are not kept this time."""

_memory: LruCache[bytes] = LruCache(MEMORY_BYTES, len)


class FeatureStore:
    """Features of photos, by the photo's id and by what made them. ``folder`` is a gallery's, None for memory only."""

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / NAME
        self._lock = threading.Lock()

    def get(self, photo: str, made_by: str, make: Callable[[], bytes]) -> bytes:
        """The features of a photo as ``made_by`` made them: kept ones, or ``make``'s, which are then kept."""

        def find() -> bytes:
            kept = self._read(photo, made_by)
            if kept is None:
                kept = make()
                self._write(photo, made_by, kept)
            return kept

        return _memory.get((photo, made_by), find)

    def _read(self, photo: str, made_by: str) -> bytes | None:
        if self._file is None or not self._file.is_file():
            return None
        try:
            with self._lock, closing(self._open()) as database:
                row = database.execute(
                    "SELECT content, hash FROM features WHERE photo = ? AND made_by = ?", (photo, made_by)
                ).fetchone()
        except sqlite3.Error:
            return None
        sound = row is not None and isinstance(row[0], bytes) and xxhash.xxh3_128_hexdigest(row[0]) == row[1]
        return row[0] if sound else None

    def _write(self, photo: str, made_by: str, content: bytes) -> None:
        if self._file is None or not self._file.parent.is_dir():
            return
        row = (photo, made_by, content, xxhash.xxh3_128_hexdigest(content))
        try:
            with self._lock, closing(self._open()) as database, database:
                database.execute("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)", row)
        except sqlite3.OperationalError:
            return  # busy, read-only or full: they are made again
        except sqlite3.DatabaseError:  # not a database any more: begin anew
            with suppress(OSError):
                self._file.unlink()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(f"{self._file}", timeout=BUSY_SECONDS)
        try:
            database.execute(
                "CREATE TABLE IF NOT EXISTS features"
                " (photo TEXT, made_by TEXT, content BLOB, hash TEXT, PRIMARY KEY (photo, made_by)) WITHOUT ROWID"
            )
        except sqlite3.Error:
            database.close()
            raise
        return database
