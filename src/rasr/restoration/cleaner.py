"""Cleaning: what runs before the generator, kept for the next call, and before retrieval; and the semantic context."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from rasr.generator import PRESETS
from rasr.images import FloatImage

__all__ = ["CleanedPictures", "context_options"]

BYTES = 128 * 2**20
Key = tuple[str, tuple[int, ...], tuple[int, int]]


class CleanedPictures:
    """Least recently used pictures leave first once more than ``limit`` bytes are held; larger ones are never kept."""

    def __init__(self, limit: int = BYTES) -> None:
        self._limit = limit
        self._kept: OrderedDict[Key, tuple[FloatImage, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, lq: FloatImage, size: tuple[int, int], clean: Callable[[], FloatImage]) -> tuple[FloatImage, float]:
        """The cleaned picture of ``lq`` at ``size`` (width, height), read-only, and the seconds that keeping it saved.

        ``clean`` makes it when it is new.
        """
        key = (xxhash.xxh3_128_hexdigest(np.ascontiguousarray(lq).data), lq.shape, size)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        begun = time.perf_counter()
        cleaned = clean()
        seconds = time.perf_counter() - begun
        cleaned.flags.writeable = False
        if cleaned.nbytes <= self._limit:
            with self._lock:
                self._kept[key] = cleaned, seconds
                while sum(picture.nbytes for picture, _ in self._kept.values()) > self._limit:
                    self._kept.popitem(last=False)
        return cleaned, 0.0


def context_options(preset: str) -> dict[str, Any]:
    """Option ``embed`` for presets that read an embedding of the LQ picture in place of a text; empty for the others.

    The encoder is the preset's own, whatever the gallery was built with, and is loaded on first use.
    """
    entry = PRESETS.get(preset)
    if entry is None or not entry.context_encoder:
        return {}
    from rasr.gallery.encoders import load_encoder

    encoder = cache(lambda: load_encoder(entry.context_encoder))

    def embed(pixels: FloatImage) -> NDArray[np.float32]:
        vectors = encoder().embed(encoder().preprocess(pixels)[None])
        return np.asarray(vectors[0])

    return {"embed": embed}
