"""Generators: low-quality tiles in, restored tiles out."""

from rasr.generator.presets import DEFAULT_PRESET, PRESETS, QUERY_CLEANER, Preset, clean_query, load_generator
from rasr.generator.protocol import (
    DEFAULT_DETAIL,
    Batch,
    Conditioning,
    Cuttable,
    GenerationSettings,
    Generator,
    GeneratorInfo,
    ReferencePicture,
    TileHints,
    Unconditioned,
)

__all__ = [
    "DEFAULT_DETAIL",
    "DEFAULT_PRESET",
    "PRESETS",
    "QUERY_CLEANER",
    "Batch",
    "Conditioning",
    "Cuttable",
    "GenerationSettings",
    "Generator",
    "GeneratorInfo",
    "Preset",
    "ReferencePicture",
    "TileHints",
    "Unconditioned",
    "clean_query",
    "load_generator",
]
