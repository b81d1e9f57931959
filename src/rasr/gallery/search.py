"""Exact search in one state of a gallery: queries made ready, rows filtered, scored and put in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from rasr.errors import UsageError
from rasr.files import xxh3_file
from rasr.gallery.database import Manifest, Table
from rasr.gallery.encoders import Encoder
from rasr.gallery.photo import NEAR_BITS, NEAR_COSINE, Photo, hamming, is_within, perceptual_hash
from rasr.images import FloatImage, Picture, read_picture
from rasr.object_path import expand, place
from rasr.objects import is_address

CleanQuery = Callable[[FloatImage, int], FloatImage]
"""``clean(pixels, input_size)``: the (H, W, 3) picture that an encoder with a square of ``input_size`` pixels is to see
in place of ``pixels``. Handed in, because cleaning takes a generator and galleries know of none."""

BATCH = 32
"""Pictures embedded at once."""


@dataclass(slots=True, eq=False)
class Query:
    """A picture to look for, embedded."""

    embedding: NDArray[np.float32]
    """(D,), of length 1."""
    photo: str | None = None
    """Content hash of the query's file, for the leak guard."""
    phash: int | None = None
    """Perceptual hash of the query, for the leak guard."""

    @classmethod
    def prepare(
        cls,
        queries: Sequence[Queryable],
        encoder: Encoder,
        dimension: int,
        *,
        clean: CleanQuery | None = None,
        guard: bool = False,
    ) -> list[Query]:
        """Embed pictures and picture files in batches; take embeddings as they are, made to length 1.

        ``clean`` is applied to pictures first; ``guard`` also computes what the leak guard compares. Raises
        PictureError for a file that is no picture, UsageError for an embedding of the wrong shape.
        """
        prepared: list[Query] = []
        waiting: list[tuple[Query, NDArray[np.float32]]] = []
        for asked in queries:
            if isinstance(asked, Query):
                prepared.append(asked)
            elif isinstance(asked, np.ndarray):
                prepared.append(cls(_unit(asked, dimension)))
            else:
                picture = asked if isinstance(asked, Picture) else read_picture(asked)
                pixels = clean(picture.opaque(), encoder.input_size) if clean else picture.opaque()
                query = cls(np.zeros(0, np.float32))
                if guard:
                    path = picture.path if isinstance(asked, Picture) else place(asked)
                    query.photo = xxh3_file(path) if path and path.is_file() else None
                    query.phash = perceptual_hash(pixels)
                prepared.append(query)
                waiting.append((query, encoder.preprocess(pixels)))
            if len(waiting) == BATCH:
                _embed(waiting, encoder)
        _embed(waiting, encoder)
        return prepared


Queryable = Picture | str | Path | NDArray[np.float32] | Query
"""A picture, a picture file, an embedding (D,), or one of these made ready before."""


def _embed(waiting: list[tuple[Query, NDArray[np.float32]]], encoder: Encoder) -> None:
    if waiting:
        for (query, _), vector in zip(waiting, encoder.embed(np.stack([one for _, one in waiting])), strict=True):
            query.embedding = vector
        waiting.clear()


def _unit(embedding: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    if embedding.shape != (dimension,) or not np.isfinite(embedding).all() or not embedding.any():
        raise UsageError(f"A query embedding is ({dimension},), finite and not zero, not {embedding.shape}.")
    length = float(np.linalg.norm(embedding))
    if abs(length - 1.0) < 1e-5:  # an encoder's answer: the same scores as for the picture it came from
        return embedding.astype(np.float32)
    unit: NDArray[np.float32] = (embedding / length).astype(np.float32)
    return unit


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


class Snapshot:
    """One state of a gallery, loaded for searching."""

    def __init__(self, table: Table) -> None:
        assert table.vectors is not None  # noqa: S101  (narrowing: read with them)
        self.table = table
        self._matrix = table.vectors

    @property
    def manifest(self) -> Manifest:
        """The state that is searched."""
        return self.table.manifest

    def prewarm(self) -> str:
        """Nothing to load: says that it is in memory."""
        return "searched exactly, in memory"

    def search(self, queries: Sequence[Query], k: int, filters: Filters) -> list[list[tuple[int, float]]]:
        """For each query the rows and cosine similarities of the ``k`` best photos, best first, ties by path."""
        mask, least = self.mask(filters), filters.get("min_score")
        answers = []
        for query in queries:
            scores = self.scores(query)
            allowed = self._guarded(query, scores, mask) if filters.get("exclude_near_duplicates") else mask
            hits = self._best(query, scores, k, allowed)
            answers.append([hit for hit in hits if least is None or hit[1] >= least])
        return answers

    def photos(self, hits: Iterable[tuple[int, float]]) -> list[Photo]:
        """The photos of an answer, in its order."""
        return self.table.photos([row for row, _ in hits])

    def scores(self, query: Query) -> NDArray[np.float32]:
        """(N,) cosine similarities of all rows with ``query``."""
        scores: NDArray[np.float32] = self._matrix @ query.embedding
        return scores

    def mask(self, filters: Filters) -> NDArray[np.bool_]:
        """(N,) True for the rows that ``category``, ``tags`` and ``exclude`` let pass."""
        allowed = np.ones(len(self._matrix), np.bool_)
        category, tags = filters.get("category"), filters.get("tags")
        if category is not None:
            known = {name: is_within(name, category) for name in {*self._columns[7]}}
            allowed &= np.fromiter(map(known.__getitem__, self._columns[7]), np.bool_, len(allowed))
        if tags:
            needed = {tags} if isinstance(tags, str) else {*tags}
            allowed &= np.fromiter(map(needed.issubset, self._columns[8]), np.bool_, len(allowed))
        for one in filters.get("exclude", ()):
            row = self._row_of(one)
            if row is not None:
                allowed[row] = False
        return allowed

    def _guarded(self, query: Query, scores: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``mask`` without the rows that show the query's own picture: same bytes, or nearly the same looks."""
        allowed = mask & (scores <= NEAR_COSINE)
        if query.phash is not None:
            allowed &= hamming(self._phashes, query.phash) > NEAR_BITS
        if query.photo in self._rows:
            allowed[self._rows[query.photo]] = False
        return allowed

    def _best(
        self, query: Query, scores: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> list[tuple[int, float]]:
        """The best ``k`` allowed rows by ``scores``, which only need to be right to 1e-5."""
        rows = None if allowed.all() else np.flatnonzero(allowed)
        found = scores if rows is None else scores[rows]
        if not len(found):
            return []
        # Matrix products round differently for one query and for a batch; everything that close to the k-th best is
        # scored again in double precision, row by row, so that order and scores depend on the stored vectors alone.
        worst = np.partition(found, -k)[-k] if k < len(found) else found.min()
        near = np.flatnonzero(found >= worst - 1e-5)
        rows = near if rows is None else rows[near]
        exact = (self._matrix[rows].astype(np.float64) * query.embedding.astype(np.float64)).sum(axis=1)
        # Only what is tied needs its path: of millions of photos few are parsed.
        order = np.argsort(-exact, kind="stable")
        last = exact[order[min(k, len(order)) - 1]]
        order = order[: np.count_nonzero(exact >= last)]
        paths = [fields[1] for fields in self.table.parse(rows[order])]
        placed = sorted(zip(-exact[order], paths, rows[order], strict=True), key=lambda hit: hit[:2])[:k]
        return [(int(row), float(np.clip(-score, -1.0, 1.0))) for score, _, row in placed]

    @cached_property
    def _columns(self) -> list[tuple[Any, ...]]:
        """Fields of all photos, column by column."""
        return list(zip(*self.table.parse(), strict=True)) or [()] * 11

    @cached_property
    def _phashes(self) -> NDArray[np.uint64]:
        return np.array(self._columns[6], np.uint64)

    @cached_property
    def _rows(self) -> dict[str | None, int]:
        """Row by content hash and by absolute path."""
        root = self.table.folder or ""
        rows: dict[str | None, int] = {photo: row for row, photo in enumerate(self._columns[0])}
        places = (path if is_address(path) else os.path.join(root, path) for path in self._columns[1])  # noqa: PTH118  (fast)
        return rows | {path: row for row, path in enumerate(places)}

    def _row_of(self, key: str | Path) -> int | None:
        """Row of a photo given by content hash or path."""
        row = self._rows.get(str(key))
        return self._rows.get(str(expand(place(key)).resolve())) if row is None else row
