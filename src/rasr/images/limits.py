"""How large a picture may be, decided on its header before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from rasr.errors import PictureTooLarge
from rasr.memory import usable_memory

__all__ = ["Limits"]

FLOOR_PIXELS = 89_478_485
"""Pillow's own warning threshold: no machine is asked to accept less than this."""

BYTES_PER_PIXEL = 24
"""Peak cost of reading: file samples, their copy in Pillow, float32 RGB and one strip of work."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is decoded; None means unbounded. Raises PictureTooLarge from :meth:`check`."""

    max_pixels: int | None = None
    """Width times height."""
    max_side: int | None = None
    max_bytes: int | None = None
    """Size of the file."""
    max_frames: int | None = 10_000
    """Frames or pages; only the first one is ever decoded."""
    count_all_frames: bool = False
    """Whether ``max_pixels`` is for all frames together, as services do, or for the one that is decoded."""
    hint: str = "Raise the limit with --max-megapixels N, or 'none' if you trust the file."
    """What the user can do about a refusal."""

    @classmethod
    def from_memory(cls) -> Limits:
        """For one's own pictures: what fits into half of this machine's memory, and at least 89.48 megapixels."""
        return cls(max_pixels=max(FLOOR_PIXELS, usable_memory() // 2 // BYTES_PER_PIXEL))

    @classmethod
    def service(cls) -> Limits:
        """For strangers' pictures: 50 megapixels over all frames, 32 MiB, 16 384 pixels a side, 60 frames."""
        return cls(50_000_000, 16_384, 32 * 2**20, 60, count_all_frames=True, hint="")

    @classmethod
    def megapixels(cls, number: float | None) -> Limits:
        """As set by ``--max-megapixels``: only that bound, or none at all."""
        return cls(max_pixels=None if number is None else round(number * 1e6))

    def check_bytes(self, size: int, name: str) -> None:
        """Refuse a file of ``size`` bytes when that is too many."""
        if self.max_bytes is not None and size > self.max_bytes:
            raise self._error(name, f"the file has {size / 2**20:.1f} MiB", f"{self.max_bytes / 2**20:g} MiB")

    def check(self, width: int, height: int, frames: int, name: str) -> None:
        """Refuse the picture ``name`` when its header announces too much."""
        if self.max_side is not None and max(width, height) > self.max_side:
            raise self._error(name, f"it has {width}×{height} pixels", f"{self.max_side} pixels a side")
        if self.max_frames is not None and frames > self.max_frames:
            raise self._error(name, f"it has more than {self.max_frames} frames", f"{self.max_frames} frames")
        counted = frames if self.count_all_frames else 1
        if self.max_pixels is not None and width * height * counted > self.max_pixels:
            times = f" × {counted} frames" if counted > 1 else ""
            megapixels = width * height * counted / 1e6
            raise self._error(
                name,
                f"it has {width}×{height} pixels{times} ({megapixels:.1f} megapixels)",
                f"{self.max_pixels / 1e6:.1f} megapixels",
            )

    def _error(self, name: str, found: str, limit: str) -> PictureTooLarge:
        return PictureTooLarge(f"{name}: not read, {found} and the limit is {limit}. {self.hint}".rstrip())
