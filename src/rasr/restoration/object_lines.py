"""A journal's lines at an address, where nothing can be appended to: an object each, below the journal's name."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from rasr.files import JsonLines, json_text, parse_object
from rasr.object_path import READERS, ObjectPath, write_object


def open_lines(path: Path) -> JsonLines:
    """The journal at ``path``, a file or an address. Nothing is read."""
    return ObjectLines(path) if isinstance(path, ObjectPath) else JsonLines(path)


class ObjectLines(JsonLines):
    """JsonLines whose lines are objects, named by their times: several writers are in no other's way."""

    def __init__(self, path: ObjectPath) -> None:
        super().__init__(path)
        self._top = path
        self._objects: list[ObjectPath] = []

    def append(self, *entries: Mapping[str, Any], sync: bool = True) -> None:
        """Write objects, always for good, before returning. Raises OutputError."""
        for entry in entries:
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
            write_object(ObjectPath(f"{self._top}/{name}"), json_text(entry).encode(), overwrite=False)

    def places(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield all objects in the order of their times, each with its number. Raises OSError."""
        self._objects = [one for one in self._top.walk_objects() if one.suffix == ".json"]
        with ThreadPoolExecutor(READERS) as pool:
            for number, line in enumerate(pool.map(ObjectPath.read_bytes, self._objects)):
                with suppress(ValueError):
                    yield number, parse_object(line)

    def at(self, place: int) -> dict[str, Any]:
        """Read an object again. Raises OSError, and ValueError when it is not there any more."""
        return parse_object(self._objects[place].read_bytes())
