"""Bounds on what is decoded."""

from __future__ import annotations

import pytest

from rasr.errors import PictureTooLarge
from rasr.images import Limits, limits


def test_the_default_comes_from_memory_with_a_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "usable_memory", lambda: 2**30)
    assert Limits.from_memory().max_pixels == 89_478_485
    monkeypatch.setattr(limits, "usable_memory", lambda: 480 * 10**9)
    assert Limits.from_memory().max_pixels == 10 * 10**9


def test_megapixels_are_exact_at_the_border_and_none_is_no_limit() -> None:
    Limits.megapixels(1).check(1000, 1000, 1, "x")
    with pytest.raises(PictureTooLarge, match=r"x: not read, it has 1001×1000 pixels .*--max-megapixels N"):
        Limits.megapixels(1).check(1001, 1000, 1, "x")
    Limits.megapixels(None).check(10**6, 10**6, 1, "x")


def test_the_service_counts_frames_sides_and_bytes() -> None:
    service = Limits.service()
    service.check(5000, 5000, 2, "x")
    for width, height, frames, what in (
        (5000, 5001, 2, "megapixels"),
        (16_385, 1, 1, "16384 pixels a side"),
        (1, 1, 61, "60 frames"),
    ):
        with pytest.raises(PictureTooLarge, match=what) as refused:
            service.check(width, height, frames, "x")
        assert "--max" not in str(refused.value)
    service.check_bytes(32 * 2**20, "x")
    with pytest.raises(PictureTooLarge, match="32 MiB"):
        service.check_bytes(32 * 2**20 + 1, "x")


def test_one_s_own_long_scan_counts_only_the_page_that_is_read() -> None:
    Limits(max_pixels=10**7).check(3000, 3000, 200, "scan.tif")
