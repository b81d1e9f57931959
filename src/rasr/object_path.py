"""Objects on object storage as paths, and writing them whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PosixPath
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

import xxhash

from rasr.errors import OutputError, OutputExists, RasrError, StorageRefused
from rasr.memory import LruCache
from rasr.objects import checked_address, is_address, open_place, probe, reason

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

AnyPath = TypeVar("AnyPath", bound=Path)
FEATURE = "Reading and writing pictures at an address"
LARGEST = 1 << 30
"""Bytes of the largest object that is read as a file."""
BEGIN = 256 << 10
"""Bytes of an object that are fetched at first, where it has more."""
READERS = 16
"""Objects asked for at once: it is waiting, not work."""
SETTLED = 5.0
"""Seconds for which a size that was just asked for is taken for the one that is read."""
_READ = 8 << 20
_recent: LruCache[bytes] = LruCache(128 << 20, len)
"""What was read last: a picture is hashed, its header looked at and decoded, and fetched once."""
_honoured: set[tuple[str, str]] = set()
"""Places that were found to refuse writing over what is there."""


def place(given: str | Path) -> Path:
    """The path that is meant: of an object where ``given`` is an address, else of a file."""
    if isinstance(given, Path):  # a new one would enter its names into Python's table of names, which then grows
        return given
    return ObjectPath(str(given)) if is_address(given) else Path(given)


def expand(path: AnyPath) -> AnyPath:
    """``path`` with a leading ``~`` read as a home folder; as it is where there is no such user, or no home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def place_given(text: str) -> Path:
    """:func:`place` for what a user typed. Raises UsageError for an address that may hold a secret, or no bucket."""
    return place(checked_address(text) if is_address(text) else text)


class ObjectPath(PosixPath):
    """An object, or what lies below a prefix, as a path: ``str()`` is its address.

    It has a name, a parent and a size and can be read like a file; :func:`put` writes it. What asks the operating
    system for it finds nothing there: use :func:`place` in place of ``Path``.
    """

    __slots__ = ("_asked", "listed")
    listed: os.stat_result
    """Size and time as a list told them; not there for a path that comes from elsewhere."""
    _asked: tuple[float, ObjectMeta]
    """When the object was last asked for, and what was said: it is read right after that."""

    def __str__(self) -> str:
        first, *rest = self.parts or (".",)
        return "/".join((f"{first}/", *rest) if first.endswith(":") else (first, *rest))

    def __fspath__(self) -> str:
        return str(self)

    @property
    def key(self) -> str:
        """Name of the object in its bucket."""
        return "/".join(self.parts[2:])

    @property
    def storage(self) -> ObjectStore:
        """The bucket."""
        return open_place("//".join(self.parts[:2]), FEATURE)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size, and a time whose fraction of a second stands for the content (ETag). Raises OSError."""
        try:
            return _status(self._ask(), str(self))
        except FileNotFoundError:
            if not self._is_prefix():
                raise
        return os.stat_result((stat.S_IFDIR | 0o777, 0, -1, 1, 0, 0, 0, 0, 0, 0))

    def lstat(self) -> os.stat_result:
        """As :meth:`stat`: there are no links."""
        return self.stat()

    def exists(self, **_: bool) -> bool:
        """True for an object, and for a prefix with something below it. Raises OSError where that cannot be asked."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_file(self, **_: bool) -> bool:
        """True for an object. Raises OSError where that cannot be asked."""
        try:
            return stat.S_ISREG(self.stat().st_mode)
        except FileNotFoundError:
            return False

    def is_dir(self, **_: bool) -> bool:
        """True for a bucket, and for a prefix with something below it that is no object itself."""
        return not self.key or (not self.is_file() and self._is_prefix())

    def is_absolute(self) -> bool:
        """True: an address says all."""
        return True

    def absolute(self) -> ObjectPath:
        """The path itself."""
        return self

    def resolve(self, strict: bool = False) -> ObjectPath:
        """The path itself."""
        return self

    def expanduser(self) -> ObjectPath:
        """The path itself."""
        return self

    def samefile(self, other_path: Any) -> bool:
        """True for the same address."""
        return str(self) == str(other_path)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: prefixes need not be made."""

    def rmdir(self) -> None:
        """Nothing: prefixes go with what is below them."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        with _os_errors(self):
            self.storage.delete(self.key)
        self.forget()

    def forget(self) -> None:
        """Ask anew what lies there: it was changed."""
        for name in self.__slots__:
            with suppress(AttributeError):
                delattr(self, name)

    def glob(self, pattern: str, **_: Any) -> Generator[Any, None, None]:
        """Nothing: what is looked for by pattern are leftovers, of which object storage has none."""
        yield from ()

    @property
    def identity(self) -> tuple[int, int]:
        """What tells it from all other objects and files, like a file's device and number."""
        return -1, xxhash.xxh3_64_intdigest(str(self).encode("utf-8", "surrogateescape")) >> 1

    def iterdir(self) -> Generator[Self, None, None]:
        """Objects and prefixes right below. Raises OSError."""
        with _os_errors(self):
            found = self.storage.list_with_delimiter(f"{self.key}/" if self.key else None)
        names = [*found["common_prefixes"], *(facts["path"] for facts in found["objects"])]
        yield from (self / name.rstrip("/").rpartition("/")[2] for name in names)

    def open(self, mode: str = "r", *_: Any, **__: Any) -> IO[Any]:  # type: ignore[override]
        """The object for reading (``"rb"``): its begin is fetched, and all of it once more is read. Raises OSError."""
        if mode != "rb":
            raise OSError(errno.EROFS, "an object is written as a whole", str(self))
        return io.BufferedReader(_Opened(self, self._facts()["size"]))

    def read_begin(self, size: int) -> bytes:
        """The first ``size`` bytes, of what has as many. Raises OSError."""
        with _os_errors(self):
            return bytes(self.storage.get_range(self.key, start=0, length=size))

    def read_bytes(self) -> bytes:
        """The object's bytes, at most :data:`LARGEST`, which are kept for a while. Raises OSError."""
        facts = self._facts()
        if facts["size"] > LARGEST:
            raise OSError(errno.EFBIG, f"an object of more than {LARGEST >> 20} MiB is not read", str(self))
        return _recent.get((str(self), facts["e_tag"], facts["size"]), lambda: self._fetch(facts))

    def _facts(self) -> ObjectMeta:
        """What was said of the object a moment ago, or is said now. Raises OSError."""
        asked, facts = getattr(self, "_asked", (0.0, None))
        return self._ask() if facts is None or time.monotonic() - asked > SETTLED else facts

    def _ask(self) -> ObjectMeta:
        """What the storage knows of the object. Raises OSError."""
        with _os_errors(self):
            facts = self.storage.head(self.key)
        self._asked = time.monotonic(), facts
        return facts

    def _fetch(self, facts: ObjectMeta) -> bytes:
        """Get the bytes in blocks: an object that became another one is not followed. Raises OSError."""
        content = bytearray()
        with _os_errors(self):
            answer = self.storage.get(self.key)
            if answer.meta["e_tag"] == facts["e_tag"]:
                for block in answer.stream(min_chunk_size=_READ):
                    content += block
                    if len(content) > facts["size"]:
                        break
        if len(content) != facts["size"]:
            raise OSError(errno.EIO, "it was changed while it was read", str(self))
        return bytes(content)

    def walk_objects(self) -> Iterator[ObjectPath]:
        """All objects below, in order of their names; what cannot be a path is left out. Raises OSError."""
        with _os_errors(self):
            for some in self.storage.list(f"{self.key}/" if self.key else None, chunk_size=1000):
                for facts in some:
                    found = ObjectPath(f"{'//'.join(self.parts[:2])}/{facts['path']}")
                    if found.key == facts["path"] and ".." not in found.parts:
                        found.listed = _status(facts, str(found))
                        yield found

    def _is_prefix(self) -> bool:
        with _os_errors(self):
            for some in self.storage.list(f"{self.key}/" if self.key else None, chunk_size=1):
                if some:
                    return True
        return False


class _Opened(io.RawIOBase):
    """An object being read: a picture's header takes its begin, whatever else all of it."""

    def __init__(self, path: ObjectPath, size: int) -> None:
        super().__init__()
        self._path = path
        self._size = size
        self._place = 0
        self._begin = b""
        self._whole: bytes | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes before the next one that is read."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, which nothing is fetched for."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(self._path))
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read what follows. Raises OSError."""
        end = min(self._size, self._place + len(buffer))
        if end <= self._place:
            return 0
        if self._whole is None and end <= BEGIN < self._size:
            self._begin = self._begin or self._path.read_begin(BEGIN)
            content = self._begin
        else:
            content = self._whole = self._whole or self._path.read_bytes()
        found = content[self._place : end]
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)


def write_object(path: ObjectPath, content: bytes, *, overwrite: bool) -> None:
    """Write an object whole or not at all, in one request. Raises OutputExists without ``overwrite``, OutputError."""
    from obstore.exceptions import AlreadyExistsError

    with _errors_as_output(path), _os_errors(path):
        try:
            path.storage.put(path.key, content, mode="overwrite" if overwrite else "create", use_multipart=False)
        except AlreadyExistsError:
            # The answer to a PUT that took effect may have been lost, and the client has repeated it.
            if bytes(path.storage.get(path.key).bytes()) != content:
                raise _exists(path) from None
    path.forget()


def check_object(path: ObjectPath, *, overwrite: bool) -> None:
    """Check that nothing is at ``path``, and once for each prefix that writing below it replaces nothing by chance.

    Raises OutputExists, and OutputError for a storage that would replace.
    """
    if overwrite:
        return
    with _errors_as_output(path), _os_errors(path):
        if path.is_file():
            raise _exists(path)
        above = str(path.parent), os.environ.get("AWS_ENDPOINT_URL", "")
        if above not in _honoured:
            try:
                probe(open_place(path.parent, FEATURE), above[0], "a result could replace what another has written")
            except StorageRefused as error:
                raise OutputError(f"{error} With --overwrite results are written there all the same.") from error
            _honoured.add(above)


def _exists(path: Path) -> OutputExists:
    return OutputExists(f"{path}: exists already. Use --overwrite to replace it, or another name.")


@contextmanager
def _errors_as_output(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Raise OSError in place of what obstore raises, free of secrets."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except (OSError, RasrError):
        raise
    except Exception as error:  # noqa: BLE001  (obstore has a kind for each)
        refused = type(error).__name__ in {"PermissionDeniedError", "UnauthenticatedError"}
        raise OSError(errno.EACCES if refused else errno.EIO, reason(error), str(path)) from None


def _status(facts: ObjectMeta, address: str) -> os.stat_result:
    """What the operating system would say of such a file."""
    seconds = int(facts["last_modified"].timestamp())
    time_ns = seconds * 10**9 + xxhash.xxh3_64_intdigest((facts["e_tag"] or "").encode()) % 10**9
    device, number = ObjectPath(address).identity
    fields = (stat.S_IFREG | 0o666, number, device, 1, 0, 0, facts["size"], seconds, seconds, seconds)
    return os.stat_result(fields, {"st_mtime_ns": time_ns, "st_mtime": time_ns / 1e9})
