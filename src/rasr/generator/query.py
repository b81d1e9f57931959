"""Query cleaning: encoders trained on good photos take blur, noise and blocks for content."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

from rasr.generator.presets import load_generator
from rasr.generator.protocol import GenerationSettings, Generator
from rasr.images import FloatImage, resize

__all__ = ["QUERY_CLEANER", "clean_query"]

QUERY_CLEANER = "realesrgan-tuned"
"""The generator that cleans queries, whatever restores them, so that every preset finds the same references. It also
runs before the default preset, whose picture then serves both."""
SIDE = 96
"""Shorter side, in pixels, to which a query is reduced first: what the encoder sees of it is no finer."""
REACH = 1.75
"""Longer side, as a multiple of the shorter one, beyond which the ends are cut off: encoders look at the middle."""


def clean_query(
    pixels: FloatImage,
    input_size: int,
    mode: Literal["auto", "on", "off"] = "auto",
    *,
    cleaned: FloatImage | None = None,
) -> FloatImage:
    """Clean ``pixels`` (H, W, 3) for an encoder that sees a square of ``input_size`` pixels.

    ``auto`` cleans a picture whose shorter side is smaller than that, which the encoder would only see interpolated;
    ``on`` cleans any, and ``off`` none. ``cleaned`` is what :data:`QUERY_CLEANER` has already made of the picture; it
    is taken where it would be made again. Raises WeightsMissing or WeightsCorrupt.
    """
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    if mode == "off" or (mode == "auto" and shorter >= input_size):
        return pixels
    generator = _cleaner()
    scale = generator.info.scale
    if cleaned is not None and shorter <= input_size and cleaned.shape[:2] == (height * scale, width * scale):
        return cleaned
    reach = round(shorter * REACH)
    top, left = max(0, (height - reach) // 2), max(0, (width - reach) // 2)
    middle = pixels[top : height - top, left : width - left]
    reduce = min(1.0, SIDE / shorter)
    size = (max(1, round(middle.shape[1] * reduce)), max(1, round(middle.shape[0] * reduce)))
    lq = np.clip(resize(middle, size), 0.0, 1.0)
    answer: FloatImage = generator.generate(lq[None], None, generator.prepare(lq, [], GenerationSettings()))[0]
    return answer


@cache
def _cleaner() -> Generator:
    return load_generator(QUERY_CLEANER)
