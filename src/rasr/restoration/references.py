"""Which photos may guide a restoration: found in the gallery, picked by hand, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rasr.gallery.reference import Reference
from rasr.generator import Guide
from rasr.images import Picture, read_header, read_picture

if TYPE_CHECKING:
    from rasr.gallery import Gallery

__all__ = ["find_references", "load_guides", "picked_references"]

SHOWN = 5
"""Matches looked at and reported, used or not, so that a user can pick another one."""


def picked_references(paths: Sequence[Path]) -> list[Reference]:
    """Photos picked by hand, best first: accepted without question, score 1.

    Raises PictureError for a file that is no picture, whether or not the generator will look at it.
    """
    for path in paths:
        read_header(path)
    return [Reference(Path(path), 1.0, rank, why="Picked by hand.") for rank, path in enumerate(paths, 1)]


def find_references(query: Picture, gallery: Gallery, k: int) -> list[Reference]:
    """The gallery's best matches for ``query``, of which the retrieval policy accepts up to ``k``.

    The query's own file is never proposed. Raises what searching raises: GalleryNotFound, GalleryCorrupt,
    EncoderMismatch.
    """
    from rasr.gallery.policy import choose

    own = [query.path] if query.path is not None else []
    embedding = gallery.embedding_of(query)
    proposals = gallery.search(embedding, max(k, SHOWN), exclude=own)
    return choose(proposals, gallery.scores(embedding), gallery.encoder.name, k=k)


def load_guides(references: Sequence[Reference]) -> list[Guide]:
    """Read the accepted references, best first. Raises PictureError naming the one that cannot be read."""
    return [
        Guide(read_picture(reference.path).pixels, reference.score, reference.path)
        for reference in references
        if reference.accepted
    ]
