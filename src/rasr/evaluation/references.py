"""References shown to methods, by policy, and the check that none is a test picture.

Comparing the policies is the proof that references help.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rasr.errors import LeakFound, UsageError
from rasr.evaluation.inputs import TestInput
from rasr.evaluation.journal import NUMBER, Journal
from rasr.files import xxh3_file
from rasr.gallery import Gallery, Reference, retrieve
from rasr.gallery.photo import NEAR_BITS, NEAR_COSINE, hamming, perceptual_hash
from rasr.generator import clean_query
from rasr.images import read_picture
from rasr.progress import Progress

_POLICIES = {
    "retrieved": "the best match for the low-quality picture, as the product finds it",
    "none": "no reference",
    "random": "a photo drawn from the same gallery, never the retrieved one or the same scene: the honest control",
    "oracle": "the best match for the ground truth: what perfect retrieval would find",
    "same-scene": "photos of the same scene, given by the benchmark (layout 'pairs' only)",
    "truth": "the ground truth itself: the most that a reference could give",
}
_EARLIER = {"paired": "same-scene"}
"""Earlier names, understood for one more version."""


def default_policies(layout: str) -> tuple[str, ...]:
    """The policies that tell most of a benchmark of this layout."""
    if layout == "pairs":
        return ("none", "same-scene", "random", "truth")
    return ("retrieved", "none", "random", "oracle")


def parse_policies(text: str) -> list[str]:
    """``"retrieved,none"`` → names, each once. Raises UsageError for an unknown one."""
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    chosen = list(dict.fromkeys(_EARLIER.get(name, name) for name in names))
    unknown = [name for name in chosen if name not in _POLICIES]
    if unknown or not chosen:
        raise UsageError(f"Unknown reference policy '{', '.join(unknown)}'. Choose from: {', '.join(_POLICIES)}.")
    return chosen


@dataclass(eq=False)
class ReferenceChooser:
    """Chooses references from one gallery for every policy.

    ``by_category`` restricts all policies to the picture's own category. ``banned`` are photos never shown. With
    ``accept="policy"`` the product's own threshold may turn the retrieved photo down, which then means none; the
    default shows the best match always, as the paper does.
    """

    gallery: Gallery
    k: int = 1
    seed: int = 0
    by_category: bool = False
    banned: Sequence[Path] = ()
    accept: Literal["always", "policy"] = "always"
    journal: Journal | None = None
    _queries: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict, init=False)

    def choose(self, policy: str, item: TestInput) -> list[Reference]:
        """Choose references for one picture, best first; kept in the journal, if there is one."""
        if policy == "none":
            return []
        key = Journal.key_of(
            "references", policy, self._state, item.name, item.low_hash, item.truth_hash, [str(p) for p in item.paired]
        )
        if self.journal is None:
            return self._choose(policy, item)

        def choose() -> dict[str, Any]:
            chosen = self._choose(policy, item)
            found = [{"path": str(r.path), "score": r.score, "id": r.id, "category": r.category} for r in chosen]
            return {"policy": policy, "image": item.name, "references": found}

        shape = [{"path": str, "score": NUMBER, "id": str, "category": str}]
        found = self.journal.recall(key, choose, references=shape)["references"]
        return [
            Reference(Path(one["path"]), one["score"], rank, one["category"], id=one["id"])
            for rank, one in enumerate(found, 1)
        ]

    @cached_property
    def _state(self) -> str:
        """Everything a choice depends on besides the picture."""
        photos = [(photo.id, str(photo.path), photo.category) for photo in self.gallery.list()]
        banned = sorted(str(path) for path in self.banned)
        options: tuple[Any, ...] = (self.k, self.seed, self.by_category, self.accept)
        if self.accept == "policy" and self.gallery.calibration:
            options += (self.gallery.calibration,)
        return Journal.key_of(self.gallery.encoder.fingerprint, photos, banned, options)

    def _choose(self, policy: str, item: TestInput) -> list[Reference]:
        if policy == "same-scene":
            return self._same_scene(item)
        if policy == "truth":
            return self._scored(item, [(item.truth, item.category, xxh3_file(item.truth))])
        if policy == "random":
            return self._random(item)
        return self._search(item, oracle=policy == "oracle")

    def _search(self, item: TestInput, *, oracle: bool = False) -> list[Reference]:
        query = self._query(item, oracle=oracle)
        found = retrieve(self.gallery, query, k=self.k, category=self._category(item), exclude=self.banned)
        if self.accept == "policy" and not oracle:
            found = [reference for reference in found if reference.accepted]
        return [
            Reference(r.path, round(r.score, 6), rank, r.category, id=r.id) for rank, r in enumerate(found[: self.k], 1)
        ]

    def _random(self, item: TestInput) -> list[Reference]:
        """Draw from the photos of other scenes, look-alikes too, or from all but the retrieved."""
        retrieved = set() if item.paired else {reference.path for reference in self._search(item)}
        category = self._category(item)
        photos = [
            photo
            for photo in self.gallery.list(category=category)
            if photo.path not in retrieved
            and photo.path not in self.banned
            and not (item.paired and shows_scene(item, category=photo.category, identity=photo.id))
        ]
        draw = random.Random(f"{self.seed}:{item.name}")  # noqa: S311  (an experiment, not a secret)
        drawn = draw.sample(photos, min(self.k, len(photos)))
        return self._scored(item, [(photo.path, photo.category, photo.id) for photo in drawn])

    def _same_scene(self, item: TestInput) -> list[Reference]:
        if not item.paired:
            raise UsageError(
                f"The benchmark gives no reference for '{item.name}': policy 'same-scene' needs layout 'pairs'."
            )
        return self._scored(item, [(path, item.category, xxh3_file(path)) for path in item.paired[: self.k]])

    def _scored(self, item: TestInput, photos: Sequence[tuple[Path, str, str]]) -> list[Reference]:
        """References of paths, categories and ids that no search has scored."""
        query, embed = self._query(item), self.gallery.embedding_of
        return [
            Reference(path, round(float(query @ embed(path)), 6), rank, category, id=identity)
            for rank, (path, category, identity) in enumerate(photos, 1)
        ]

    def _category(self, item: TestInput) -> str | None:
        return item.category if self.by_category else None

    def _query(self, item: TestInput, *, oracle: bool = False) -> NDArray[np.float32]:
        """Embed the ground truth, or the input cleaned as the product cleans queries, once."""
        key = (item.name, "truth" if oracle else "low")
        if key not in self._queries:
            path, clean = (item.truth, None) if oracle else (item.low, clean_query)
            self._queries[key] = self.gallery.prepare([path], clean=clean)[0].embedding
        return self._queries[key]


def shows_scene(item: TestInput, *, category: str, identity: str) -> bool:
    """True for a photo of the item's own place, by its category or as one of the photos given with the item.

    ``identity`` is the photo's content hash. It is looked at because a file that lies in two scenes has one category.
    """
    return category == item.category or identity in map(xxh3_file, item.paired)


@dataclass(frozen=True, slots=True)
class Leak:
    """A gallery photo that shows a test picture."""

    name: str
    photo: Path
    why: str
    exact: bool = False
    """True for the same file, False for a near-duplicate."""


def find_leaks(inputs: Sequence[TestInput], gallery: Gallery, progress: Progress | None = None) -> list[Leak]:
    """Find gallery photos equal to a test picture by content, or nearly by hash or embedding.

    The whole original picture and the crop that is restored are both looked for.
    """
    photos = gallery.list()
    by_id = {photo.id: photo for photo in photos}
    hashes = np.array([photo.phash for photo in photos], dtype=np.uint64)
    leaks: dict[tuple[str, Path], Leak] = {}
    for done, item in enumerate(inputs):
        for path, what in ((item.source, "test picture"), (item.truth, "crop of the test picture")):
            same = by_id.get(xxh3_file(path))
            if same:
                leaks.setdefault(
                    (item.name, same.path), Leak(item.name, same.path, f"is the {what} itself", exact=True)
                )
            picture = read_picture(path)
            distances = hamming(hashes, perceptual_hash(picture.pixels))
            for row in np.flatnonzero(distances <= NEAR_BITS):
                why = f"looks like the {what}: {distances[row]} of 64 hash bits differ"
                leaks.setdefault((item.name, photos[row].path), Leak(item.name, photos[row].path, why))
            for near in gallery.search(gallery.embedding_of(picture), 3, min_score=NEAR_COSINE):
                why = f"looks like the {what}: similarity {near.score:.3f}"
                leaks.setdefault((item.name, near.path), Leak(item.name, near.path, why))
        if progress:
            progress("leak check", done + 1, len(inputs))
    return list(leaks.values())


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raise LeakFound, naming the first three, if there are any."""
    if not leaks:
        return
    named = "; ".join(f"{leak.photo} {leak.why} '{leak.name}'" for leak in leaks[:3])
    more = f"; and {len(leaks) - 3} more" if len(leaks) > 3 else ""
    raise LeakFound(
        f"{len(leaks)} gallery photos show test pictures: {named}{more}. Remove them from the gallery, or run with "
        "--exclude-leaks, which never shows them to any method."
    )
