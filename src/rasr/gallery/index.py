"""Galleries too large for memory: candidates from LanceDB's index, scores from the stored vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasr.errors import GalleryCorrupt
from rasr.gallery.pointer import Pointer
from rasr.gallery.query import Query
from rasr.gallery.snapshot import Hit, Mask, Snapshot, matrix

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["INDEX_FROM", "IndexedSnapshot", "build_index"]

INDEX_FROM = 250_000
"""Photos from which a gallery gets an index. Below, all vectors fit into memory (1.3 GB at 1 280 dimensions) and exact
search is as fast (docs/decisions.md)."""
PROBES = 32
"""Partitions searched of about √N."""
REFINE = 10
"""Candidates compared with their stored vectors, as a multiple of those asked for."""
CANDIDATES = 64


def build_index(table: Any, dimension: int) -> int:
    """Build an IVF-PQ index on a table's vectors; returns the number of rows covered."""
    from lancedb.index import IvfPq

    rows = int(table.count_rows())
    partitions = max(1, min(4096, round(math.sqrt(rows))))
    parts = next(n for n in range(max(1, dimension // 16), 0, -1) if dimension % n == 0)
    config = IvfPq(distance_type="cosine", num_partitions=partitions, num_sub_vectors=parts)
    table.create_index("vector", config=config, replace=True)
    return rows


class IndexedSnapshot(Snapshot):
    """Rows of a gallery with an index; vectors stay on disk.

    What the index proposes is scored with the stored vectors. Should filters leave too few of the proposals, all rows
    are scored, so that an answer is never short.
    """

    def __init__(self, pointer: Pointer, rows: pa.Table, root: Path | None, table: Any) -> None:
        super().__init__(pointer, rows, root)
        self._table = table

    def search(
        self, query: Query, k: int, mask: Mask, *, min_score: float | None = None, guard: bool = False
    ) -> list[Hit]:
        """As in :class:`Snapshot`, approximately."""
        with self._reading():
            proposed = (
                self._table.search(query.embedding)
                .distance_type("cosine")
                .nprobes(PROBES)
                .refine_factor(REFINE)
                .limit(4 * k + CANDIDATES)
                .select(["id", "_distance"])
                .to_arrow()
            )
        rows = [self._rows_by_id[photo] for photo in proposed.column("id").to_pylist()]
        scores = np.full(len(self), -np.inf, np.float32)
        scores[rows] = 1.0 - proposed.column("_distance").to_numpy()
        hits = self._select(query, scores, k, mask & np.isfinite(scores), guard=guard)
        if len(hits) < k and np.count_nonzero(mask) > len(hits):
            hits = self._select(query, self.scores(query.embedding), k, mask, guard=guard)
        return [hit for hit in hits if min_score is None or hit[1] >= min_score]

    def scores(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) cosine similarities, read from disk in batches."""
        scores = np.empty(len(self), np.float32)
        with self._reading():
            for batch in self._table.search().select(["id", "vector"]).to_batches(8192):
                rows = [self._rows_by_id[photo] for photo in batch.column("id").to_pylist()]
                vectors = batch.column("vector").flatten().to_numpy().reshape(len(rows), -1)
                scores[rows] = vectors @ embedding
        return scores

    def vectors(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(len(rows), D) stored unit vectors, read from disk."""
        photos = self._rows.column("id").take(rows).to_pylist()
        wanted = "id IN (" + ", ".join(f"'{photo}'" for photo in photos) + ")"
        with self._reading():
            found = self._table.search().where(wanted).select(["id", "vector"]).to_arrow()
        place = {photo: row for row, photo in enumerate(found.column("id").to_pylist())}
        stored = matrix(found, self.pointer.encoder.dimension)
        return stored[[place[photo] for photo in photos]]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, OSError) as error:
            raise GalleryCorrupt(
                f"The gallery table {self.pointer.table} can no longer be read ({str(error).splitlines()[0]}). See "
                "what is damaged with: rasr gallery verify GALLERY"
            ) from error
