"""Journal of a batch: what each result was made from, so that the same command goes on where it was stopped.

One JSON object a line in the folder of the results. A restored picture's line holds the hashes of its input, its
settings and its own bytes, and is synced before the result is moved to its place: whenever a run is killed, what lies
there whole is known, and what does not is made again.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from rasr.files import JsonLines, os_errors_as_output, xxh3_file

JOURNAL = "report.jsonl"


class _Made(NamedTuple):
    """A result as a line tells of it."""

    line: int
    input_hash: Any
    settings_hash: Any
    output_bytes: Any
    output_hash: Any

    def is_whole(self, output: Path) -> bool:
        """True when the file is what the line says, byte by byte; in lines of version 0.1.0, by its size."""
        if not output.is_file() or output.stat().st_size != self.output_bytes:
            return False
        return self.output_hash is None or xxh3_file(output) == self.output_hash


class Journal:
    """The journal in a folder of results; read when opened, which may fail with OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self._lines = JsonLines(self.path)
        # What tells whether a picture is finished; the rest of a line is read again when it is asked for.
        self._made: dict[str, list[_Made]] = {}
        for line, entry in self._lines.places():
            place = self._place(entry)
            if place is not None:
                facts = [entry.get(name) for name in ("input_hash", "settings_hash", "output_bytes", "output_hash")]
                self._made.setdefault(place, []).append(_Made(line, *facts))

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
        """Yield the places of all results ever recorded."""
        return (self.folder / place for place in self._made)

    def knows(self, output: Path) -> bool:
        """True when a result was once made at ``output``."""
        return self.key(output) in self._made

    def finished(self, output: Path, input_hash: str, settings_hash: str) -> dict[str, Any] | None:
        """Find the line of a result that lies at ``output`` as it was made, from this input with these settings.

        Raises OSError.
        """
        for made in reversed(self._made.get(self.key(output), [])):
            if (made.input_hash, made.settings_hash) == (input_hash, settings_hash) and made.is_whole(output):
                with suppress(ValueError):  # the journal was changed meanwhile
                    return self._lines.at(made.line)
        return None

    def is_unchanged(self, output: Path) -> bool:
        """True when the file at ``output`` is a result as it was made, from whatever input. Raises OSError."""
        return any(made.is_whole(output) for made in self._made.get(self.key(output), []))

    def key(self, output: Path) -> str:
        """Path of a result below the folder, with forward slashes: the same wherever the folder is moved."""
        return output.relative_to(self.folder).as_posix() if output.is_relative_to(self.folder) else str(output)

    def record(self, facts: Mapping[str, Any], output: Path | None, content: bytes | None = None) -> None:
        """Append a line for good: ``facts``, and a result's place and hash of its bytes. Raises OutputError."""
        entry = {**facts, "output": None}
        if output is not None and content is not None:
            digest = xxhash.xxh3_128_hexdigest(content)
            entry |= {"output": self.key(output), "output_bytes": len(content), "output_hash": digest}
        with os_errors_as_output(self.path):
            self._lines.append(entry)
