"""Lists of pictures: those that failed, with the reason, and those that a run takes in place of folders."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rasr.errors import OutputError, OutputExists, UsageError
from rasr.files import LARGEST_TEXT, check_writable, json_text, parse_object, write_bytes
from rasr.object_path import place
from rasr.restoration.plan import Job, Listed


def read_list(content: bytes, source: str) -> list[Listed]:
    """Read the pictures that a list names, each once, in its order.

    A line is a path, or a JSON object with ``input`` and, for a picture of a folder whose tree is mirrored,
    ``folder``: lines of a failed list, of ``--json`` and of journals. Empty lines are passed over; paths are relative
    to the current folder. Raises UsageError, naming ``source`` and the line.
    """
    if len(content) > LARGEST_TEXT:
        raise UsageError(f"{source} has more than {LARGEST_TEXT >> 20} MB, too much for a list of pictures.")
    found: dict[Listed, None] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        if b"\0" in line:
            raise UsageError(f"{where}: this is no list of pictures, one a line.")
        found[_listed(line, where) if line.startswith(b"{") else Listed(place(os.fsdecode(line)))] = None
    return list(found)


def _listed(line: bytes, where: str) -> Listed:
    try:
        entry = parse_object(line)
    except ValueError as error:
        raise UsageError(f"{where}: {error}.") from error
    path, folder = entry.get("input"), entry.get("folder")
    if not isinstance(path, str) or not path or not isinstance(folder, str | None) or folder == "":
        raise UsageError(f"{where}: no picture is named there. Write a path, or an object with 'input'.")
    return Listed(place(path), None if folder is None else place(folder))


class FailedList:
    """The pictures of a run that failed, written when it is over: a JSON object a line, none when all went well.

    The list of an earlier run is replaced, another file only if ``overwrite`` says so. Raises OutputExists and
    OutputError at once when it could not be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self._path = path
        self._overwrite = overwrite or _is_own(path)
        try:
            check_writable(path, overwrite=self._overwrite)
        except OutputExists:
            raise OutputExists(f"{path}: exists already and is no list of failed pictures. Choose another.") from None
        self._lines: list[dict[str, Any]] = []

    def add(self, job: Job, error: Exception) -> None:
        """Add a picture with the reason."""
        folder = None if job.folder is None else str(job.folder)
        self._lines.append({"input": str(job.input), "folder": folder, "error": str(error)})

    def write(self) -> Path:
        """Write the list. Raises OutputError."""
        return write_bytes(_text(self._lines), self._path, overwrite=self._overwrite)


def _text(lines: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json_text(line).encode() + b"\n" for line in lines)


def _is_own(path: Path) -> bool:
    """True for a list as RASR writes it: every line tells of a picture and its error."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_TEXT:
            return False
        lines = path.read_bytes().splitlines()
        return all({"input", "folder", "error"} == parse_object(line).keys() for line in lines)
    except (OSError, ValueError, OutputError):
        return False
