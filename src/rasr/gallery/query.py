"""What a search is for: pictures, files and embeddings, made ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rasr.errors import UsageError
from rasr.gallery.duplicates import content_hash, perceptual_hash
from rasr.gallery.encoders import Encoder
from rasr.images import Picture, read_picture

__all__ = ["Query", "Queryable", "prepare"]

Queryable = Picture | str | Path | NDArray[np.float32]

BATCH = 32


@dataclass(slots=True, eq=False)
class Query:
    """One picture to look for."""

    embedding: NDArray[np.float32]
    """(D,), of length 1."""
    photo: str | None = None
    """Content hash of the query's file, for the leak guard."""
    phash: int | None = None
    """Perceptual hash of the query, for the leak guard."""


def prepare(queries: Sequence[Queryable], encoder: Encoder, dimension: int) -> list[Query]:
    """Embed pictures and picture files in batches; take embeddings as they are, made to length 1.

    Raises PictureError for a file that is no picture, UsageError for an embedding of the wrong shape.
    """
    prepared: dict[int, Query] = {}
    tensors: dict[int, NDArray[np.float32]] = {}
    for position, query in enumerate(queries):
        if isinstance(query, np.ndarray):
            prepared[position] = Query(_unit(query, dimension))
            continue
        picture = query if isinstance(query, Picture) else read_picture(query)
        path = picture.path if isinstance(query, Picture) else Path(query)
        photo = content_hash(path.read_bytes()) if path is not None and path.is_file() else None
        tensors[position] = encoder.preprocess(picture.pixels)
        prepared[position] = Query(np.zeros(0, np.float32), photo, perceptual_hash(picture.pixels))
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
