"""Query cleaning: when, how large, and with whose picture."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rasr.generator import query
from rasr.generator.query import clean_query
from rasr.images import FloatImage


class Enlarger:
    """Enlarges four times by repeating, and remembers what it was shown."""

    info = SimpleNamespace(scale=4)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def prepare(self, lq: FloatImage, references: Sequence[object], settings: object) -> None:
        assert not references

    def generate(self, tiles: Any, base: object, conditioning: object) -> Any:
        self.shapes.append(tiles.shape[1:3])
        return tiles.repeat(4, 1).repeat(4, 2)


@pytest.fixture
def cleaner(monkeypatch: pytest.MonkeyPatch) -> Enlarger:
    enlarger = Enlarger()
    monkeypatch.setattr(query, "_cleaner", lambda: enlarger)
    return enlarger


def picture(height: int, width: int) -> FloatImage:
    return np.random.default_rng(0).random((height, width, 3), dtype=np.float32)


def test_auto_cleans_what_the_encoder_would_see_enlarged(cleaner: Enlarger) -> None:
    small, large = picture(80, 90), picture(224, 300)
    assert clean_query(small, 224).shape == (320, 360, 3)
    assert clean_query(small, 224, "off") is small
    assert clean_query(large, 224) is large
    assert clean_query(large, 224, "on") is not large
    assert len(cleaner.shapes) == 2


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 900), (900, 1), (60, 90), (128, 128), (200, 220), (223, 4000), (223, 224)]
)
def test_one_tile_of_bounded_size_whatever_the_picture(cleaner: Enlarger, shape: tuple[int, int]) -> None:
    answer = clean_query(picture(*shape), 224)
    ((height, width),) = cleaner.shapes
    assert answer.shape == (4 * height, 4 * width, 3)
    assert height * width <= 128 * 128
    assert min(height, width) == min(*shape, query.SIDE)
    assert 0 <= answer.min() <= answer.max() <= 1


def test_the_middle_is_kept(cleaner: Enlarger) -> None:
    wide = np.zeros((20, 400, 3), np.float32)
    wide[:, 190:210] = 1
    answer = clean_query(wide, 224)
    assert answer.shape == (80, 144, 3)
    bright = answer.mean(axis=(0, 2)) > 0.5
    assert bright[32:112].all()
    assert bright.sum() == 80


def test_a_picture_that_the_same_network_has_made_is_not_made_again(cleaner: Enlarger) -> None:
    lq = picture(80, 90)
    made = np.zeros((320, 360, 3), np.float32)
    assert clean_query(lq, 224, cleaned=made) is made
    assert clean_query(lq, 224, cleaned=made[:100]) is not made, "of another size: the result was asked for smaller"
    assert clean_query(lq, 224, "off", cleaned=made) is lq
    assert len(cleaner.shapes) == 1
