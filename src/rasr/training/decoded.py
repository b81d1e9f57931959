"""Decoded photos on disk: a crop of a memory-mapped array costs a hundredth of decoding the JPEG again.

The cache lives in the cache folder, is shared by all runs and processes and survives them. A photo enters it by a
rename, so a killed process leaves no half photo; a damaged entry is decoded again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rasr.home import cache_dir
from rasr.images import read_picture, resize
from rasr.training.photos import Photo

__all__ = ["DecodedPhotos"]

Pixels = NDArray[np.uint8]
"""(H, W, 3) sRGB."""


class DecodedPhotos:
    """Reads photos as 8-bit arrays, through the disk cache while it has room."""

    def __init__(self, *, gigabytes: float, long_side: int = 0, folder: Path | None = None) -> None:
        self._folder = folder or cache_dir("training") / "decoded"
        self._long_side = long_side
        self._budget = int(gigabytes * 1e9)
        self._used: int | None = None

    def read(self, photo: Photo) -> Pixels:
        """The photo, (H, W, 3) uint8 and read-only when it comes from the cache. Raises PictureError."""
        entry = self._folder / f"{photo.identity}-{self._long_side}.npy"
        try:
            pixels: Pixels = np.load(entry, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EOFError):
            entry.unlink(missing_ok=True)
        else:
            return pixels
        decoded = self._decode(photo)
        self._keep(entry, decoded)
        return decoded

    def _decode(self, photo: Photo) -> Pixels:
        pixels = read_picture(photo.path).pixels
        height, width = pixels.shape[:2]
        if 0 < self._long_side < max(height, width):
            factor = self._long_side / max(height, width)
            pixels = resize(pixels, (max(1, round(width * factor)), max(1, round(height * factor))))
        return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)

    def _keep(self, entry: Path, pixels: Pixels) -> None:
        """Store unless the budget is used up; a full or read-only disk only means that nothing is stored."""
        if not self._budget:
            return
        if self._used is None:
            self._used = sum(file.stat().st_size for file in self._folder.glob("*.npy")) if self._folder.is_dir() else 0
        if self._used + pixels.nbytes > self._budget:
            return
        part = entry.with_suffix(f".{os.getpid()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.save(file, pixels)
            part.replace(entry)
        except OSError:
            self._budget = 0
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        else:
            self._used += pixels.nbytes
