"""Splits without leaks: photos that belong together are assigned together, reproducibly."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rasr.dataset.config import Splits

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
    categories = {item.category for item in items}
    places = {split: getattr(wanted, split) for split in SPLITS}
    left = {(category, split): count for category in categories for split, count in places.items()}
    assigned: dict[str, str] = {}

    def useful(group: Sequence[Item], split: str) -> int:
        """Count the photos of a group that the split has places for."""
        needed = Counter(item.category for item in group)
        return sum(min(count, left[category, split]) for category, count in needed.items())

    def lack(group: Sequence[Item], split: str) -> float:
        """Compute the share of its places that a split still has free, over a group's categories."""
        concerned = {item.category for item in group}
        free = sum(left[category, split] for category in concerned)
        return free / (len(concerned) * places[split]) if places[split] else 0.0

    def take(group: Sequence[Item], split: str) -> None:
        """Assign as many of the group as there are places for; the rest is not used at all."""
        for item in group:
            if left[item.category, split]:
                left[item.category, split] -= 1
                assigned[item.key] = split

    for group in ordered:
        if useful(group, "test") == len(group):
            take(group, "test")
    for group in ordered:
        # Where photographers with few photos are scarce: larger groups, of which the surplus is given up.
        if assigned.keys().isdisjoint(item.key for item in group) and useful(group, "test"):
            take(group, "test")
    for group in sorted(ordered, key=lambda group: (-len(group), _draw(seed, group[0].key))):
        best = max(("train", "reference"), key=lambda split: (useful(group, split), lack(group, split)))
        if assigned.keys().isdisjoint(item.key for item in group) and useful(group, best):
            take(group, best)
    return assigned


def _draw(seed: int, key: str) -> bytes:
    """Draw a number for ``key`` that any machine and any version draws again."""
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
