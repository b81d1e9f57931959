"""Journal of a batch: what each result was made from, so that the same command goes on where it was stopped.

One JSON object a line in the folder of the results. A restored picture's line holds the hashes of its input, its
settings and its own bytes, and is synced before the result is moved to its place: whenever a run is killed, what lies
there whole is known, and what does not is made again.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from rasr.files import JsonLines, os_errors_as_output, xxh3_file

JOURNAL = "report.jsonl"


class Journal:
    """The journal in a folder of results; read when opened, which may fail with OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self._lines = JsonLines(self.path)
        self._made: dict[str, list[dict[str, Any]]] = {}
        for entry in self._lines.read():
            place = self._place(entry)
            if place is not None:
                self._made.setdefault(place, []).append(entry)

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
        made = [entry for entry in reversed(self._made.get(self.key(output), [])) if _is_whole(entry, output)]
        same = (one for one in made if (one.get("input_hash"), one.get("settings_hash")) == (input_hash, settings_hash))
        return next(same, None)

    def is_unchanged(self, output: Path) -> bool:
        """True when the file at ``output`` is a result as it was made, from whatever input. Raises OSError."""
        return any(_is_whole(entry, output) for entry in self._made.get(self.key(output), []))

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


def _is_whole(entry: dict[str, Any], output: Path) -> bool:
    """True when the file at ``output`` is what the line says, byte by byte; in lines of version 0.1.0, by its size."""
    if not output.is_file() or output.stat().st_size != entry.get("output_bytes"):
        return False
    digest = entry.get("output_hash")
    return digest is None or xxh3_file(output) == digest
