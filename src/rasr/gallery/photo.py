"""A photo of a gallery, a reference with its score, and telling that two pictures show the same."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.files import xxh3_file
from rasr.images import FloatImage

NEAR_BITS = 8
"""Perceptual hashes that differ in at most so many of 64 bits show the same picture.

Measured on 435 photos: different photos differ in 12 bits or more, re-encoded, resized or recoloured copies in at most
6, copies cropped by 5 % in at most 8 for 93 % (docs/decisions.md).
"""
NEAR_COSINE = 0.95
"""Embeddings closer than this count as the same picture for the leak guard: it catches mirrored and cropped copies,
and no two different photos of those 435 come closer than 0.90."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of the gallery."""

    id: str
    """Content hash: xxh3-128 of the file's bytes, 32 hexadecimal digits."""
    path: Path
    """Absolute path of the file."""
    size: int
    """Bytes."""
    mtime_ns: int
    width: int
    """Pixels, upright (EXIF orientation applied)."""
    height: int
    phash: int
    """64-bit perceptual hash (imagehash.phash) of the upright picture."""
    category: str = ""
    """Folder below the added one, with forward slashes, or the category given; may be empty."""
    tags: tuple[str, ...] = ()
    added: str = ""
    """UTC time of adding, ISO 8601."""
    near_duplicate_of: str = ""
    """Id of the earlier photo that shows the same picture, or empty."""

    def is_current(self, found: Path | None = None) -> bool:
        """True unless the file is gone or has visibly changed, in size or time, since it was added.

        ``found`` is the same path as it was just found: what a list of objects told of it is not asked for again.
        """
        try:
            status: os.stat_result = getattr(found, "listed", None) or self.path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)

    def fault(self) -> str:
        """Why the file cannot stand for what was embedded, in one sentence; empty when it is as it was added.

        A file that was copied or touched, so that only its time is another, is compared by content.
        """
        if self.is_current():
            return ""
        try:
            changed = self.path.stat().st_size != self.size or xxh3_file(self.path) != self.id
        except FileNotFoundError:
            return "The photo's file is missing."
        except OSError as error:
            return f"The photo cannot be read ({error.strerror or error})."
        return "The photo has changed since it was indexed. Add it again to use it." if changed else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``rasr gallery list --json`` prints a photo."""
        return {
            "path": str(self.path),
            "id": self.id,
            "category": self.category,
            "tags": list(self.tags),
            "width": self.width,
            "height": self.height,
            "size": self.size,
            "added": self.added,
            "near_duplicate_of": self.near_duplicate_of or None,
        }


@dataclass(frozen=True, slots=True)
class Reference:
    """A photo proposed, or accepted, to guide a restoration: found in a gallery, paired, or picked by hand."""

    path: Path
    """The photo's file, where the user keeps it."""
    score: float
    """Cosine similarity of the L2-normalised embeddings, in [-1, 1]; 1.0 for a reference picked by hand."""
    rank: int
    """1 for the best match."""
    category: str = ""
    """Sub-folder or explicit category the photo was added under; empty when it has none."""
    tags: tuple[str, ...] = ()
    """Free tags given when the photo was added."""
    accepted: bool = True
    """Whether the retrieval policy lets this photo guide the restoration."""
    why: str = ""
    """One sentence: why it was accepted or turned down."""
    id: str = ""
    """Content hash of a gallery photo: results may be kept for the picture and not for its place."""
    usable: bool = True
    """False where the photo is gone or no longer the one that was indexed: nothing is taken from it."""
    verdict: Literal["", "same scene", "same kind", "unrelated", "not verified"] = ""
    """What the photo shows, by geometry and then by likeness; ``not verified`` for one picked by hand, whose likeness
    nobody measured, and in which geometry does not find the scene. Empty where it was not looked into."""
    share: float | None = None
    """Share of the result, 0 to 1, whose detail is this photo's; None where none was fused."""
    changed: float | None = None
    """Share of the result, 0 to 1, that a generator drew with this photo in view: changed because of it, no evidence.
    None where none was shown it."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``--json`` prints a reference."""
        return {
            "path": str(self.path),
            "score": round(float(self.score), 6),
            "rank": self.rank,
            "category": self.category,
            "tags": list(self.tags),
            "accepted": self.accepted,
            "why": self.why,
            "verdict": self.verdict or None,
            "share": None if self.share is None else round(self.share, 4),
            "changed": None if self.changed is None else round(self.changed, 4),
        }


def is_within(category: str, wanted: str | Collection[str]) -> bool:
    """True when ``category`` is one of those ``wanted`` or below one of them."""
    names = [wanted] if isinstance(wanted, str) else wanted
    return any(category == one or category.startswith(f"{one}/") for one in names)


def perceptual_hash(pixels: FloatImage) -> int:
    """Hash (H, W, 3) pixels in [0, 1] by their lowest frequencies: 64 bits, those of ``imagehash.phash``.

    A bit of the 8×8 lowest terms of a 32×32 picture's DCT is 1 where the term is above their median. Luma (Rec. 601)
    is reduced in float, so that the hash does not depend on how a reader rounds.
    """
    from scipy.fft import dct

    luma = Image.fromarray(np.ascontiguousarray(pixels @ np.array([0.299, 0.587, 0.114], np.float32)))
    # The gap first averages whole blocks: a tenth of the time, and the hash tells pictures apart as well.
    small = np.asarray(luma.resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=3.0))
    levels = np.floor(np.clip(small * 255.0 + 0.5, 0, 255)).astype(np.float64)
    lowest = dct(dct(levels, axis=0), axis=1)[:8, :8]
    return int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes(), "big")


def hamming(hashes: NDArray[np.uint64], other: int) -> NDArray[np.uint8]:
    """Number of differing bits between each of (N,) 64-bit ``hashes`` and ``other``."""
    distances: NDArray[np.uint8] = np.bitwise_count(hashes ^ np.uint64(other))
    return distances
