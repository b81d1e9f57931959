"""References picked by hand, and what a generator is handed of the accepted ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rasr.gallery import Reference
from rasr.generator import Guide
from rasr.images import read_header, read_picture

__all__ = ["load_guides", "picked_references"]


def picked_references(paths: Sequence[Path]) -> list[Reference]:
    """Photos picked by hand, best first: accepted without question, score 1.

    Raises PictureError for a file that is no picture, whether or not the generator will look at it.
    """
    for path in paths:
        read_header(path)
    return [Reference(Path(path), 1.0, rank, why="Picked by hand.") for rank, path in enumerate(paths, 1)]


def load_guides(references: Sequence[Reference]) -> list[Guide]:
    """Read the accepted references, best first. Raises PictureError naming the one that cannot be read."""
    return [
        Guide(read_picture(reference.path).pixels, reference.score, reference.path)
        for reference in references
        if reference.accepted
    ]
