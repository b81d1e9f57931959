"""Reference policies: the references shown to a method beside the low-quality picture. Comparing them is the proof."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from rasr.errors import UsageError
from rasr.evaluation.inputs import TestInput
from rasr.evaluation.journal import Journal
from rasr.gallery import Gallery, Query, Reference, embed_query, retrieve
from rasr.generator.query import clean_query

__all__ = ["ReferenceChooser", "parse_policies"]

_POLICIES = {
    "retrieved": "the best match for the low-quality picture, as the product finds it",
    "none": "no reference",
    "random": "a photo drawn from the same gallery, never the retrieved one: the honest control",
    "oracle": "the best match for the ground truth: what perfect retrieval would find",
    "paired": "the reference the benchmark itself gives (layout 'pairs' only)",
}


def parse_policies(text: str) -> list[str]:
    """``"retrieved,none"`` → names, each once. Raises UsageError for an unknown one."""
    chosen = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [name for name in chosen if name not in _POLICIES]
    if unknown or not chosen:
        raise UsageError(f"Unknown reference policy '{', '.join(unknown)}'. Choose from: {', '.join(_POLICIES)}.")
    return chosen


class ReferenceChooser:
    """Chooses references from one gallery for every policy.

    ``by_category`` restricts all policies to the picture's own category. ``banned`` are photos never shown. With
    ``accept="policy"`` the product's own threshold may turn the retrieved photo down, which then means none; the
    default shows the best match always, as the paper does.
    """

    def __init__(
        self,
        gallery: Gallery,
        *,
        k: int = 1,
        seed: int = 0,
        by_category: bool = False,
        banned: Sequence[Path] = (),
        accept: Literal["always", "policy"] = "always",
        journal: Journal | None = None,
    ) -> None:
        self.gallery = gallery
        self._journal = journal
        self.k, self.seed, self.by_category, self.accept = k, seed, by_category, accept
        self._banned = list(banned)
        self._queries: dict[tuple[str, str], Query] = {}

    def choose(self, policy: str, item: TestInput) -> list[Reference]:
        """References for one picture, best first; empty for ``none``. Kept in the journal, if there is one."""
        if policy == "none":
            return []
        key = Journal.key_of(
            "references", policy, self._state, item.name, item.low_hash, item.truth_hash, [str(p) for p in item.paired]
        )
        record = self._journal.get(key) if self._journal else None
        if record is None:
            chosen = self._choose(policy, item)
            if self._journal:
                found = [{"path": str(r.path), "score": r.score, "id": r.id, "category": r.category} for r in chosen]
                self._journal.put(key, policy=policy, image=item.name, references=found)
            return chosen
        return [
            Reference(**{**reference, "path": Path(reference["path"])}, rank=rank)
            for rank, reference in enumerate(record["references"], 1)
        ]

    @cached_property
    def _state(self) -> str:
        """Everything a choice depends on besides the picture."""
        photos = [(photo.id, str(photo.path), photo.category) for photo in self.gallery.list()]
        banned = sorted(str(path) for path in self._banned)
        options = (self.k, self.seed, self.by_category, self.accept)
        return Journal.key_of(self.gallery.encoder.fingerprint, photos, banned, options)

    def _choose(self, policy: str, item: TestInput) -> list[Reference]:
        if policy == "paired":
            return self._paired(item)
        if policy == "random":
            return self._random(item)
        return self._search(item, oracle=policy == "oracle")

    def _search(self, item: TestInput, *, oracle: bool = False) -> list[Reference]:
        query = self._query(item, oracle=oracle)
        found = retrieve(self.gallery, query, k=self.k, category=self._category(item), exclude=self._banned)
        if self.accept == "policy" and not oracle:
            found = [reference for reference in found if reference.accepted]
        return [
            Reference(r.path, round(r.score, 6), rank, r.category, id=r.id) for rank, r in enumerate(found[: self.k], 1)
        ]

    def _random(self, item: TestInput) -> list[Reference]:
        retrieved = {reference.path for reference in self._search(item)}
        category = self._category(item)
        photos = [
            photo
            for photo in self.gallery.list(category=category)
            if photo.path not in retrieved and photo.path not in self._banned
        ]
        draw = random.Random(f"{self.seed}:{item.name}")  # noqa: S311  (an experiment, not a secret)
        drawn = draw.sample(photos, min(self.k, len(photos)))
        return [
            self._scored(Reference(photo.path, 0.0, rank, photo.category, id=photo.id), item)
            for rank, photo in enumerate(drawn, 1)
        ]

    def _paired(self, item: TestInput) -> list[Reference]:
        if not item.paired:
            raise UsageError(
                f"The benchmark gives no reference for '{item.name}': policy 'paired' needs layout 'pairs'."
            )
        return [
            self._scored(Reference(path, 0.0, rank, item.category, id=self._ids[path.resolve()]), item)
            for rank, path in enumerate(item.paired[: self.k], 1)
        ]

    def _scored(self, reference: Reference, item: TestInput) -> Reference:
        score = float(self._query(item).embedding @ self.gallery.embedding_of(reference.path))
        return replace(reference, score=round(score, 6))

    def _category(self, item: TestInput) -> str | None:
        return item.category if self.by_category else None

    def _query(self, item: TestInput, *, oracle: bool = False) -> Query:
        """The ground truth, or the low-quality picture cleaned as the product cleans its queries, embedded once."""
        key = (item.name, "truth" if oracle else "low")
        if key not in self._queries:
            self._queries[key] = (
                embed_query(self.gallery, item.truth) if oracle else embed_query(self.gallery, item.low, clean_query)
            )
        return self._queries[key]

    @cached_property
    def _ids(self) -> dict[Path, str]:
        return {photo.path: photo.id for photo in self.gallery.list()}
