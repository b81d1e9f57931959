"""The rasr command, killed at the n-th system call that touches the folder of its results.

``python kill_worker.py N FOLDER ARGUMENTS...``; N = 0 kills nothing. Calls counted: opening, each half of what is
written, syncing, linking, renaming, removing, making and removing folders. The count goes to the file descriptor that
KILL_COUNT names.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

from rasr.cli.main import main

LAST, FOLDER = int(sys.argv[1]), str(Path(sys.argv[2]).absolute())
CALLS = {"open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
calls: list[None] = []


def point() -> None:
    calls.append(None)
    if len(calls) == LAST:
        os.kill(os.getpid(), signal.SIGKILL)


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    path = arguments[0] if event in CALLS else None
    if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(FOLDER):  # noqa: PTH100 - not audited
        point()


class Halves:
    """A file that hands what is written to the system in two halves."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, content: bytes) -> None:
        for part in (content[: len(content) // 2], content[len(content) // 2 :]):
            self._file.write(part)
            self._file.flush()
            point()

    def __enter__(self) -> Halves:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def fsync(descriptor: int, sync: Any = os.fsync) -> None:
    point()
    sync(descriptor)
    point()


def fdopen(*arguments: Any, fdopen: Any = os.fdopen) -> Any:
    return Halves(fdopen(*arguments))


def open_(path: Any, mode: str = "r", *arguments: Any, open: Any = io.open, **more: Any) -> Any:
    file = open(path, mode, *arguments, **more)
    return Halves(file) if mode == "ab+" else file


os.fsync, os.fdopen, io.open = fsync, fdopen, open_  # type: ignore[assignment]
sys.addaudithook(audit)
code: Any = 1
try:
    main(sys.argv[3:])
except SystemExit as end:
    code = end.code
os.write(int(os.environ["KILL_COUNT"]), f"{len(calls)}\n".encode())
sys.exit(code)
