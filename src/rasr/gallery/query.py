"""Queries: pictures, files and embeddings, made ready to be searched for, and what may be asked of the answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from rasr.errors import UsageError
from rasr.gallery.duplicates import content_hash, perceptual_hash
from rasr.gallery.encoders import Encoder
from rasr.images import Picture, read_picture

__all__ = ["Filters", "Query", "Queryable", "prepare"]

BATCH = 32


@dataclass(slots=True, eq=False)
class Query:
    """A picture to look for, embedded."""

    embedding: NDArray[np.float32]
    """(D,), of length 1."""
    photo: str | None = None
    """Content hash of the query's file, for the leak guard."""
    phash: int | None = None
    """Perceptual hash of the query, for the leak guard."""


Queryable = Picture | str | Path | NDArray[np.float32] | Query
"""A picture, a picture file, an embedding (D,), or one of these made ready before."""


class Filters(TypedDict, total=False):
    """The options of a search."""

    category: str | Collection[str] | None
    """Only these categories and those below them."""
    tags: str | Collection[str] | None
    """Only photos that have all of these."""
    exclude: Iterable[str | Path]
    """Paths or content hashes never to return."""
    exclude_near_duplicates: bool
    """The leak guard: leave out photos that show the query's own picture."""
    min_score: float | None
    """Leave out photos less similar than this."""


def prepare(queries: Sequence[Queryable], encoder: Encoder, dimension: int, *, guard: bool = True) -> list[Query]:
    """Embed pictures and picture files in batches; take embeddings as they are, made to length 1.

    ``guard`` also computes what the leak guard compares. Raises PictureError for a file that is no picture, UsageError
    for an embedding of the wrong shape.
    """
    prepared: dict[int, Query] = {}
    tensors: dict[int, NDArray[np.float32]] = {}
    for position, query in enumerate(queries):
        if isinstance(query, Query):
            prepared[position] = query
            continue
        if isinstance(query, np.ndarray):
            prepared[position] = Query(_unit(query, dimension))
            continue
        picture = query if isinstance(query, Picture) else read_picture(query)
        tensors[position] = encoder.preprocess(picture.pixels)
        prepared[position] = Query(np.zeros(0, np.float32))
        if guard:
            path = picture.path if isinstance(query, Picture) else Path(query)
            prepared[position].photo = content_hash(path.read_bytes()) if path and path.is_file() else None
            prepared[position].phash = perceptual_hash(picture.pixels)
        if len(tensors) == BATCH:
            _embed(tensors, prepared, encoder)
    _embed(tensors, prepared, encoder)
    return [prepared[position] for position in range(len(queries))]


def _embed(tensors: dict[int, NDArray[np.float32]], prepared: dict[int, Query], encoder: Encoder) -> None:
    if tensors:
        for position, vector in zip(tensors, encoder.embed(np.stack(list(tensors.values()))), strict=True):
            prepared[position].embedding = vector
        tensors.clear()


def _unit(embedding: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    if embedding.shape != (dimension,) or not np.isfinite(embedding).all() or not embedding.any():
        raise UsageError(f"A query embedding is ({dimension},), finite and not zero, not {embedding.shape}.")
    length = float(np.linalg.norm(embedding))
    if abs(length - 1.0) < 1e-5:  # an encoder's answer: the same scores as for the picture it came from
        return embedding.astype(np.float32)
    unit: NDArray[np.float32] = (embedding / length).astype(np.float32)
    return unit
