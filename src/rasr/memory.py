"""Memory: how much there is, how much is free, what work takes, what running out looks like, and a bounded cache."""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from rasr.errors import OutOfMemory

Value = TypeVar("Value")

# Paths that are read for every tile are made once: a new one enters its names into Python's table of names each time.
_STATM = Path("/proc/self/statm")
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
"""Limit and use of the container, versions 2 and 1: psutil does not look at them."""

_processes = [1]
"""Processes that do the same work beside one another, this one among them."""


def divide_memory(processes: int) -> None:
    """Count on this process's part only, of ``processes`` that do the same work on this machine and its GPU."""
    _processes[0] = processes


def free_memory(device: str = "cpu") -> int:
    """Bytes that can still be allocated: on the GPU if ``device`` starts with cuda, else of machine or container.

    What is free is divided among the processes of :func:`divide_memory`.
    """
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None:
        name = device.replace(",", " ").split()[0].rstrip(":")
        free, _ = torch.cuda.mem_get_info(torch.device(name))
        return int(free) // _processes[0]
    return min(min(_machine_free(), _container_free()) // _processes[0], _process_free())


def usable_memory() -> int:
    """Bytes of memory this process may ever use: the machine's, or its container's when that is less.

    Divided among the processes of :func:`divide_memory`.
    """
    return _whole_memory() // _processes[0]


@cache
def _whole_memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit, _ in _CGROUPS:
        try:
            total = min(total, int(limit.read_text()))
        except (OSError, ValueError):  # no such controller, or "max"
            continue
    return total


def is_out_of_memory(error: BaseException) -> bool:
    """True when ``error`` means that a smaller tile may work.

    Besides MemoryError and torch's own class, torch's CPU and Apple allocators raise a bare RuntimeError with a text.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def release_memory() -> None:
    """Give memory back after a failure: garbage first, then torch's cache of GPU blocks."""
    gc.collect()
    cuda = _cuda()
    if cuda is not None:
        cuda.empty_cache()


@contextmanager
def memory_errors_told(sentence: str) -> Iterator[None]:
    """Raise OutOfMemory with a sentence in place of Python's and numpy's MemoryError, which would end a batch."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(sentence) from error


_sharing = threading.Condition()
_shared = [0]
"""Bytes that work going on under :func:`sharing_memory` may take."""


@contextmanager
def sharing_memory(amount: int) -> Iterator[None]:
    """Do work that takes ``amount`` bytes once it fits, with that of all other threads, into half of the memory.

    What alone is more than that does not wait for ever: it waits until it is alone.
    """
    with _sharing:
        _sharing.wait_for(lambda: _shared[0] == 0 or _shared[0] + amount <= usable_memory() // 2)
        _shared[0] += amount
    try:
        yield
    finally:
        with _sharing:
            _shared[0] -= amount
            _sharing.notify_all()


class LruCache(Generic[Value]):
    """Cache bounded by bytes: the least recently used values leave first; one larger than the bound is never kept.

    Safe to share between threads; two that ask for the same missing value at once both make it.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._entries: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of ``key``, made by ``make`` when it is not there."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        value = make()
        size = self._size_of(value)
        if size <= self._max_bytes:
            with self._lock:
                self._entries[key] = value, size
                while self.held > self._max_bytes:
                    self._entries.popitem(last=False)
        return value

    @property
    def held(self) -> int:
        """Bytes held now."""
        return sum(size for _, size in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)


class Meter:
    """Context manager: wall seconds, and the highest resident set sampled every 10 ms plus peak CUDA memory.

    Outside Linux the resident set is not sampled and only CUDA memory is counted.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.memory = 0
        self._stop = threading.Event()
        self._peak = 0

    def __enter__(self) -> Meter:
        self._cuda = _cuda()
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._begun = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._begun
        self._stop.set()
        self._thread.join()
        self.memory = self._peak + (self._cuda.max_memory_allocated() if self._cuda is not None else 0)

    def _sample(self) -> None:
        if not _STATM.exists():
            return
        page = os.sysconf("SC_PAGE_SIZE")
        while True:
            self._peak = max(self._peak, int(_STATM.read_text(encoding="ascii").split()[1]) * page)
            if self._stop.wait(0.01):
                return


def _machine_free() -> int:
    try:
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return sys.maxsize  # not Linux: the caller's default stands


def _container_free() -> int:
    for limit, used in _CGROUPS:
        try:
            return max(0, int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # no such controller, or "max"
            continue
    return sys.maxsize


def _process_free() -> int:
    """What ``ulimit -v`` leaves, as batch systems set it."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    try:
        used = int(_STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return sys.maxsize
    return max(0, limit - used)


def _cuda() -> Any:
    """The module torch.cuda, when torch is loaded and has a device; else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
