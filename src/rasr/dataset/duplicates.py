"""Which photos are the same, which belong together, and which do not belong to their category."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from rasr.gallery.encoders import Embeddings

__all__ = ["Groups", "hash_array", "outliers", "related_hashes", "related_pairs", "same_by_embedding", "same_by_hash"]

NEIGHBOURS = 5
"""A photo belongs to its category as much as to its five nearest photos there: one category may hold several looks
(herd and portrait, summer and winter coat) and a mean of all would judge the rarer look an outlier."""
FEWEST = 12
"""Photos below which a category's spread cannot be estimated and nothing is called an outlier."""


class Groups:
    """Things that belong together, directly or through others (union-find with path halving)."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, thing: Hashable) -> Hashable:
        """The one member that stands for the whole group of ``thing``."""
        parent = self._parent
        parent.setdefault(thing, thing)
        while parent[thing] != thing:
            parent[thing] = parent[parent[thing]]
            thing = parent[thing]
        return thing

    def join(self, one: Hashable, other: Hashable) -> None:
        """Put both into one group."""
        self._parent[self.find(other)] = self.find(one)


def same_by_hash(hashes: NDArray[np.uint64], distance: int) -> dict[int, int]:
    """Index of a repeated photo → index of the earlier one that it repeats; ``hashes`` is (N,), best photo first.

    A photo is compared with the kept ones only, so that a chain of small changes does not remove a whole category.
    """
    kept = np.empty(len(hashes), np.int64)
    count = 0
    repeated: dict[int, int] = {}
    for index, value in enumerate(hashes):
        near = np.flatnonzero(np.bitwise_count(hashes[kept[:count]] ^ value) <= distance)
        if len(near):
            repeated[index] = int(kept[near[0]])
        else:
            kept[count] = index
            count += 1
    return repeated


def same_by_embedding(embeddings: Embeddings, similarity: float) -> dict[int, int]:
    """Like :func:`same_by_hash`, for unit vectors (N, D) that are at least ``similarity`` (cosine) alike."""
    kept: list[int] = []
    repeated: dict[int, int] = {}
    for index, vector in enumerate(embeddings):
        near = np.flatnonzero(embeddings[kept] @ vector >= similarity)
        if len(near):
            repeated[index] = kept[int(near[0])]
        else:
            kept.append(index)
    return repeated


def related_pairs(embeddings: Embeddings, similarity: float) -> Iterable[tuple[int, int]]:
    """Pairs i < j of unit vectors (N, D) that are at least ``similarity`` (cosine) alike, row by row of the matrix."""
    for index in range(len(embeddings) - 1):
        alike = np.flatnonzero(embeddings[index + 1 :] @ embeddings[index] >= similarity)
        yield from ((index, index + 1 + int(other)) for other in alike)


def related_hashes(hashes: NDArray[np.uint64], distance: int) -> Iterable[tuple[int, int]]:
    """Pairs i < j of 64-bit hashes (N,) that differ in at most ``distance`` bits."""
    for index in range(len(hashes) - 1):
        alike = np.flatnonzero(np.bitwise_count(hashes[index + 1 :] ^ hashes[index]) <= distance)
        yield from ((index, index + 1 + int(other)) for other in alike)


def outliers(embeddings: Embeddings, deviations: float) -> dict[int, float]:
    """Index → robust standard deviations below the category, for photos more than ``deviations`` below.

    A photo's score is its mean cosine to its five nearest neighbours among unit vectors (N, D); the spread is
    1.4826 × the median absolute deviation, which a few wrong photos do not move.
    """
    count = len(embeddings)
    if count < FEWEST:
        return {}
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -1.0)
    scores = np.sort(cosines, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    below = np.median(scores) - scores
    spread = 1.4826 * float(np.median(np.abs(below)))
    if spread <= 0:
        return {}
    return {int(index): float(below[index] / spread) for index in np.flatnonzero(below / spread > deviations)}


def hash_array(hashes: Sequence[str]) -> NDArray[np.uint64]:
    """64-bit hashes given as hexadecimal digits."""
    return np.array([int(text, 16) for text in hashes], np.uint64)
