"""Telling that two files show the same picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.images import FloatImage

__all__ = ["NEAR_BITS", "NEAR_COSINE", "content_hash", "hamming", "perceptual_hash"]

NEAR_BITS = 8
"""Perceptual hashes that differ in at most so many of 64 bits show the same picture.

Measured on 435 photos: different photos differ in 12 bits or more, re-encoded, resized or recoloured copies in at most
6, copies cropped by 5 % in at most 8 for 93 % (docs/decisions.md).
"""
NEAR_COSINE = 0.95
"""Embeddings closer than this count as the same picture for the leak guard: it catches mirrored and cropped copies,
and no two different photos of those 435 come closer than 0.90."""


def content_hash(content: bytes) -> str:
    """xxh3-128 of a file's bytes, 32 hexadecimal digits: a photo's id."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(content)


def perceptual_hash(pixels: FloatImage) -> int:
    """64-bit DCT hash (imagehash.phash) of (H, W, 3) pixels in [0, 1].

    Luma (Rec. 601) is reduced to 32×32 in float before imagehash sees it, so that the hash does not depend on how a
    reader rounds.
    """
    import imagehash

    luma = Image.fromarray(np.ascontiguousarray(pixels @ np.array([0.299, 0.587, 0.114], np.float32)))
    # The gap first averages whole blocks: a tenth of the time, and the hash tells pictures apart as well.
    small = np.asarray(luma.resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=3.0))
    bits: Any = imagehash.phash(Image.fromarray(np.clip(small * 255.0 + 0.5, 0, 255).astype(np.uint8))).hash
    return int.from_bytes(np.packbits(bits.reshape(-1)).tobytes(), "big")


def hamming(hashes: NDArray[np.uint64], other: int) -> NDArray[np.uint8]:
    """Number of differing bits between each of (N,) 64-bit ``hashes`` and ``other``."""
    distances: NDArray[np.uint8] = np.bitwise_count(hashes ^ np.uint64(other))
    return distances
