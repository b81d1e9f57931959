"""Degradation: from a good photo to a realistic bad one, reproducibly."""

from rasr.degrade.apply import apply_recipe, crop_to_multiple, degrade, degrade_array, degrade_batch
from rasr.degrade.presets import PRESETS
from rasr.degrade.recipe import Recipe, draw

__all__ = [
    "PRESETS",
    "Recipe",
    "apply_recipe",
    "crop_to_multiple",
    "degrade",
    "degrade_array",
    "degrade_batch",
    "draw",
]
