"""Degrading pictures: one array with a seed and a name, or a batch of tensors with its recipes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rasr.degrade.apply import apply_recipe
from rasr.degrade.recipe import Recipe, draw
from rasr.errors import PictureError
from rasr.images import FloatImage

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["crop_to_multiple", "degrade", "degrade_array", "degrade_batch"]


def degrade(
    pixels: FloatImage, *, preset: str = "realesrgan", scale: int = 4, seed: int, name: str, usm: bool = False
) -> tuple[FloatImage, dict[str, Any]]:
    """Degrade a picture by Real-ESRGAN's two-stage pipeline.

    ``pixels`` is (H, W, 3) float32 RGB in [0, 1] with H and W multiples of ``scale`` (:func:`crop_to_multiple` makes
    them so; PictureError otherwise). Returns the LQ (H/scale, W/scale, 3), whose values are exact 8-bit levels k/255,
    and the manifest of drawn parameters, which :class:`Recipe` reads back. The same (seed, name) always draws the same.
    """
    recipe = draw(preset, scale=scale, seed=seed, name=name, usm=usm)
    return degrade_array(pixels, recipe), recipe.model_dump(mode="json")


def degrade_array(pixels: FloatImage, recipe: Recipe) -> FloatImage:
    """Apply a drawn or stored recipe to (H, W, 3) float32 pixels; see :func:`degrade` for sizes and values."""
    import torch

    with torch.inference_mode():
        hr = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))
        return np.ascontiguousarray(apply_recipe(hr, recipe).permute(1, 2, 0).numpy())


def degrade_batch(hr: Tensor, recipes: Sequence[Recipe]) -> Tensor:
    """Degrade (N, 3, H, W) float32 RGB in [0, 1] → (N, 3, H/scale, W/scale) on the same device, no gradient.

    All recipes must share one scale. Each picture equals what it would be alone, bit for bit. On a GPU the filters and
    resizes run there; noise and JPEG stay on the CPU, and rounding may differ from the CPU's by single grey levels.
    """
    import torch

    if len(recipes) != hr.shape[0] or len({recipe.scale for recipe in recipes}) != 1:
        raise ValueError(f"{hr.shape[0]} pictures need as many recipes of one scale, not {len(recipes)}")
    with torch.no_grad():
        return torch.stack([apply_recipe(picture, recipe) for picture, recipe in zip(hr, recipes, strict=True)])


def crop_to_multiple(pixels: FloatImage, scale: int) -> FloatImage:
    """Cut right and bottom so that both sides are multiples of ``scale``: the HR that matches an LQ exactly.

    Raises PictureError when a side is shorter than ``scale``.
    """
    height, width = pixels.shape[0] // scale * scale, pixels.shape[1] // scale * scale
    if not height or not width:
        raise PictureError(
            f"A picture of {pixels.shape[1]}x{pixels.shape[0]} pixels is too small to shrink by {scale}."
        )
    return pixels[:height, :width]
