"""Bicubic interpolation: the baseline every table starts with, and the quickest way through the whole pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from rasr.generator.protocol import (
    Batch,
    Conditioning,
    GenerationSettings,
    GeneratorInfo,
    Guide,
    TileHints,
    Unconditioned,
)
from rasr.images import FloatImage

__all__ = ["Bicubic"]


class Bicubic:
    """Works on the output grid, where the restore room has already resampled bicubically: nothing is left to do."""

    info = GeneratorInfo(
        name="bicubic",
        uses_reference=False,
        grid="output",
        scale=1,
        tile=TileHints(default=1024, minimum=64, overlap=0, bytes_per_pixel=24),
        device="cpu: interpolation needs no GPU",
    )
    cleaner = None

    def prepare(self, lq: FloatImage, guides: Sequence[Guide], settings: GenerationSettings) -> Conditioning:
        """Nothing to compute."""
        return Unconditioned(settings)

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """The tiles as they are: (N, H, W, 3) → (N, H, W, 3)."""
        return tiles
