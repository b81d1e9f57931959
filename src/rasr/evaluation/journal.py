"""What is finished, so that it is never done twice: an append-only file of results keyed by what determines them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from rasr.errors import OutputError

__all__ = ["Journal", "key_of"]


def key_of(*parts: Any) -> str:
    """Hash of JSON values: the same parts give the same key on any machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Journal:
    """Records by key in a file of JSON lines, one synced write each; a torn last line is dropped.

    Keys hold everything a record depends on, so a record is either right or not found.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, dict[str, Any]] = {}
        if path.is_file():
            content = path.read_bytes()
            for line in content.splitlines():
                try:
                    record = json.loads(line)
                    self._records[record["key"]] = record
                except (ValueError, KeyError, TypeError):
                    continue
            if content and not content.endswith(b"\n"):
                self._append(b"\n")

    def get(self, key: str) -> dict[str, Any] | None:
        """The record, or None."""
        return self._records.get(key)

    def put(self, key: str, **record: Any) -> dict[str, Any]:
        """Store a record for good before returning it. Raises OutputError when it cannot be written."""
        full = {"key": key, **record}
        self._append(json.dumps(full, ensure_ascii=False).encode() + b"\n")
        self._records[key] = full
        return full

    def _append(self, line: bytes) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"Cannot write {self._path}: {error.strerror or error}.") from error
