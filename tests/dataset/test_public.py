"""What the room exports."""

from __future__ import annotations

import rasr.dataset


def test_exports_are_sorted_and_there() -> None:
    assert rasr.dataset.__all__ == sorted(rasr.dataset.__all__)
    assert all(hasattr(rasr.dataset, name) for name in rasr.dataset.__all__)
