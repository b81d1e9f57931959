"""The filters: from what was measured to what is kept, and why the rest is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field

import numpy as np

from rasr.dataset.candidate import Candidate, safe_name
from rasr.dataset.config import DatasetConfig, Filters
from rasr.dataset.duplicates import (
    Groups,
    hash_array,
    outliers,
    related_hashes,
    related_pairs,
    same_by_embedding,
    same_by_hash,
)
from rasr.dataset.journal import Journal, Measures, Row
from rasr.dataset.licences import allowed
from rasr.gallery.duplicates import NEAR_BITS
from rasr.gallery.encoders import Embeddings

__all__ = [
    "REASONS",
    "Kept",
    "Verdicts",
    "file_fault",
    "is_anonymous",
    "judge",
    "listing_fault",
    "photo_id",
    "photographer",
]

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
    """What became of all candidates."""

    kept: dict[str, list[Kept]] = field(default_factory=dict)
    """Category → photos in order of preference."""
    rejected: dict[str, Counter[str]] = field(default_factory=dict)
    """Category → reason → count."""


def photographer(candidate: Candidate) -> str | None:
    """What identifies the photographer, or None when nobody knows."""
    if is_anonymous(candidate.author):
        return None
    return f"{candidate.source}:{candidate.author_id or candidate.author}"


def is_anonymous(author: str) -> bool:
    """Whether a credit names nobody."""
    return author.strip().casefold() in ANONYMOUS


def listing_fault(candidate: Candidate, filters: Filters) -> str | None:
    """Why a candidate is not worth downloading, by what its source says of it."""
    if not allowed(candidate.licence, filters.licences):
        return "licence"
    if candidate.width and min(candidate.width, candidate.height) < filters.min_short_side:
        return "too small"
    return None


def file_fault(measures: Measures, filters: Filters) -> str | None:
    """Why a photo is not good enough, by its own pixels."""
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
    """Apply every filter to what the journal holds; ``dropped`` are the ids turned down in the review.

    Depends on nothing but the journal, the config and ``dropped``, so that an interrupted build comes to the same end.
    """
    verdicts = Verdicts({name: [] for name in categories}, {name: Counter() for name in categories})
    good: list[tuple[Row, Measures]] = []
    for row in journal.rows():
        if row.category not in verdicts.kept:
            continue
        fault = listing_fault(row.candidate, config.filters) if row.state in ("listed", "measured") else None
        if row.state == "failed":
            fault = row.reason
        elif row.measures is not None and not fault:
            fault = "review" if photo_id(row) in dropped else file_fault(row.measures, config.filters)
        if fault:
            verdicts.rejected[row.category][fault] += 1
        elif row.measures is not None:
            good.append((row, row.measures))
    # Of copies the largest is kept, and of equally large ones that of the preferred source.
    good.sort(key=lambda pair: (-pair[1].real_width * pair[1].real_height, pair[0].rank, pair[0].seq))
    repeats = same_by_hash(hash_array([measures.phash for _, measures in good]), config.filters.duplicate_distance)
    for index in repeats:
        verdicts.rejected[good[index][0].category]["repeated (hash)"] += 1
    groups = Groups()
    # What the check would take for the same photo, and the settings here do not, at least stays in one split.
    for one, other in related_hashes(hash_array([measures.phash for _, measures in good]), NEAR_BITS):
        groups.join(good[one][0].seq, good[other][0].seq)
    for category in categories:
        rows = [pair for index, pair in enumerate(good) if index not in repeats and pair[0].category == category]
        _judge_category(journal, config, category, rows, groups, verdicts)
    verdicts.kept = {
        name: [Kept(kept.row, kept.measures, groups.find(kept.row.seq), kept.deviation) for kept in found]
        for name, found in verdicts.kept.items()
    }
    return verdicts


def _judge_category(
    journal: Journal,
    config: DatasetConfig,
    category: str,
    rows: list[tuple[Row, Measures]],
    groups: Groups,
    verdicts: Verdicts,
) -> None:
    """Repeats and outliers by embedding, one category's embeddings in memory at a time."""
    if not rows:
        return
    filters, rejected = config.filters, verdicts.rejected[category]
    embeddings = _embeddings(journal, category, [row.seq for row, _ in rows])
    repeats = same_by_embedding(embeddings, filters.duplicate_similarity)
    rejected["repeated (embedding)"] += len(repeats)
    single = [index for index in range(len(rows)) if index not in repeats]
    rows, embeddings = [rows[index] for index in single], embeddings[single]
    far = outliers(embeddings, filters.outlier_deviations)
    if filters.outlier_action == "drop":
        rejected["off subject"] += len(far)
        single = [index for index in range(len(rows)) if index not in far]
        rows, embeddings, far = [rows[index] for index in single], embeddings[single], {}
    for one, other in related_pairs(embeddings, config.splits.related_similarity):
        groups.join(rows[one][0].seq, rows[other][0].seq)
    for index, (row, measures) in enumerate(rows):
        if config.splits.by_photographer:
            for name in _names(row.candidate):
                groups.join(name, row.seq)
        verdicts.kept[category].append(Kept(row, measures, None, round(far.get(index, 0.0), 2)))
    verdicts.kept[category].sort(key=lambda kept: (kept.row.rank, kept.row.seq))


def _names(candidate: Candidate) -> Iterator[str]:
    """The account, and the name: the same person may publish on several sites."""
    account = photographer(candidate)
    if account:
        yield f"account {account}"
        yield f"name {' '.join(candidate.author.casefold().split())}"


def _embeddings(journal: Journal, category: str, seqs: list[int]) -> Embeddings:
    """Unit vectors (N, D) of the given photos, in their order."""
    place = {seq: index for index, seq in enumerate(seqs)}
    found: Embeddings | None = None
    for seq, stored in journal.embeddings(category):
        if seq in place:
            vector = np.frombuffer(stored, np.float16).astype(np.float32)
            if found is None:
                found = np.zeros((len(seqs), len(vector)), np.float32)
            found[place[seq]] = vector / np.linalg.norm(vector)
    if found is None:
        raise ValueError(f"no embeddings are stored for {category}")
    return found


def photo_id(row: Row) -> str:
    """The photo's name in the dataset, the same in every build: category, source and the source's own id."""
    return f"{row.category}_{row.candidate.source}_{safe_name(row.candidate.source_id)}"
