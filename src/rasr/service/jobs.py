"""Jobs: the queue and all that became of it, in one SQLite file that survives whatever ends the service."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rasr.files import parse_json

State = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = ("queued", "running", "done", "failed", "cancelled")
ENDED = ("done", "failed", "cancelled")
LOST = "The service was stopped while this picture was restored. Send it again."
MEASURED = 20
"""Jobs that the next one's time is estimated from."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, key TEXT UNIQUE, digest TEXT NOT NULL,
    batch TEXT, name TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL,
    lease REAL, stop INTEGER NOT NULL DEFAULT 0, pixels INTEGER NOT NULL, bytes INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL, request TEXT NOT NULL, outcome TEXT, error TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state, number);
CREATE INDEX IF NOT EXISTS jobs_batch ON jobs (batch, number);
"""
_COLUMNS = (
    "number", "id", "key", "digest", "batch", "name", "state", "created", "started", "finished", "lease", "stop",
    "pixels", "bytes", "revision", "request", "outcome", "error",
)  # fmt: skip


@dataclass(slots=True)
class Job:
    """One picture to restore, and what became of it."""

    id: str
    name: str
    """The picture's name, as its owner has it; only shown."""
    digest: str
    """Of all that was sent: the same request again is the same job."""
    pixels: int
    """Of the result."""
    request: dict[str, Any]
    """Files and settings, as the worker takes them."""
    key: str | None = None
    batch: str | None = None
    state: State = "queued"
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    lease: float | None = None
    """While running: when it counts as lost unless the worker shows life."""
    stop: bool = False
    """Cancelling was asked for."""
    bytes: int = 0
    """Of its files."""
    revision: int = 0
    """Rises with every change."""
    outcome: dict[str, Any] | None = None
    error: str | None = None
    number: int = 0
    """Place in the order of arrival."""


class QueueFull(Exception):
    """No more jobs may wait."""


class KeyTaken(Exception):
    """An Idempotency-Key came again with another request."""


class Jobs:
    """The table of jobs. Safe to share between threads; every change is on the disk when its method returns."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._database = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "trusted_schema=OFF"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def recover(self) -> int:
        """Fail what ran when the service ended without stopping it; returns how many. Called once, at the start."""
        with self._change() as database:
            cancelled = database.execute(
                "UPDATE jobs SET state='cancelled', finished=?, lease=NULL, revision=? WHERE state='running' AND stop",
                (time.time(), self._revision()),
            )
            failed = database.execute(
                "UPDATE jobs SET state='failed', error=?, finished=?, lease=NULL, revision=? WHERE state='running'",
                (LOST, time.time(), self._revision()),
            )
            return cancelled.rowcount + failed.rowcount

    def add(self, job: Job, most: int) -> Job:
        """Put a job into the queue; the one that is there already when its key and its request are known.

        Raises QueueFull and KeyTaken.
        """
        with self._change() as database:
            known = self.find_key(job.key, job.digest)
            if known is not None:
                return known
            if self.waiting() >= most:
                raise QueueFull
            job.revision = self._revision()
            row = (job.id, job.key, job.digest, job.batch, job.name, job.state, job.created, job.pixels, job.bytes,
                   job.revision, json.dumps(job.request))  # fmt: skip
            job.number = database.execute(
                "INSERT INTO jobs (id, key, digest, batch, name, state, created, pixels, bytes, revision, request) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row,
            ).lastrowid or 0  # fmt: skip
            return job

    def waiting(self) -> int:
        """Number of jobs that wait."""
        with self._lock:
            (count,) = self._database.execute("SELECT count(*) FROM jobs WHERE state='queued'").fetchone()
            return int(count)

    def has_key(self, key: str) -> bool:
        """Whether a job came with this key."""
        return bool(self._select("key = ?", (key,)))

    def find_key(self, key: str | None, digest: str) -> Job | None:
        """The job that a key stands for. Raises KeyTaken when that was another request."""
        if key is None:
            return None
        found = self._select("key = ?", (key,))
        if found and found[0].digest != digest:
            raise KeyTaken
        return found[0] if found else None

    def get(self, job: str) -> Job | None:
        """The job of an id, or None."""
        found = self._select("id = ?", (job,))
        return found[0] if found else None

    def newest(self, *, batch: str | None = None, limit: int = 50, before: int | None = None) -> list[Job]:
        """Jobs, newest first: of a batch, and older than the one with the number ``before``."""
        wanted, values = ["1"], list[Any]()
        if batch is not None:
            wanted, values = [*wanted, "batch = ?"], [*values, batch]
        if before is not None:
            wanted, values = [*wanted, "number < ?"], [*values, before]
        return self._select(f"{' AND '.join(wanted)} ORDER BY number DESC LIMIT ?", (*values, limit))

    def take(self, seconds: float, job: str | None = None) -> Job | None:
        """Begin with a job, or that which has waited longest; it is the taker's for ``seconds``.

        None when it does not wait, or there is none.
        """
        with self._change() as database:
            row = database.execute(
                "UPDATE jobs SET state='running', started=?, lease=?, revision=? WHERE number = "
                "(SELECT min(number) FROM jobs WHERE state='queued' AND (? IS NULL OR id = ?)) RETURNING id",
                (time.time(), time.time() + seconds, self._revision(), job, job),
            ).fetchone()
            return None if row is None else self.get(row[0])

    def next(self, most: int) -> list[Job]:
        """The jobs that have waited longest, at most so many."""
        return self._select("state = 'queued' ORDER BY number LIMIT ?", (most,))

    def renew(self, job: str, seconds: float) -> None:
        """Lengthen a running job's lease."""
        with self._change() as database:
            database.execute("UPDATE jobs SET lease=? WHERE id=? AND state='running'", (time.time() + seconds, job))

    def end(
        self, job: str, state: State, *, outcome: dict[str, Any] | None = None, error: str | None = None, size: int = 0
    ) -> bool:
        """End a running job, or put it back with ``queued``; False when it is not running any more."""
        back = state == "queued"
        with self._change() as database:
            changed = database.execute(
                "UPDATE jobs SET state=?, finished=?, started=CASE WHEN ? THEN NULL ELSE started END, lease=NULL, "
                "outcome=?, error=?, bytes=bytes+?, revision=? WHERE id=? AND state='running'",
                (state, None if back else time.time(), back, None if outcome is None else json.dumps(outcome), error,
                 size, self._revision(), job),
            )  # fmt: skip
            return changed.rowcount == 1

    def cancel(self, job: str) -> State | None:
        """Cancel a queued job, mark a running one to be stopped; gives its state then, None when it is unknown."""
        with self._change() as database:
            database.execute(
                "UPDATE jobs SET state='cancelled', finished=?, revision=? WHERE id=? AND state='queued'",
                (time.time(), self._revision(), job),
            )
            database.execute("UPDATE jobs SET stop=1 WHERE id=? AND state='running'", (job,))
            row = database.execute("SELECT state FROM jobs WHERE id=?", (job,)).fetchone()
            return None if row is None else row[0]

    def remove(self, job: str) -> bool:
        """Forget an ended job; False when there is none."""
        with self._change() as database:
            gone = database.execute("DELETE FROM jobs WHERE id=? AND state IN ('done', 'failed', 'cancelled')", (job,))
            return gone.rowcount == 1

    def outdated(self, before: float, most_bytes: int) -> list[str]:
        """Ended jobs that finished before a time, and the oldest ones of what is more than ``most_bytes``."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id, finished, bytes FROM jobs WHERE state IN ('done', 'failed', 'cancelled') "
                "ORDER BY finished DESC"
            ).fetchall()
        total, found = 0, []
        for job, finished, size in rows:
            total += size
            if finished < before or total > most_bytes:
                found.append(job)
        return found

    def counts(self, batch: str | None = None) -> dict[str, int]:
        """Number of jobs by state, of a batch or of all."""
        with self._lock:
            rows = self._database.execute(
                "SELECT state, count(*) FROM jobs WHERE ? IS NULL OR batch = ? GROUP BY state", (batch, batch)
            ).fetchall()
        counts: dict[str, int] = dict.fromkeys(STATES, 0)
        return counts | dict(rows)

    def ids(self) -> set[str]:
        """All jobs that are kept."""
        with self._lock:
            return {row[0] for row in self._database.execute("SELECT id FROM jobs")}

    def ahead(self, job: Job) -> tuple[int, int]:
        """How many jobs wait before a queued one, and the pixels of the results of these and of the running one."""
        with self._lock:
            count, pixels = self._database.execute(
                "SELECT count(*) FILTER (WHERE state='queued'), coalesce(sum(pixels), 0) FROM jobs "
                "WHERE state='running' OR (state='queued' AND number < ?)", (job.number,),
            ).fetchone()  # fmt: skip
            return count, pixels

    def pace(self) -> float | None:
        """Seconds a pixel of result that the last jobs took; None before the first."""
        with self._lock:
            seconds, pixels = self._database.execute(
                "SELECT sum(finished - started), sum(pixels) FROM (SELECT * FROM jobs WHERE state='done' "
                "ORDER BY finished DESC LIMIT ?)", (MEASURED,),
            ).fetchone()  # fmt: skip
            return seconds / pixels if pixels else None

    def head(self) -> Job | None:
        """The job that runs, else the one that is next."""
        found = self._select("state IN ('running', 'queued') ORDER BY state='queued', number LIMIT 1", ())
        return found[0] if found else None

    def _select(self, where: str, values: tuple[Any, ...]) -> list[Job]:
        with self._lock:
            rows = self._database.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE {where}",  # noqa: S608  (both are ours)
                values,
            ).fetchall()
        return [_job(dict(zip(_COLUMNS, row, strict=True))) for row in rows]

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction that writes, or the one around it."""
        with self._lock:
            if self._database.in_transaction:
                yield self._database
                return
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _revision(self) -> int:
        (last,) = self._database.execute("SELECT coalesce(max(revision), 0) FROM jobs").fetchone()
        return max(int(last) + 1, time.time_ns() // 1_000_000)


def _job(values: dict[str, Any]) -> Job:
    for name in ("request", "outcome"):
        values[name] = None if values[name] is None else parse_json(values[name], deepest=0)
    values["stop"] = bool(values["stop"])
    return Job(**values)
