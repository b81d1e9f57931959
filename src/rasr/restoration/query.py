"""Clean a low-quality picture before it is looked up: encoders trained on good photos see blur and noise as content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rasr.images import FloatImage, Picture, resize
from rasr.restoration.memory import choose_tile
from rasr.restoration.tile_runner import generate_tiled

if TYPE_CHECKING:
    from rasr.generator import Generator
    from rasr.restoration.settings import QueryRestore

__all__ = ["restore_query"]


def restore_query(
    picture: Picture,
    mode: QueryRestore,
    generator: Generator,
    *,
    input_size: int,
    restored: FloatImage | None = None,
) -> Picture:
    """The picture to embed in place of ``picture``: restored by ``generator`` at the size the encoder will look at.

    ``input_size`` is the side of the encoder's square. ``auto`` restores a picture whose shorter side is smaller than
    that, which the encoder would only see interpolated; ``on`` restores any, and ``off`` none. Larger pictures are
    first reduced to what the encoder can see, so that the cost is that of one or two tiles. ``restored`` is what the
    same generator has already made of the picture, and is taken where it would be made again.
    """
    shorter = min(picture.width, picture.height)
    if mode == "off" or (mode == "auto" and shorter >= input_size):
        return picture
    scale = generator.info.scale if generator.info.grid == "input" else 1
    reduce = min(1.0, input_size / shorter)
    small = max(1, round(picture.width * reduce)), max(1, round(picture.height * reduce))
    size = small[0] * scale, small[1] * scale
    if restored is not None and reduce == 1 and restored.shape[1::-1] == size:
        return picture.with_pixels(restored)
    lq = np.clip(resize(picture.pixels, small), 0.0, 1.0)
    from rasr.generator import GenerationSettings

    conditioning = generator.prepare(lq, [], GenerationSettings())
    restored, _ = generate_tiled(generator, conditioning, lq, size, tile=choose_tile("auto", generator.info))
    return picture.with_pixels(restored)
