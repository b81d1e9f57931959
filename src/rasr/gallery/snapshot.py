"""One version of a gallery, loaded for searching."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasr.gallery.duplicates import NEAR_BITS, NEAR_COSINE, hamming
from rasr.gallery.photo import Photo, from_row
from rasr.gallery.pointer import Pointer
from rasr.gallery.query import Query

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Hit", "Mask", "Snapshot", "matrix"]

Mask = NDArray[np.bool_]
Hit = tuple[int, float]
"""(row, cosine similarity)."""


class Snapshot:
    """Rows of a gallery at ``pointer``, with all vectors in memory: search is exact."""

    def __init__(self, pointer: Pointer, rows: pa.Table, root: Path | None) -> None:
        self.pointer = pointer
        self._root = root
        if "vector" in rows.column_names:
            self._matrix = matrix(rows, pointer.encoder.dimension)
            rows = rows.drop_columns(["vector"])
        self._rows = rows

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def photo(self, row: int) -> Photo:
        """The photo of a row."""
        return from_row(self._rows.slice(row, 1).to_pylist()[0], self._root)

    def mask(
        self,
        category: str | Collection[str] | None = None,
        tags: str | Collection[str] | None = None,
        exclude: Iterable[str | Path] = (),
    ) -> Mask:
        """(N,) True for the rows a search may return.

        ``category`` is a name or several, each also covering its sub-folders; ``tags`` must all be present;
        ``exclude`` holds paths and content hashes.
        """
        allowed = np.ones(len(self), np.bool_)
        if category is not None:
            wanted = [category] if isinstance(category, str) else list(category)
            names, codes = self._categories
            fits = [any(name == one or name.startswith(f"{one}/") for one in wanted) for name in names]
            allowed &= np.array(fits, np.bool_)[codes] if names else False
        for tag in [tags] if isinstance(tags, str) else tags or ():
            allowed &= self._tagged(tag)
        for one in exclude:
            row = self.row_of(one)
            if row is not None:
                allowed[row] = False
        return allowed

    def search(
        self, query: Query, k: int, mask: Mask, *, min_score: float | None = None, guard: bool = False
    ) -> list[Hit]:
        """The ``k`` rows of ``mask`` most similar to ``query``, best first, ties by path.

        ``guard`` leaves out every row that shows the query's own picture: same bytes, perceptual hash within
        NEAR_BITS, or cosine above NEAR_COSINE.
        """
        hits = self._select(query, self.scores(query.embedding), k, mask, guard=guard)
        return [hit for hit in hits if min_score is None or hit[1] >= min_score]

    def scores(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) cosine similarities of all rows with a unit embedding (D,)."""
        scores: NDArray[np.float32] = self._matrix @ embedding
        return scores

    def vectors(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(len(rows), D) stored unit vectors."""
        return self._matrix[rows]

    def _select(self, query: Query, scores: NDArray[np.float32], k: int, mask: Mask, *, guard: bool) -> list[Hit]:
        """The best ``k`` rows of ``mask`` by ``scores`` (N,), which only need to be right to 1e-5."""
        allowed = mask
        if guard:
            allowed = mask & (scores <= NEAR_COSINE)
            if query.phash is not None:
                allowed &= hamming(self._phashes, query.phash) > NEAR_BITS
            if query.photo is not None and (row := self.row_of(query.photo)) is not None:
                allowed[row] = False
        if allowed.all():
            rows, found = None, scores
        else:
            rows = np.flatnonzero(allowed)
            found = scores[rows]
        if not len(found):
            return []
        # Matrix products round differently for one query and for a batch; everything that close to the k-th best is
        # scored again in double precision, row by row, so that order and scores depend on the stored vectors alone.
        worst = np.partition(found, -k)[-k] if k < len(found) else found.min()
        near = np.flatnonzero(found >= worst - 1e-5)
        rows = near if rows is None else rows[near]
        exact = (self.vectors(rows).astype(np.float64) * query.embedding.astype(np.float64)).sum(axis=1)
        paths = self._rows.column("path").take(rows).to_pylist()
        order = sorted(range(len(rows)), key=lambda i: (-exact[i], paths[i]))[:k]
        return [(int(rows[i]), float(np.clip(exact[i], -1.0, 1.0))) for i in order]

    @cached_property
    def _phashes(self) -> NDArray[np.uint64]:
        return self._column("phash")

    @cached_property
    def _categories(self) -> tuple[list[str], NDArray[np.int32]]:
        encoded = self._rows.column("category").combine_chunks().dictionary_encode()
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)

    @cached_property
    def _rows_by_id(self) -> dict[str, int]:
        return {photo: row for row, photo in enumerate(self._rows.column("id").to_pylist())}

    @cached_property
    def _row_by_key(self) -> dict[str | Path, int]:
        keys: dict[str | Path, int] = dict(self._rows_by_id.items())
        for row, path in enumerate(self._rows.column("path").to_pylist()):
            keys[Path(path) if self._root is None else self._root / path] = row
        return keys

    def row_of(self, key: str | Path) -> int | None:
        """Row of a photo given by content hash or path."""
        row = self._row_by_key.get(key)
        return row if row is not None else self._row_by_key.get(Path(key).expanduser().resolve())

    def _tagged(self, tag: str) -> Mask:
        import pyarrow.compute as pc

        tags = self._rows.column("tags").combine_chunks()
        owners = pc.list_parent_indices(tags).to_numpy(zero_copy_only=False)
        allowed = np.zeros(len(self), np.bool_)
        allowed[owners[pc.equal(pc.list_flatten(tags), tag).to_numpy(zero_copy_only=False).astype(bool)]] = True
        return allowed

    def _column(self, name: str) -> NDArray[Any]:
        values: NDArray[Any] = self._rows.column(name).combine_chunks().to_numpy(zero_copy_only=False)
        return values


def matrix(rows: pa.Table, dimension: int) -> NDArray[np.float32]:
    """The ``vector`` column as (N, D) float32."""
    chunks = rows.column("vector").chunks
    vectors = np.empty((rows.num_rows, dimension), np.float32)
    start = 0
    for chunk in chunks:
        vectors[start : start + len(chunk)] = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
        start += len(chunk)
    return vectors
