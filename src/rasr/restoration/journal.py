"""Journal of a batch: what each result was made from, so that the same command goes on where it was stopped.

One JSON object a line in the folder of the results, in a file of its own for each shard. A restored picture's line
holds the hashes of its input, its settings and its own bytes, with size and time of both files, and is synced before
the result is moved to its place: whenever a run is killed, what lies there whole is known, and what does not is made
again.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rasr.files import JsonLines, os_errors_as_output, xxh3_file
from rasr.restoration.object_lines import open_lines
from rasr.restoration.settings import Shard

JOURNAL = "report.jsonl"
_NAME = re.compile(r"report(-[1-9]\d*-of-[1-9]\d*)?\.jsonl", re.IGNORECASE)
SETTLED = 2_000_000_000
"""Nanoseconds after which a change that leaves the size gives another time, on every file system."""

Stamp = tuple[int, int]
"""Bytes and time of change, in nanoseconds, of a file."""
Record = Callable[[], Mapping[str, Any]]
"""Reads a line of the journal. Raises OSError, and ValueError when it is not there any more."""


def journal_name(shard: Shard | None) -> str:
    """Name of the file that a run writes: ``report.jsonl``, or ``report-2-of-4.jsonl``."""
    return JOURNAL if shard is None else f"report-{shard.index}-of-{shard.count}.jsonl"


def is_journal(name: str) -> bool:
    """True for the name of a journal, whichever run writes it."""
    return _NAME.fullmatch(name) is not None


def stamp_of(path: Path) -> Stamp:
    """Size and time of a file. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def stamp_facts(stamp: Stamp) -> dict[str, int]:
    """What a line says of its input's size and time; nothing of a file that was changed just now, and may be again."""
    size, changed = stamp
    return {"input_bytes": size, "input_mtime_ns": changed} if changed < time.time_ns() - SETTLED else {}


class _Made(NamedTuple):
    """A result as a line tells of it."""

    input_hash: Any
    settings_hash: Any
    output_bytes: Any
    output_hash: Any
    input_stamp: tuple[Any, Any]
    output_changed: Any
    file: JsonLines
    line: int

    def is_whole(self, output: Path) -> bool:
        """True when the file is what the line says, byte by byte; in lines of version 0.1.0, by its size."""
        if not output.is_file() or output.stat().st_size != self.output_bytes:
            return False
        return self.output_hash is None or xxh3_file(output) == self.output_hash

    def same_work(self, other: "_Made") -> bool:
        """True when both tell of the same bytes made from the same."""
        return self[:4] == other[:4]


def _made(entry: Mapping[str, Any], file: JsonLines, line: int) -> _Made:
    of_input, of_result, settings = (entry.get(f"{name}_hash") for name in ("input", "output", "settings"))
    stamp = entry.get("input_bytes"), entry.get("input_mtime_ns")
    return _Made(
        of_input, settings, entry.get("output_bytes"), of_result, stamp, entry.get("output_mtime_ns"), file, line
    )


class Journal:
    """The journals in a folder of results, and the one among them that this run writes; read when first asked."""

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self.folder = folder
        self.path = folder / journal_name(shard)
        self._lines = open_lines(self.path)
        self._read: dict[str, list[_Made]] | None = None
        self._seen: list[dict[str, Any]] = []

    @property
    def _made(self) -> dict[str, list[_Made]]:
        """What tells whether a picture is finished; the rest of a line is read again when it is asked for."""
        if self._read is None:
            made: dict[str, list[_Made]] = {}
            paths = self.folder.iterdir() if self.folder.is_dir() else ()
            for path in sorted(path for path in paths if is_journal(path.name)):
                file = open_lines(path)
                for line, entry in file.places():
                    place = self._place(entry)
                    if place is None:
                        continue
                    one = _made(entry, file, line)
                    made[place] = [*(old for old in made.get(place, ()) if not old.same_work(one)), one]
            self._read = made
        return self._read

    def _place(self, entry: dict[str, Any]) -> str | None:
        """Path below the folder of a line's result; None for a failure, and for a line that is not ours."""
        output = entry.get("output")
        if entry.get("error") is not None or not isinstance(output, str) or not output or "\0" in output:
            return None
        if isinstance(entry.get("output_hash"), str):
            return output
        # Version 0.1.0 wrote paths as they were typed. The longest end of one that is there now is the result.
        parts = Path(output).parts
        ends = (Path(*parts[start:]) for start in range(len(parts)))
        return next((end.as_posix() for end in ends if not end.is_absolute() and self._is_file(end)), None)

    def _is_file(self, below: Path) -> bool:
        try:
            return ".." not in below.parts and (self.folder / below).is_file()
        except OSError:
            return False

    def results(self) -> Iterator[Path]:
        """Yield the places of all results ever recorded. Raises OSError."""
        return (self.folder / place for place in self._made)

    def knows(self, output: Path) -> bool:
        """True when a result was once made at ``output``. Raises OSError."""
        return self.key(output) in self._made

    def finished(self, output: Path, source: Path, settings_hash: str, *, verify: bool = False) -> Record | None:
        """Find the line of a result that lies at ``output`` as it was made, from this input with these settings.

        Files of the size and time that a line tells of are taken as they were, unless ``verify`` says to read them;
        others are read, and where nothing but the time is another, :meth:`remember` notes it. Raises OSError.
        """
        made = [one for one in reversed(self._made.get(self.key(output), [])) if one.settings_hash == settings_hash]
        if not made:
            return None
        given = stamp_of(source)
        try:
            placed = stamp_of(output)
        except FileNotFoundError:
            return None
        if not verify:
            for one in made:
                if (one.input_stamp, (one.output_bytes, one.output_changed)) == (given, placed):
                    return partial(one.file.at, one.line)
        input_hash = xxh3_file(source)
        for one in made:
            if one.input_hash == input_hash and one.is_whole(output):
                stamps = {**stamp_facts(given), "output_mtime_ns": placed[1]}
                if (one.input_stamp, one.output_changed) != (given, placed[1]) and "input_bytes" in stamps:
                    with suppress(OSError, ValueError):  # the journal was changed meanwhile
                        self._seen.append(one.file.at(one.line) | {"output": self.key(output)} | stamps)
                return partial(one.file.at, one.line)
        return None

    def remember(self, *, least: int = 1) -> None:
        """Append what :meth:`finished` found changed in time only, once it is ``least`` lines. Raises OutputError."""
        if len(self._seen) >= least:
            self._lines.append(*self._seen)
            self._seen.clear()

    def is_unchanged(self, output: Path) -> bool:
        """True when the file at ``output`` is a result as it was made, from whatever input. Raises OSError."""
        return any(made.is_whole(output) for made in self._made.get(self.key(output), []))

    def key(self, output: Path) -> str:
        """Path of a result below the folder, with forward slashes: the same wherever the folder is moved."""
        return output.relative_to(self.folder).as_posix() if output.is_relative_to(self.folder) else str(output)

    def record(self, facts: Mapping[str, Any], output: Path | None = None) -> None:
        """Append a line: for good, a result's with its place; and a failure's without one. Raises OutputError."""
        with os_errors_as_output(self.path):
            place = None if output is None else self.key(output)
            self._lines.append({**facts, "output": place}, sync=output is not None)
