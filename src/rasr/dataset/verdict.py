"""Verdicts: which measured photos are kept, which belong together, why the rest is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rasr.dataset.config import DatasetConfig, Filters
from rasr.dataset.journal import Journal, Measures, Row
from rasr.dataset.licences import allowed
from rasr.dataset.manifest import Record
from rasr.dataset.sources import Candidate
from rasr.gallery.encoders import Embeddings
from rasr.gallery.photo import NEAR_BITS

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import DisjointSet

REASONS = {
    "licence": "licence unknown or not on the list",
    "too small": "short side under the minimum",
    "dead link": "the file is gone",
    "not a picture": "the answer is no picture",
    "lost": "the downloaded file vanished",
    "unreadable": "truncated or corrupt",
    "too large": "file over the size limit",
    "redirect loop": "the address leads in circles",
    "server trouble": "server errors in all attempts; tried again by the next build",
    "rate limit": "the server asked to come back later; tried again by the next build",
    "no connection": "no answer in all attempts; tried again by the next build",
    "refused": "the server refuses the request",
    "low JPEG quality": "compressed under the floor",
    "block artefacts": "visible 8×8 blocks",
    "blurred": "no part of it is sharp",
    "review": "dropped in the review",
    "repeated (hash)": "the same photo by perceptual hash",
    "repeated (embedding)": "the same photo by embedding",
    "off subject": "unlike the rest of its category",
}
"""Every reason for leaving a photo out, in the order in which the filters are applied."""

ANONYMOUS = frozenset({"", "unknown", "unknown author", "anonymous", "author unknown", "n/a", "none", "see source"})

NEIGHBOURS = 5
"""A photo belongs to its category as much as to its five nearest photos there: one category may hold several looks
(herd and portrait, summer and winter coat) and a mean of all would judge the rarer look an outlier."""
FEWEST = 12
"""Photos below which a category's spread cannot be estimated and nothing is called an outlier."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A photo that passed every filter."""

    row: Row
    measures: Measures
    group: Hashable
    """Equal for photos that must stay in one split."""
    deviation: float = 0.0
    """Over 0 for a reported outlier: robust standard deviations below its category."""


@dataclass(slots=True)
class Verdicts:
    """Kept and rejected candidates, by category."""

    kept: dict[str, list[Kept]]
    """Category → photos in order of preference."""
    rejected: dict[str, Counter[str]]
    """Category → reason → count."""


def photographers(photo: Candidate | Record) -> tuple[str, ...]:
    """Identify who took a photo, by account and by name (people use several sites); or ()."""
    if photo.author.strip().casefold() in ANONYMOUS:
        return ()
    name = " ".join(photo.author.casefold().split())
    return f"account {photo.source}:{photo.author_id or photo.author}", f"name {name}"


def listing_fault(candidate: Candidate, filters: Filters) -> str | None:
    """Name the filter that a candidate does not pass, by what its source says of it."""
    if not allowed(candidate.licence, filters.licences):
        return "licence"
    if candidate.width and min(candidate.width, candidate.height) < filters.min_short_side:
        return "too small"
    return None


def _file_fault(measures: Measures, filters: Filters) -> str | None:
    """Name the filter that a photo does not pass, by its own pixels."""
    if min(measures.real_width, measures.real_height) < filters.min_short_side:
        return "too small"
    if measures.quality is not None and measures.quality < filters.min_jpeg_quality:
        return "low JPEG quality"
    if measures.blockiness > filters.max_blockiness:
        return "block artefacts"
    if measures.blur > filters.max_blur:
        return "blurred"
    return None


def judge(journal: Journal, config: DatasetConfig, categories: Collection[str], dropped: Collection[str]) -> Verdicts:
    """Apply every filter to the journal; ``dropped`` are the ids turned down in the review.

    Depends on nothing but the journal, the config and ``dropped``, so that an interrupted build comes to the same end.
    """
    from scipy.cluster.hierarchy import DisjointSet  # loads much of scipy, for builds only

    verdicts = Verdicts({name: [] for name in categories}, {name: Counter() for name in categories})
    good: list[tuple[Row, Measures]] = []
    for row in journal.rows():
        if row.category not in verdicts.kept:
            continue
        fault = listing_fault(row.candidate, config.filters) if row.state in ("listed", "measured") else None
        if row.state == "failed":
            fault = row.reason
        elif row.measures is not None and not fault:
            fault = "review" if row.photo_id in dropped else _file_fault(row.measures, config.filters)
        if fault:
            verdicts.rejected[row.category][fault] += 1
        elif row.measures is not None:
            good.append((row, row.measures))
    # Of copies the largest is kept, and of equally large ones that of the preferred source.
    good.sort(key=lambda pair: (-pair[1].real_width * pair[1].real_height, pair[0].rank, pair[0].seq))
    hashes = [measures.phash for _, measures in good]
    repeats = _same_by_hash(_hash_array(hashes), config.filters.duplicate_distance)
    for index in repeats:
        verdicts.rejected[good[index][0].category]["repeated (hash)"] += 1
    groups: DisjointSet = DisjointSet(row.seq for row, _ in good)
    # What the check would take for the same photo, and the settings here do not, at least stays in one split.
    for one, other, _ in related_hashes(hashes, NEAR_BITS):
        groups.merge(good[one][0].seq, good[other][0].seq)
    for category in categories:
        rows = [pair for index, pair in enumerate(good) if index not in repeats and pair[0].category == category]
        _judge_category(journal, config, category, rows, groups, verdicts)
    for name, found in verdicts.kept.items():
        verdicts.kept[name] = [replace(kept, group=groups[kept.row.seq]) for kept in found]
    return verdicts


def _judge_category(
    journal: Journal,
    config: DatasetConfig,
    category: str,
    rows: list[tuple[Row, Measures]],
    groups: DisjointSet,
    verdicts: Verdicts,
) -> None:
    """Repeats and outliers by embedding, one category's embeddings in memory at a time."""
    if not rows:
        return
    filters, rejected = config.filters, verdicts.rejected[category]
    embeddings = _embeddings(journal, category, [row.seq for row, _ in rows])
    repeats = _same_by_embedding(embeddings, filters.duplicate_similarity)
    rejected["repeated (embedding)"] += len(repeats)
    single = [index for index in range(len(rows)) if index not in repeats]
    rows, embeddings = [rows[index] for index in single], embeddings[single]
    far = _outliers(embeddings, filters.outlier_deviations)
    if filters.outlier_action == "drop":
        rejected["off subject"] += len(far)
        single = [index for index in range(len(rows)) if index not in far]
        rows, embeddings, far = [rows[index] for index in single], embeddings[single], {}
    for one, other, _ in related_pairs(embeddings, config.splits.related_similarity):
        groups.merge(rows[one][0].seq, rows[other][0].seq)
    for index, (row, measures) in enumerate(rows):
        if config.splits.by_photographer:
            for name in photographers(row.candidate):
                groups.add(name)
                groups.merge(name, row.seq)
        verdicts.kept[category].append(Kept(row, measures, None, round(far.get(index, 0.0), 2)))
    verdicts.kept[category].sort(key=lambda kept: (kept.row.rank, kept.row.seq))


def _embeddings(journal: Journal, category: str, seqs: Sequence[int]) -> Embeddings:
    """Read the unit vectors (N, D) of the given photos, in their order."""
    stored = dict(journal.embeddings(category))
    vectors = [np.frombuffer(stored[seq], np.float16).astype(np.float32) for seq in seqs]
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def _same_by_hash(hashes: NDArray[np.uint64], distance: int) -> dict[int, int]:
    """Map repeated photos to the earlier ones, by index; ``hashes`` (N,), best photo first."""
    return _repeated(len(hashes), lambda kept, index: np.bitwise_count(hashes[kept] ^ hashes[index]) <= distance)


def _same_by_embedding(embeddings: Embeddings, similarity: float) -> dict[int, int]:
    """Map repeated photos likewise, by unit vectors (N, D) of at least this cosine."""
    return _repeated(len(embeddings), lambda kept, index: embeddings[kept] @ embeddings[index] >= similarity)


def _repeated(count: int, alike: Callable[[NDArray[np.int64], int], NDArray[np.bool_]]) -> dict[int, int]:
    """Compare photos with kept ones only: no chain of small changes removes a whole category."""
    kept, number = np.empty(count, np.int64), 0
    repeated: dict[int, int] = {}
    for index in range(count):
        near = np.flatnonzero(alike(kept[:number], index))
        if len(near):
            repeated[index] = int(kept[near[0]])
        else:
            kept[number] = index
            number += 1
    return repeated


def related_pairs(embeddings: Embeddings, similarity: float) -> Iterator[tuple[int, int, float]]:
    """Yield pairs i < j of unit vectors (N, D) of at least this cosine, with that cosine."""
    for index in range(len(embeddings) - 1):
        cosines = embeddings[index + 1 :] @ embeddings[index]
        for other in np.flatnonzero(cosines >= similarity):
            yield index, index + 1 + int(other), float(cosines[other])


def related_hashes(hashes: Sequence[str], distance: int) -> Iterator[tuple[int, int, int]]:
    """Yield pairs i < j of 64-bit hashes that differ in at most ``distance`` bits, with them."""
    values = _hash_array(hashes)
    for index in range(len(values) - 1):
        bits = np.bitwise_count(values[index + 1 :] ^ values[index])
        for other in np.flatnonzero(bits <= distance):
            yield index, index + 1 + int(other), int(bits[other])


def _outliers(embeddings: Embeddings, deviations: float) -> dict[int, float]:
    """Find photos that many robust standard deviations below the category: index → deviation.

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


def _hash_array(hashes: Sequence[str]) -> NDArray[np.uint64]:
    return np.array([int(text, 16) for text in hashes], np.uint64)
