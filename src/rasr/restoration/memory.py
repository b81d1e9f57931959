"""How large a tile the free memory allows."""

from __future__ import annotations

import math

from rasr.errors import UsageError
from rasr.generator import GeneratorInfo
from rasr.memory import free_memory

__all__ = ["choose_tile"]

SHARE = 0.5
"""Part of the free memory a tile may take: the rest is for the canvas, the decoder and other programs."""


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
