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
PARTITION = 16_384
"""Photos in a partition. All are looked into: partitions are what is worked on side by side, and what codes lean on."""
MOST_PARTITIONS = 4096
BITS = 3
"""Of a code for each dimension: with one, the best of vectors without any clusters take twenty times the candidates."""
MULTIPLE = 8
"""Vectors whose dimensions are no multiple of it cannot be coded."""
FILE = 100_000
"""Photos in a file, on average, from which on files are not merged: those found lie in as many files as there are."""
REFINED, REFINE = 30, 3
"""So many photos, at least, and for each one wanted, are compared by their stored vectors: a code alone says little."""
SAMPLE_BLOCKS, SAMPLE_ROWS = 32, 256
"""Photos by which the spread of all scores is told: some from each of many places."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What an index of three bits a dimension (IVF-RQ, "RaBitQ") is built with."""

    partitions: int

    @classmethod
    def of(cls, photos: int) -> Parameters:
        """Those for so many photos."""
        return cls(min(MOST_PARTITIONS, max(1, round(photos / PARTITION))))


def build(table: lancedb.table.Table, parameters: Parameters) -> None:
    """Build the index over all rows, in place of the one there was. Takes a minute for a million."""
    from lancedb.index import IvfRq

    config = IvfRq(distance_type="cosine", num_partitions=parameters.partitions, num_bits=BITS)
    table.create_index("vector", config=config, replace=True)


def scattered(table: lancedb.table.Table) -> bool:
    """True where the table's files are so small that a search loses time over them."""
    facts = table.stats()
    return int(facts["fragment_stats"]["num_fragments"]) > max(1, int(facts["num_rows"]) // FILE)


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

    def find(self, query: NDArray[np.float32], count: int) -> list[tuple[str, Row]]:
        """Ids and checked rows of about the ``count`` photos nearest to a unit vector (D,), best first.

        Those added since the index was built are among them. Raises GalleryCorrupt, GalleryError.
        """
        with self.table.explained():
            found = self._handle.search(query).distance_type("cosine").nprobes(MOST_PARTITIONS)
            refined = found.refine_factor(max(REFINE, math.ceil(REFINED / count)))
            rows = refined.limit(count).select([*COLUMNS, "_distance"]).to_arrow()  # unasked it comes with a warning
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
