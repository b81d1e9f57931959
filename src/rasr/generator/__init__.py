"""Generators: low-quality tiles in, restored tiles out."""

from rasr.generator.presets import DEFAULT_PRESET, PRESETS, Preset, load_generator
from rasr.generator.protocol import (
    Batch,
    Conditioning,
    GenerationSettings,
    Generator,
    GeneratorInfo,
    ReferencePicture,
    TileHints,
    Unconditioned,
)

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "Batch",
    "Conditioning",
    "GenerationSettings",
    "Generator",
    "GeneratorInfo",
    "Preset",
    "ReferencePicture",
    "TileHints",
    "Unconditioned",
    "load_generator",
]
