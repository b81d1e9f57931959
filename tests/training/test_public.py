from __future__ import annotations

import rasr.training


def test_all_is_sorted_and_importable() -> None:
    names = rasr.training.__all__
    assert list(names) == sorted(names)
    for name in names:
        assert getattr(rasr.training, name) is not None
