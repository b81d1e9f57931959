"""Reference policies: what a method is shown beside the low-quality picture. The comparison of them is the proof."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rasr.errors import UsageError
from rasr.evaluation.inputs import TestInput
from rasr.evaluation.journal import Journal, key_of
from rasr.images import read_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rasr.gallery import Gallery

__all__ = ["POLICIES", "Choice", "ReferenceChooser", "parse_policies"]

POLICIES = {
    "retrieved": "the best match for the low-quality picture, as the product finds it",
    "none": "no reference",
    "random": "a photo drawn from the same gallery, never the retrieved one: the honest control",
    "oracle": "the best match for the ground truth: what perfect retrieval would find",
    "paired": "the reference the benchmark itself gives (layout 'pairs' only)",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A reference shown to a method for one picture."""

    path: Path
    score: float
    """Cosine similarity to the query: the low-quality picture, or the ground truth for ``oracle``."""
    id: str
    """Content hash, so that results are kept for the picture and not for its place."""
    category: str = ""


def parse_policies(text: str) -> list[str]:
    """``"retrieved,none"`` → names, each once. Raises UsageError for an unknown one."""
    chosen = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [name for name in chosen if name not in POLICIES]
    if unknown or not chosen:
        raise UsageError(f"Unknown reference policy '{', '.join(unknown)}'. Choose from: {', '.join(POLICIES)}.")
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
        self._queries: dict[tuple[str, str], NDArray[np.float32]] = {}

    def choose(self, policy: str, item: TestInput) -> list[Choice]:
        """References for one picture, best first; empty for ``none``. Kept in the journal, if there is one."""
        if policy == "none":
            return []
        key = key_of(
            "references", policy, self._state, item.name, item.low_hash, item.truth_hash, [str(p) for p in item.paired]
        )
        record = self._journal.get(key) if self._journal else None
        if record is None:
            choices = self._choose(policy, item)
            if self._journal:
                found = [{**asdict(choice), "path": str(choice.path)} for choice in choices]
                self._journal.put(key, policy=policy, image=item.name, references=found)
            return choices
        return [Choice(**{**choice, "path": Path(choice["path"])}) for choice in record["references"]]

    @cached_property
    def _state(self) -> str:
        """Everything a choice depends on besides the picture."""
        photos = [(photo.id, str(photo.path), photo.category) for photo in self.gallery.list()]
        banned = sorted(str(path) for path in self._banned)
        options = (self.k, self.seed, self.by_category, self.accept)
        return key_of(self.gallery.encoder.fingerprint, photos, banned, options)

    def _choose(self, policy: str, item: TestInput) -> list[Choice]:
        if policy == "paired":
            return self._paired(item)
        if policy == "random":
            return self._random(item)
        return self._search(item, oracle=policy == "oracle")

    def _search(self, item: TestInput, *, oracle: bool = False) -> list[Choice]:
        query = self._query(item, oracle=oracle)
        found = self.gallery.search(query, max(self.k, 5), category=self._category(item), exclude=self._banned)
        if self.accept == "policy" and not oracle:
            from rasr.gallery.policy import choose

            judged = choose(found, self.gallery.scores(query), self.gallery.encoder.name, k=self.k)
            found = [reference for reference in judged if reference.accepted]
        return [Choice(r.path, round(float(r.score), 6), self._ids[r.path], r.category) for r in found[: self.k]]

    def _random(self, item: TestInput) -> list[Choice]:
        retrieved = {choice.path for choice in self._search(item)}
        category = self._category(item)
        photos = [
            photo
            for photo in self.gallery.list(category=category)
            if photo.path not in retrieved and photo.path not in self._banned
        ]
        draw = random.Random(f"{self.seed}:{item.name}")  # noqa: S311  (an experiment, not a secret)
        drawn = draw.sample(photos, min(self.k, len(photos)))
        return [self._scored(photo.path, item, photo.id, photo.category) for photo in drawn]

    def _paired(self, item: TestInput) -> list[Choice]:
        if not item.paired:
            raise UsageError(
                f"The benchmark gives no reference for '{item.name}': policy 'paired' needs layout 'pairs'."
            )
        return [self._scored(path, item, self._ids[path.resolve()], item.category) for path in item.paired[: self.k]]

    def _scored(self, path: Path, item: TestInput, identity: str, category: str) -> Choice:
        score = float(self._query(item) @ self.gallery.embedding_of(path))
        return Choice(path, round(score, 6), identity, category)

    def _category(self, item: TestInput) -> str | None:
        return item.category if self.by_category else None

    def _query(self, item: TestInput, *, oracle: bool = False) -> NDArray[np.float32]:
        """Embedding of the ground truth, or of the low-quality picture cleaned as the product cleans its queries."""
        key = (item.name, "truth" if oracle else "low")
        if key not in self._queries:
            picture = read_picture(item.truth if oracle else item.low)
            if not oracle:
                from rasr.generator import QUERY_CLEANER, load_generator
                from rasr.restoration import restore_query

                size = self.gallery.encoder.input_size
                picture = restore_query(picture, "auto", load_generator(QUERY_CLEANER), input_size=size)
            self._queries[key] = self.gallery.embedding_of(picture)
        return self._queries[key]

    @cached_property
    def _ids(self) -> dict[Path, str]:
        return {photo.path: photo.id for photo in self.gallery.list()}
