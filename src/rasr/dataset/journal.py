"""Journal of a build: every candidate and its state, in one SQLite file that survives kills.

Every step of the build is written here before the next one starts, so the same command goes on where it was stopped.
Nothing is kept in memory: 10 000 candidates cost what ten do.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from rasr.dataset.sources import Candidate
from rasr.errors import DatasetError, OutputError

FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS candidates (
  seq INTEGER PRIMARY KEY,
  category TEXT NOT NULL, rank INTEGER NOT NULL,
  source TEXT NOT NULL, source_id TEXT NOT NULL, url TEXT NOT NULL, page_url TEXT NOT NULL, title TEXT NOT NULL,
  author TEXT NOT NULL, author_id TEXT NOT NULL, licence TEXT, width INTEGER NOT NULL, height INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'listed', reason TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '',
  sha256 TEXT, size INTEGER, suffix TEXT, real_width INTEGER, real_height INTEGER,
  quality INTEGER, blockiness REAL, blur REAL, phash TEXT, embedding BLOB,
  UNIQUE (source, source_id));
CREATE INDEX IF NOT EXISTS by_category ON candidates (category, state, rank, seq);
CREATE INDEX IF NOT EXISTS by_state ON candidates (state);
CREATE TABLE IF NOT EXISTS lists (
  category TEXT, source TEXT, question TEXT NOT NULL, cursor TEXT, found INTEGER NOT NULL,
  PRIMARY KEY (category, source));
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY);
"""

_CREDITS = ", ".join(f"{name}=excluded.{name}" for name in ("page_url", "title", "author", "author_id", "licence"))
_CANDIDATE = [field.name for field in fields(Candidate)]


@dataclass(frozen=True, slots=True)
class Measures:
    """Measures of a downloaded file; None where one does not apply."""

    sha256: str
    size: int
    """Bytes."""
    suffix: str
    """.jpg, .png, …, by content."""
    real_width: int
    real_height: int
    quality: int | None
    """IJG quality 1..100 of a JPEG."""
    blockiness: float
    blur: float
    phash: str
    """64-bit perceptual hash, 16 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate's row of the journal and, once downloaded, its measures (not the embedding)."""

    seq: int
    category: str
    rank: int
    """Place of its source in the config; lower is preferred."""
    state: str
    reason: str
    candidate: Candidate
    measures: Measures | None

    @property
    def photo_id(self) -> str:
        """Name of the photo in the dataset, the same in every build: category, source, id there."""
        return f"{self.category}_{self.candidate.file_name}"

    def file_in(self, downloads: Path) -> Path:
        """Return where the photo's file is kept until the dataset is assembled."""
        return downloads / self.candidate.file_name


class Journal:
    """The journal of one build. One thread uses it."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises DatasetError for a file that is not a journal of this format."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            # Enough for a killed process; after a power cut the last transactions may be missing, and are done again.
            self._db.execute("PRAGMA synchronous=NORMAL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, FORMAT):
                raise DatasetError(
                    f"{path} was written by another version of RASR (format {found}); delete it to rebuild."
                )
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={FORMAT}")
        except sqlite3.DatabaseError as error:
            raise _explained(error, path) from error

    def close(self) -> None:
        """Close the file; nothing is lost when this is never called."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all or nothing; inside of another one, part of it. OutputError on a full disk."""
        nested = self._db.in_transaction
        if nested:
            yield
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _explained(error, self.path) from error
            raise

    # Lists of candidates

    def position(self, category: str, source: str, question: str) -> tuple[str | None, int]:
        """Find where a list goes on: (cursor or None at its end, photos found); ("", 0) at first.

        When the question has changed, candidates of the old one that were not downloaded are forgotten; for a local
        folder, whose question tells its contents, all of them.
        """
        row = self._db.execute(
            "SELECT question, cursor, found FROM lists WHERE category=? AND source=?", (category, source)
        ).fetchone()
        if row and row[0] == question:
            return row[1], row[2]
        with self.transaction():
            self._db.execute("DELETE FROM lists WHERE category=? AND source=?", (category, source))
            self._db.execute(
                "DELETE FROM candidates WHERE category=? AND source=? AND (state='listed' OR source='folder')",
                (category, source),
            )
        return "", 0

    def add_page(
        self, category: str, source: str, question: str, rank: int, found: Sequence[Candidate], cursor: str | None
    ) -> int:
        """Store one page and where the list goes on, together. Returns how many candidates were new.

        A photo that an earlier category or page brought already keeps its first place; its credits are brought up to
        date when the same category lists it again.
        """
        columns = ", ".join(_CANDIDATE)
        marks = ", ".join("?" * (len(_CANDIDATE) + 2))
        with self.transaction():
            before = self.count()
            self._db.executemany(
                f"INSERT INTO candidates (category, rank, {columns}) VALUES ({marks}) "  # noqa: S608
                f"ON CONFLICT (source, source_id) DO UPDATE SET {_CREDITS} WHERE category=excluded.category",
                [(category, rank, *astuple(candidate)) for candidate in found],
            )
            new = self.count() - before
            self._db.execute(
                "INSERT INTO lists VALUES (?, ?, ?, ?, ?) ON CONFLICT (category, source) DO UPDATE SET "
                "cursor=excluded.cursor, found=found+excluded.found",
                (category, source, question, cursor, new),
            )
        return new

    # States: listed → chosen → stored → measured, or failed

    def set_state(self, seqs: Iterable[int], state: str, reason: str = "", detail: str = "") -> None:
        """Move candidates to another state."""
        values = [(state, reason, detail, seq) for seq in seqs]
        with self.transaction():
            self._db.executemany("UPDATE candidates SET state=?, reason=?, detail=? WHERE seq=?", values)

    def set_measures(self, seq: int, measures: Measures, embedding: bytes) -> None:
        """Store what was measured; the candidate is then ``measured``."""
        names = [field.name for field in fields(Measures)]
        places = ", ".join(f"{name}=?" for name in names)
        sql = f"UPDATE candidates SET state='measured', reason='', {places}, embedding=? WHERE seq=?"  # noqa: S608
        with self.transaction():
            self._db.execute(sql, (*astuple(measures), embedding, seq))

    def begin(self, transient: Sequence[str], encoder: str) -> None:
        """Start or go on; after a finished build, put back photos that failed for transient reasons.

        After an interruption they are not: the build then goes on exactly as it would have, to the same dataset.
        Photos measured with another encoder are measured again: embeddings of two kinds cannot be compared.
        """
        marks = ", ".join("?" * len(transient))
        with self.transaction():
            if self._db.execute("DELETE FROM marks WHERE name='finished'").rowcount:
                sql = f"UPDATE candidates SET state='listed' WHERE state='failed' AND reason IN ({marks})"  # noqa: S608
                self._db.execute(sql, tuple(transient))
            mark = f"encoder {encoder}"
            if self._db.execute("DELETE FROM marks WHERE name LIKE 'encoder %' AND name<>?", (mark,)).rowcount:
                self._db.execute("UPDATE candidates SET state='stored' WHERE state='measured'")
            self._db.execute("INSERT OR IGNORE INTO marks VALUES (?)", (mark,))

    def finish(self) -> None:
        """Note that the build came to its end."""
        with self.transaction():
            self._db.execute("INSERT OR IGNORE INTO marks VALUES ('finished')")

    def rows(self, *, state: str | None = None, category: str | None = None) -> Iterator[Row]:
        """Yield candidates in order of preference, one at a time.

        Rows may be changed while iterating: they are read by key, a batch ahead.
        """
        last = (-1, -1)
        while True:
            batch = self._db.execute(
                f"SELECT {_COLUMNS} FROM candidates WHERE (:state IS NULL OR state=:state) "  # noqa: S608
                "AND (:category IS NULL OR category=:category) AND (rank, seq) > (:rank, :seq) "
                "ORDER BY rank, seq LIMIT 256",
                {"state": state, "category": category, "rank": last[0], "seq": last[1]},
            ).fetchall()
            if not batch:
                return
            yield from map(_row, batch)
            last = (batch[-1][2], batch[-1][0])

    def embeddings(self, category: str) -> Iterator[tuple[int, bytes]]:
        """Yield (seq, embedding) of a category's measured photos."""
        sql = "SELECT seq, embedding FROM candidates WHERE category=? AND state='measured' ORDER BY rank, seq"
        yield from self._db.execute(sql, (category,))

    def count(self, state: str | None = None) -> int:
        """Count the candidates in a state, or all of them, in all categories."""
        sql = "SELECT COUNT(*) FROM candidates WHERE :state IS NULL OR state=:state"
        return int(self._db.execute(sql, {"state": state}).fetchone()[0])

    def counts(self, category: str) -> dict[str, int]:
        """Count a category's candidates by state, failures by their reason."""
        return dict(
            self._db.execute(
                "SELECT CASE state WHEN 'failed' THEN reason ELSE state END AS what, COUNT(*) FROM candidates "
                "WHERE category=? GROUP BY what ORDER BY what",
                (category,),
            )
        )


_COLUMNS = ", ".join(
    ["seq", "category", "rank", "state", "reason", *_CANDIDATE, *(field.name for field in fields(Measures))]
)


def _row(values: Sequence[Any]) -> Row:
    middle = 5 + len(_CANDIDATE)
    measures = Measures(*values[middle:]) if values[3] == "measured" else None
    seq, category, rank, state, reason = values[:5]
    return Row(seq, category, rank, state, reason, Candidate(*values[5:middle]), measures)


def _explained(error: sqlite3.Error, path: Path) -> OutputError | DatasetError:
    if "full" in str(error):
        return OutputError(f"The disk that holds {path.parent} is full. Make room and run the same command again.")
    return DatasetError(f"The build's journal {path} cannot be used: {error}. Delete it to start this dataset again.")
