"""Splits: complete, reproducible, and never parting what belongs together."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from rasr.dataset.config import Splits
from rasr.dataset.splits import Item, assign


def _items(sizes: list[list[int]]) -> list[Item]:
    """One group per list; its numbers are the categories of its photos."""
    return [
        Item(f"photo-{group}-{index}", f"c{category}", f"group-{group}")
        for group, photos in enumerate(sizes)
        for index, category in enumerate(photos)
    ]


worlds = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=60)
wanted = st.builds(Splits, train=st.integers(0, 8), test=st.integers(0, 3), reference=st.integers(0, 12))


@settings(max_examples=150, deadline=None)
@given(worlds, wanted, st.integers(0, 3))
def test_groups_stay_together_and_places_are_not_exceeded(sizes: list[list[int]], places: Splits, seed: int) -> None:
    items = _items(sizes)
    assigned = assign(items, places, seed)
    splits = defaultdict(set)
    counts: Counter[tuple[str, str]] = Counter()
    for item in items:
        if item.key in assigned:
            splits[item.group].add(assigned[item.key])
            counts[item.category, assigned[item.key]] += 1
    assert all(len(found) == 1 for found in splits.values())
    assert all(count <= getattr(places, split) for (_, split), count in counts.items())


@settings(max_examples=50, deadline=None)
@given(worlds, wanted, st.randoms())
def test_order_of_the_items_does_not_matter(sizes: list[list[int]], places: Splits, random: object) -> None:
    items = _items(sizes)
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign(items, places, 3) == assign(shuffled, places, 3)


def test_single_photos_fill_everything_exactly() -> None:
    items = _items([[category] for category in (0, 1, 2) for _ in range(145)])
    counts = Counter(assign(items, Splits(), 0).values())
    assert counts == {"train": 120, "test": 15, "reference": 300}


def test_another_seed_gives_other_splits() -> None:
    items = _items([[0] for _ in range(145)])
    assert assign(items, Splits(), 0) != assign(items, Splits(), 1)
    assert assign(items, Splits(), 1) == assign(items, Splits(), 1)


def test_test_photos_come_from_photographers_with_few_photos() -> None:
    items = _items([[0] * 4 for _ in range(40)] + [[0] for _ in range(5)])
    assigned = assign(items, Splits(train=40, test=5, reference=80), 0)
    tested = {item.group for item in items if assigned.get(item.key) == "test"}
    assert len(tested) == 5


def test_the_test_split_is_filled_first_when_photos_are_scarce() -> None:
    assigned = assign(_items([[0] for _ in range(8)]), Splits(), 0)
    assert Counter(assigned.values())["test"] == 5
    assert len(assigned) == 8
