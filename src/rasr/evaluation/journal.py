"""Journal of finished work, so that it is never done twice: records keyed by what determines them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rasr.files import JsonLines

__all__ = ["Journal", "key_of"]


def key_of(*parts: Any) -> str:
    """Hash of JSON values: the same parts give the same key on any machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Journal:
    """Records by key in a file of JSON lines; the last one of a key counts.

    Keys hold everything a record depends on, so a record is either right or not found.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        self._records = {record["key"]: record for record in self._lines.read() if isinstance(record.get("key"), str)}

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the record, or None."""
        return self._records.get(key)

    def put(self, key: str, **record: Any) -> dict[str, Any]:
        """Store a record for good before returning it. Raises OutputError when it cannot be written."""
        full = {"key": key, **record}
        self._lines.append(full)
        self._records[key] = full
        return full
