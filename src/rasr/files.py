"""Files: RASR's own folder, atomic writes, content hashes, JSON read strictly, append-only journals.

Every file RASR writes goes through here, so that a reader finds it whole or not at all whatever stops the writer.
"""

import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import xxhash

from rasr.errors import UNPRINTABLE, ConfigError, OutputError, OutputExists, RasrError
from rasr.object_path import ObjectPath, check_object, expand, place, write_object

_BLOCK = 1 << 20
_DAY = 86400
_LOCKS = os.name == "posix"
"""Elsewhere a file that is open cannot be removed, which protects it as well."""
_TEMPORARY = ".rasr-"
_UNPRINTABLE = re.compile(f"[{UNPRINTABLE}]")
DEEPEST = 64
"""Levels of tables and lists in one another that are read; what is written here has up to eight."""
LARGEST_TEXT = 64 << 20
"""Bytes of a JSON or TOML file that are read."""


def home() -> Path:
    """Folder for what RASR can rebuild: indexed photo folders and downloaded weights.

    ``RASR_HOME`` if set, else ``$XDG_CACHE_HOME/rasr``, else ``~/.cache/rasr``. The folder is not created here.
    Raises ConfigError for a user without a home folder when neither is set.
    """
    explicit = os.environ.get("RASR_HOME")
    if explicit:
        return expand(Path(explicit))
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return expand(Path(base)) / "rasr"
    try:
        return Path.home() / ".cache/rasr"
    except RuntimeError as error:  # a service's user
        raise ConfigError("This user has no home folder. Say in RASR_HOME where RASR may keep its files.") from error


def cache_dir(kind: str) -> Path:
    """Sub-folder of :func:`home` for one kind of thing (``"galleries"``, ``"models"``), created when missing."""
    folder = home() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def offline() -> bool:
    """True when the network must not be used: ``RASR_OFFLINE`` or the hub's own ``HF_HUB_OFFLINE`` is set."""
    truthy = {"1", "true", "yes", "on"}
    return any(os.environ.get(name, "").strip().lower() in truthy for name in ("RASR_OFFLINE", "HF_HUB_OFFLINE"))


def write_bytes(data: bytes, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a file whole or not at all; returns the path.

    Raises OutputExists when something is there and ``overwrite`` is false (also when it appeared meanwhile), and
    OutputError when the folder is missing or not writable or the disk is full.
    """
    path = place(path)
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(data)
    return path


@contextmanager
def atomic_write(path: str | Path, *, overwrite: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path``; leaving the block syncs it and moves it there.

    To object storage the file goes at the end in one request, which is refused where something is meanwhile. An
    exception in the block leaves ``path`` as it was. Raises as :func:`write_bytes` does.
    """
    path = place(path)
    if isinstance(path, ObjectPath):
        content = io.BytesIO()
        yield content
        write_object(path, content.getvalue(), overwrite=overwrite)
        return
    with os_errors_as_output(path):
        if not overwrite and os.path.lexists(path):
            raise _exists(path)
        descriptor, temporary = _create_beside(path)
        held = os.dup(descriptor) if _LOCKS else None  # open until the file is in its place: see remove_leftovers
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                os.replace(temporary, path)  # noqa: PTH105
            else:
                _move_if_free(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108
            if held is not None:
                os.close(held)
        sync_folder(path.parent)


def check_writable(path: str | Path, *, overwrite: bool = False) -> None:
    """Check before any work that a file can be written at ``path``, by making and removing one in its folder.

    Raises OutputExists or OutputError.
    """
    path = place(path)
    if isinstance(path, ObjectPath):
        check_object(path, overwrite=overwrite)
        return
    with os_errors_as_output(path):
        if path.is_dir():
            raise OutputError(f"{path}: this is a folder. Name a file in it.")
        if os.path.lexists(path) and not overwrite:
            raise _exists(path)
        if not path.parent.is_dir():
            what = "is not a folder" if path.parent.exists() else "does not exist"
            raise OutputError(f"{path}: the folder {path.parent} {what}.")
        descriptor, temporary = _create_beside(path)
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the temporary files that killed writers left in a folder; returns them.

    A writer holds a lock on its file for as long as it lives, on whichever machine or in whichever container it runs,
    so what can be locked is nobody's. Where there are no such locks, a file is left over after a day.
    """
    removed = []
    with suppress(OSError):
        for path in folder.glob(f"{_TEMPORARY}*.tmp"):
            with suppress(OSError):
                if _abandoned(path):
                    removed.append(path)
    return removed


def _abandoned(path: Path) -> bool:
    """Remove a temporary file unless its writer lives. Raises OSError where that cannot be told or done."""
    if not _LOCKS:
        if time.time() - path.stat().st_mtime < _DAY:
            return False
        path.unlink()
        return True
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)  # a lock through a network needs a file open for writing
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)
    return True


def sync_folder(folder: Path) -> None:
    """Make a new name in ``folder`` survive a power cut, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits. Raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def xxh3_file(path: str | Path) -> str:
    """xxh3-128 of a file's bytes, 32 hexadecimal digits: fast, no proof against intent. Raises OSError."""
    digest = xxhash.xxh3_128()
    with place(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def json_text(value: Any, *, indent: int | None = None) -> str:
    r"""A JSON value as text that every terminal and UTF-8 file takes and that reads back as it.

    Letters of all scripts stand as they are; what :func:`rasr.errors.shown` would escape stands as ``\uXXXX``, so that
    an object is one line for every reader, whatever the names of files hold.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    kept = "\n" if indent is not None else ""  # json.dumps has escaped those inside texts already
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] == kept else f"\\u{ord(found[0]):04x}", text)


def hash_json(value: Any) -> str:
    """xxh3-128 of a JSON value with its keys in order: equal values give equal digests on any machine."""
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())


def parse_json(text: str | bytes, *, deepest: int = DEEPEST, file_names: bool = True) -> Any:
    """Parse JSON that anyone may have written. Raises ValueError, with a phrase, for whatever is wrong with it.

    Refused besides what is no JSON: what :func:`check_value` refuses. ``deepest`` 0 leaves that out, for a caller that
    checks the type of every value itself.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if deepest:
        check_value(value, deepest=deepest, file_names=file_names)
    return value


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises ValueError as :func:`parse_json` does, and for any other value."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  (the readers' one error)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML as strictly as :func:`parse_json` parses JSON. Raises ValueError."""
    import tomllib  # 10 ms that most commands need not spend

    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    check_value(table)
    return table


def check_value(value: Any, *, deepest: int = DEEPEST, file_names: bool = True) -> None:
    """Raise ValueError for a JSON or TOML value that no reader here can mean.

    Nested deeper than ``deepest``; a number that is infinite, none, or beyond 64 bits; text with a NUL or a lone
    surrogate, which cannot be a path, printed or stored. ``file_names`` lets pass what stands for the bytes of a name
    that is not UTF-8 (U+DC80 to U+DCFF).
    """
    level = [value]
    for _ in range(deepest + 1):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str):
                if "\0" in one:
                    raise ValueError("a text in it holds a NUL character")
                try:
                    one.encode(errors="surrogateescape" if file_names else "strict")
                except UnicodeEncodeError:
                    raise ValueError("a text in it holds half of a character (a lone surrogate)") from None
            elif isinstance(one, float) and not math.isfinite(one):
                raise ValueError("a number in it is infinite or not a number")
            elif isinstance(one, int) and not -(2**63) <= one < 2**64:
                raise ValueError("a number in it has more than 64 bits")
        if not inner:
            return
        level = inner
    raise ValueError("it is nested too deeply")


def read_text(path: str | Path, what: str, error: type[RasrError]) -> str:
    """Read a UTF-8 file that should be ``what``, of at most LARGEST_TEXT bytes. Raises ``error`` naming the file."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise error(f"{path} has more than {LARGEST_TEXT >> 20} MB, too much for a {what}.")
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise error(f"Cannot read the {what} {path}: {reason}.") from fault


def read_object(path: str | Path, what: str, error: type[RasrError]) -> dict[str, Any]:
    """Read a file that holds a JSON object. Raises ``error`` naming the file, and ``what`` it should have been."""
    text = read_text(path, what, error)
    try:
        return parse_object(text)
    except ValueError as fault:
        raise error(f"{path} is not a {what}: {fault}.") from fault


def whole_number(text: str) -> int | None:
    """Number of up to 18 ASCII digits, or None: ``int`` takes other scripts, and fails on thousands of digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


class JsonLines:
    """Append-only journal: one JSON object a line, synced as it is written; a torn last line is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *entries: Mapping[str, Any], sync: bool = True) -> None:
        """Append objects, with ``sync`` for good; a torn line before them is ended first. Raises OutputError."""
        with os_errors_as_output(self.path), self.path.open("ab+") as file:
            file.seek(max(0, file.tell() - 1))
            torn = file.read(1) not in {b"\n", b""}
            file.write(b"\n" * torn + b"".join(json_text(entry).encode() + b"\n" for entry in entries))
            file.flush()
            if sync:
                os.fsync(file.fileno())

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the objects in order, leaving out what is no JSON object: cut off by a crash, or not ours."""
        return (entry for _, entry in self.places())

    def places(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield as :meth:`read` does, each with its place, by which :meth:`at` gives it again. Raises OSError."""
        if not self.path.is_file():
            return
        place = 0
        with self.path.open("rb") as file:
            for line in file:
                with suppress(ValueError):
                    yield place, parse_object(line)
                place += len(line)

    def at(self, place: int) -> dict[str, Any]:
        """Read the object at a place once more. Raises OSError, and ValueError when it is not there any more."""
        with self.path.open("rb") as file:
            file.seek(place)
            return parse_object(file.readline())


@contextmanager
def os_errors_as_output(path: Path) -> Iterator[None]:
    """Raise OutputError with one sentence that names the file in place of an operating system's error."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "Free some space or choose another disk.",
            errno.EDQUOT: "Your disk quota is used up.",
            errno.EFBIG: "The file would be larger than this system allows.",
            errno.EROFS: "Choose a folder on a disk that can be written.",
            errno.EACCES: "Choose a folder you may write to.",
            errno.EPERM: "Choose a folder you may write to.",
            errno.ENAMETOOLONG: "Choose a shorter name.",
        }.get(error.errno or 0, "")
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}). {advice}".rstrip()) from error


def _create_beside(path: Path) -> tuple[int, str]:
    """A new, empty, hidden file in the same folder, open for writing, with the user's own permissions (umask).

    Its name is no Path: Python keeps a table of all names in paths, which grows with every new one.
    """
    while True:
        temporary = f"{path.parent}{os.sep}{_TEMPORARY}{secrets.token_hex(8)}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if not _LOCKS:
            return descriptor, temporary
        import fcntl

        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.exists(temporary):  # noqa: PTH110 - else another process took it for a leftover before it was locked
            return descriptor, temporary
        os.close(descriptor)


def _move_if_free(temporary: str, path: Path) -> None:
    """Rename without replacing: a hard link fails when the name is taken, which rename would not tell."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        # No hard links here (FAT, some network shares): reserve the name, then replace our own reservation.
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError as taken:
            raise _exists(path) from taken
        os.replace(temporary, path)  # noqa: PTH105


def _exists(path: Path) -> OutputExists:
    return OutputExists(f"{path}: exists already. Use --overwrite to replace it, or another name.")
