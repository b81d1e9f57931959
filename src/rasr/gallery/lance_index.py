"""An approximate index of a Lance table: its parameters by size, building it, and looking photos up by it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rasr.gallery.database import Manifest, Row, are_unit
from rasr.gallery.lance_table import COLUMNS, LanceTable, unpacked

if TYPE_CHECKING:
    import lancedb

FEWEST = 100_000
"""Photos from which on an index is built; fewer are searched exactly in some 10 ms once they are loaded."""
MOST_PARTITIONS = 4096
PROBES = 32
"""Partitions looked into, at least; else three of eight: of a million clustered photos 99 in 100 best are found."""
REFINE = 10
"""For each photo wanted so many are compared by their stored vectors: what an index says alone is not enough."""
SAMPLE_BLOCKS, SAMPLE_ROWS = 32, 256
"""Photos by which the spread of all scores is told: some from each of many places."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What an IVF-PQ index is built with."""

    partitions: int
    sub_vectors: int

    @classmethod
    def of(cls, photos: int, dimension: int) -> Parameters:
        """Those for so many photos: about a thousand a partition, four dimensions in a byte."""
        parts = next(parts for parts in range(max(1, dimension // 4), 0, -1) if dimension % parts == 0)
        return cls(min(MOST_PARTITIONS, max(1, round(photos / 1000))), parts)


def build(table: lancedb.table.Table, parameters: Parameters) -> None:
    """Build the index over all rows, in place of the one there was. Takes minutes for a million."""
    from lancedb.index import IvfPq

    config = IvfPq(distance_type="cosine", num_partitions=parameters.partitions, num_sub_vectors=parameters.sub_vectors)
    table.create_index("vector", config=config, replace=True)


def covered(table: lancedb.table.Table) -> tuple[str, int, int] | None:
    """Name of the index, rows that it covers, and rows added since; None without one."""
    for index in table.list_indices():
        if index.columns == ["vector"]:
            facts = table.index_stats(index.name)
            if facts is not None:
                return index.name, int(facts.num_indexed_rows), int(facts.num_unindexed_rows)
    return None


class Nearest:
    """Looks up photos in one version of a table by its index."""

    def __init__(self, table: LanceTable, handle: lancedb.table.Table, manifest: Manifest, name: str) -> None:
        self.table = table
        self.manifest = manifest
        self._handle = handle
        self._name = name
        self._probes = max(PROBES, Parameters.of(manifest.photos, manifest.encoder.dimension).partitions * 3 // 8)

    def find(self, query: NDArray[np.float32], count: int) -> list[tuple[str, Row]]:
        """Ids and checked rows of about the ``count`` photos nearest to a unit vector (D,), best first.

        Those added since the index was built are among them. Raises GalleryCorrupt, GalleryError.
        """
        with self.table.explained():
            found = self._handle.search(query).distance_type("cosine").nprobes(self._probes).refine_factor(REFINE)
            rows = found.limit(count).select([*COLUMNS]).to_arrow()
            return list(self._checked(rows.to_batches()))

    def sample(self) -> NDArray[np.float32]:
        """(n, D) vectors of photos from all over the table: all of them when they are few."""
        wanted = SAMPLE_BLOCKS * SAMPLE_ROWS
        step = max(1, self.manifest.photos // SAMPLE_BLOCKS)
        with self.table.explained():
            blocks = []
            for start in range(0, self.manifest.photos, step):
                size = math.ceil(wanted / SAMPLE_BLOCKS) if self.manifest.photos > wanted else step
                rows = self._handle.search().select([*COLUMNS]).offset(start).limit(size).to_arrow()
                blocks += [np.frombuffer(row.vector, "<f4") for _, row in self._checked(rows.to_batches())]
        return np.array(blocks, np.float32).reshape(len(blocks), self.manifest.encoder.dimension)

    def prewarm(self) -> None:
        """Load the index into memory, where it fits."""
        with self.table.explained():
            self._handle.prewarm_index(self._name)

    def _checked(self, batches: list[object]) -> Iterator[tuple[str, Row]]:
        for batch in batches:
            for key, row in unpacked(batch, self.manifest.encoder.dimension * 4):
                if not row.is_sound() or not are_unit(np.frombuffer(row.vector, "<f4")[None]):
                    raise ValueError("an entry does not match its checksum")
                yield key, row
