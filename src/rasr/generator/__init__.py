"""Generators: low-quality tiles in, restored tiles out."""

from rasr.generator.protocol import (
    Batch,
    Conditioning,
    GenerationSettings,
    Generator,
    GeneratorInfo,
    Guide,
    TileHints,
    Unconditioned,
)

__all__ = [
    "Batch",
    "Conditioning",
    "GenerationSettings",
    "Generator",
    "GeneratorInfo",
    "Guide",
    "TileHints",
    "Unconditioned",
]
