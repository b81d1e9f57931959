"""Search by an index: candidates from it, then filtered and scored exactly as in an exact search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from rasr.gallery.database import Manifest, Row, Table
from rasr.gallery.photo import NEAR_BITS, NEAR_COSINE, Photo, hamming, is_within
from rasr.gallery.protocol import Nearest
from rasr.gallery.search import Filters, Query, Snapshot
from rasr.object_path import expand, place

AT_FIRST = 4
"""Candidates asked for at once, for each photo wanted, where filters may turn some down."""
MOST = 1024
"""Candidates from which on the filters leave so little that all photos are looked at."""


class IndexedSnapshot:
    """One state of a gallery with an index: holds what was found, not what there is.

    The photos found are nearly always the nearest; their scores and their order are those of an exact search.
    """

    def __init__(self, nearest: Nearest, folder: Path | None, read: Callable[[], Snapshot]) -> None:
        self._nearest = nearest
        self._folder = folder
        self._read = read
        self._found: list[Photo] = []
        self._rows: dict[str, int] = {}
        self._lock = Lock()

    @property
    def manifest(self) -> Manifest:
        """The state that is searched."""
        return self._nearest.manifest

    @property
    def table(self) -> Table:
        """All photos with their vectors: read when they are asked for."""
        return self._exact.table

    def search(self, queries: Sequence[Query], k: int, filters: Filters) -> list[list[tuple[int, float]]]:
        """As :meth:`Snapshot.search`; a row is a number that :meth:`photos` knows."""
        return [self._search(query, k, filters) for query in queries]

    def photos(self, hits: Iterable[tuple[int, float]]) -> list[Photo]:
        """The photos of an answer, in its order."""
        return [self._found[row] for row, _ in hits]

    def scores(self, query: Query) -> NDArray[np.float32]:
        """(n,) cosine similarities of a sample of all photos: their spread, not the best of them."""
        scores: NDArray[np.float32] = self._sample @ query.embedding
        return scores

    def prewarm(self) -> str:
        """Load the index, and the sample of scores, before they are needed; says what."""
        self._nearest.prewarm()
        return f"searched by an index, in memory, beside {len(self._sample)} sampled"

    @cached_property
    def _sample(self) -> NDArray[np.float32]:
        return self._nearest.sample()

    @cached_property
    def _exact(self) -> Snapshot:
        return self._read()

    def _search(self, query: Query, k: int, filters: Filters) -> list[tuple[int, float]]:
        excluded = {str(one) for one in filters.get("exclude", ())}
        excluded |= {str(expand(place(one)).resolve()) for one in excluded}
        least = filters.get("min_score")
        turns_down = any(filters.get(one) for one in ("category", "tags", "exclude", "exclude_near_duplicates"))
        count = AT_FIRST * k if turns_down else k
        while count <= max(MOST, AT_FIRST * k):
            rows = self._nearest.find(query.embedding, count)
            scored = self._scored(rows, query)
            passed = [hit for hit in scored if self._passes(*hit, query, filters, excluded)]
            if len(passed) >= k or len(rows) < count or (least is not None and scored[-1][1] < least):
                best = sorted(passed, key=lambda hit: (-hit[1], str(hit[0].path)))[:k]
                best = [hit for hit in best if least is None or hit[1] >= least]
                return [(self._row(photo), score) for photo, score in best]
            count *= 4
        exact = self._exact
        answer = exact.search([query], k, filters)[0]
        photos = exact.photos(answer)
        return [(self._row(photo), score) for photo, (_, score) in zip(photos, answer, strict=True)]

    def _row(self, photo: Photo) -> int:
        """The number by which :meth:`photos` knows a photo that was found."""
        with self._lock:
            row = self._rows.setdefault(photo.id, len(self._found))
            if row == len(self._found):
                self._found.append(photo)
        return row

    def _scored(self, rows: list[tuple[str, Row]], query: Query) -> list[tuple[Photo, float]]:
        """Photos, each once, with scores in double precision, best first."""
        wanted = query.embedding.astype(np.float64)
        scores = {key: float(np.frombuffer(row.vector, "<f4").astype(np.float64) @ wanted) for key, row in rows}
        photos = {key: row.photo(self._folder) for key, row in rows}
        order = sorted(scores, key=lambda key: -scores[key])
        return [(photos[key], min(1.0, max(-1.0, scores[key]))) for key in order]

    @staticmethod
    def _passes(photo: Photo, score: float, query: Query, filters: Filters, excluded: set[str]) -> bool:
        category, tags = filters.get("category"), filters.get("tags")
        if category is not None and not is_within(photo.category, category):
            return False
        if tags and not ({tags} if isinstance(tags, str) else {*tags}).issubset(photo.tags):
            return False
        if photo.id in excluded or str(photo.path) in excluded:
            return False
        if not filters.get("exclude_near_duplicates"):
            return True
        near = query.phash is not None and hamming(np.array([photo.phash], np.uint64), query.phash)[0] <= NEAR_BITS
        return score <= NEAR_COSINE and not near and photo.id != query.photo
