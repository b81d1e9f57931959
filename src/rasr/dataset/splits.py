"""Splits without leaks: photos that belong together are assigned together, reproducibly."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from rasr.dataset.config import Splits

__all__ = ["SPLITS", "Item", "assign"]

SPLITS = ("train", "test", "reference")


@dataclass(frozen=True, slots=True)
class Item:
    """A photo to assign."""

    key: str
    category: str
    group: Hashable
    """Photos with equal groups never part: one photographer, one burst."""


def assign(items: Sequence[Item], wanted: Splits, seed: int) -> dict[str, str]:
    """Assign photos to splits: key → split; photos over the wanted numbers are left out.

    A group goes to one split as a whole, in all categories. The test split is filled first, from the smallest groups:
    it is small, and five test photos by five photographers say more than five by one. The other groups go, the largest
    first, to train or reference, whichever can use more of their photos, and of two that can use as many to the one
    that lacks more. The order of equals follows from ``seed`` and the keys alone, not from the order of ``items``.
    """
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: _draw(seed, item.key)):
        groups[item.group].append(item)
    # Each group's first member in the drawn order is its name, so the order of groups does not depend on how they
    # were labelled.
    ordered = sorted(groups.values(), key=lambda group: (len(group), _draw(seed, group[0].key)))
    left = _Places(
        {
            category: {split: getattr(wanted, split) for split in SPLITS}
            for category in {item.category for item in items}
        }
    )

    for group in ordered:
        if left.useful(group, "test") == len(group):
            left.take(group, "test")
    for group in ordered:
        # Where photographers with few photos are scarce: larger groups, of which the surplus is given up.
        if not left.taken(group) and left.useful(group, "test"):
            left.take(group, "test")
    for group in sorted(ordered, key=lambda group: (-len(group), _draw(seed, group[0].key))):
        best = max(("train", "reference"), key=lambda split: (left.useful(group, split), left.lack(group, split)))
        if not left.taken(group) and left.useful(group, best):
            left.take(group, best)
    return left.assigned


class _Places:
    """Places left in each category and split, and the photos assigned to the others."""

    def __init__(self, places: dict[str, dict[str, int]]) -> None:
        self._places = places
        self._wanted = {category: dict(of) for category, of in places.items()}
        self.assigned: dict[str, str] = {}

    def useful(self, group: Sequence[Item], split: str) -> int:
        """Count the photos of a group that the split has places for."""
        needed: Mapping[str, int] = Counter(item.category for item in group)
        return sum(min(count, self._places[category][split]) for category, count in needed.items())

    def lack(self, group: Sequence[Item], split: str) -> float:
        """Compute the share of its places that a split still has free, over a group's categories."""
        categories = {item.category for item in group}
        wanted = sum(self._wanted[category][split] for category in categories)
        return sum(self._places[category][split] for category in categories) / wanted if wanted else 0.0

    def take(self, group: Sequence[Item], split: str) -> None:
        """Assign as many of the group as there are places for; the rest is not used at all."""
        for item in group:
            if self._places[item.category][split]:
                self._places[item.category][split] -= 1
                self.assigned[item.key] = split

    def taken(self, group: Sequence[Item]) -> bool:
        """Tell whether the group is in a split already."""
        return any(item.key in self.assigned for item in group)


def _draw(seed: int, key: str) -> bytes:
    """Draw a number for ``key`` that any machine and any version draws again."""
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
