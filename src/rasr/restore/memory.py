"""How much memory is free, how large a tile that allows, and what running out of it looks like."""

from __future__ import annotations

import gc
import math
import resource
import sys
from pathlib import Path

from rasr.errors import UsageError
from rasr.generator import GeneratorInfo

__all__ = ["choose_tile", "free_memory", "is_out_of_memory", "release"]

SHARE = 0.5
"""Part of the free memory a tile may take: the rest is for the canvas, the decoder and other programs."""


def free_memory(device: str = "cpu") -> int:
    """Bytes that can still be allocated: on the GPU if ``device`` starts with cuda, else of machine or container."""
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None:
        name = device.replace(",", " ").split()[0].rstrip(":")
        free, _ = torch.cuda.mem_get_info(torch.device(name))
        return int(free)
    return min(_machine_free(), _container_free(), _process_free())


def choose_tile(tile: int | str, info: GeneratorInfo) -> int:
    """The tile side to start with: the generator's default, less where memory is short, or as asked.

    Raises UsageError for a side below the generator's minimum.
    """
    hints = info.tile
    if tile != "auto":
        side = int(tile)
        if side < hints.minimum:
            raise UsageError(f"--tile {side} is too small: {info.name} needs tiles of at least {hints.minimum} pixels.")
        return side
    if not hints.bytes_per_pixel:
        return hints.default
    fitting = math.isqrt(int(free_memory(info.device) * SHARE) // hints.bytes_per_pixel)
    return max(hints.minimum, min(hints.default, fitting // hints.multiple * hints.multiple))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that a smaller tile may work.

    Besides MemoryError and torch's own class, torch's CPU and Apple allocators raise a bare RuntimeError with a text.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def release() -> None:
    """Give memory back after a failure: garbage first, then torch's cache of GPU blocks."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _machine_free() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return sys.maxsize  # not Linux: the generator's default tile stands


def _container_free() -> int:
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such controller, or "max"
            continue
    return sys.maxsize


def _process_free() -> int:
    """What ``ulimit -v`` leaves, as batch systems set it."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return sys.maxsize
    return max(0, limit - used)
