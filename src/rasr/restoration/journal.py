"""``report.jsonl`` beside the results of a batch: what became of every picture, and what a resumed run may skip."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import xxhash

from rasr.errors import OutputError

__all__ = ["NAME", "Journal", "hash_file", "hash_settings"]

NAME = "report.jsonl"


class Journal:
    """One JSON object a line, appended and synced as each picture is finished; a torn last line is ignored."""

    def __init__(self, folder: Path, settings_hash: str) -> None:
        self.path = folder / NAME
        self._settings = settings_hash
        self._finished: dict[str, dict[str, Any]] | None = None

    def is_finished(self, output: Path, input_hash: str) -> bool:
        """Whether ``output`` was made whole from this very input with these very settings, and is still there."""
        if self._finished is None:
            self._finished = self._read()
        entry = self._finished.get(str(output.absolute()))
        return (
            entry is not None
            and entry.get("input_hash") == input_hash
            and entry.get("settings_hash") == self._settings
            and output.is_file()
            and output.stat().st_size == entry.get("output_bytes")
        )

    def record(self, entry: dict[str, Any], input_hash: str | None) -> None:
        """Append what became of one picture (the object of ``--json``). Raises OutputError."""
        output = entry["output"]
        entry = entry | {"input_hash": input_hash, "settings_hash": self._settings}
        try:
            entry["output_bytes"] = None if output is None else Path(output).stat().st_size
            with self.path.open("ab+") as file:
                file.seek(max(0, file.tell() - 1))
                torn = file.read(1) not in {b"\n", b""}
                file.write(b"\n" * torn + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def _read(self) -> dict[str, dict[str, Any]]:
        finished: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    if entry["error"] is None:
                        finished[str(Path(entry["output"]).absolute())] = entry
                except (ValueError, KeyError, TypeError):  # cut off by a crash, or not ours: that picture is redone
                    continue
        return finished


def hash_file(path: Path) -> str:
    """Content hash of an input. Raises OSError."""
    with path.open("rb") as file:
        digest = xxhash.xxh3_128()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_settings(settings: dict[str, Any]) -> str:
    """Hash of everything that would change the result."""
    return xxhash.xxh3_128_hexdigest(json.dumps(settings, sort_keys=True).encode())
