"""Choices out of range are refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasr.errors import UsageError
from rasr.generator import GenerationSettings
from rasr.restoration import SaveOptions, Settings, TargetSize


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"reference": ()}, "No reference"),
        ({"k": 0}, "k must be"),
        ({"strength": 1.01}, "between 0 and 1"),
        ({"strength": float("nan")}, "between 0 and 1"),
        ({"detail": 1.01}, "between 0 and 1"),
        ({"detail": float("nan")}, "between 0 and 1"),
        ({"tile": 0}, "tile must be"),
        ({"colour": "sepia"}, "lowest, wavelet, adain, none"),
        ({"query_restore": "maybe"}, "auto, on or off"),
        ({"seed": -1}, "seed must be"),
        ({"prompt": "cat", "k": -2}, "k must be at least 1, not -2"),
    ],
)
def test_values_out_of_range(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings(**choice)


def test_the_generator_sees_its_part_and_json_all() -> None:
    settings = Settings((Path("a.png"),), strength=0.5, seed=7, prompt="cat", detail=0.75, size=TargetSize(width=9))
    assert settings.generation == GenerationSettings(0.5, 7, "cat", detail=0.75)
    plain = settings.to_json()
    assert plain["reference"] == ["a.png"]
    assert plain["size"] == "width 9"
    assert set(plain) == set(Settings.__slots__)


def test_references_are_given_in_any_form() -> None:
    for form in ("a.png", Path("a.png"), ["a.png"], (Path("a.png"),)):
        assert Settings(reference=form).reference == (Path("a.png"),)  # type: ignore[arg-type]
    assert Settings(reference=["none"]).reference == "none"  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--reference none cannot be combined"):
        Settings(reference=["a.png", "none"])  # type: ignore[arg-type]
    assert Settings(size=None).size == TargetSize()  # type: ignore[arg-type]


sides = st.integers(1, 20_000)


@given(width=sides, height=sides, wanted=st.integers(1, 60_000))
def test_the_side_asked_for_is_met_exactly_and_the_aspect_within_half_a_pixel(
    width: int, height: int, wanted: int
) -> None:
    by_width, by_height = TargetSize(width=wanted).of(width, height), TargetSize(height=wanted).of(width, height)
    by_long = TargetSize(long_side=wanted).of(width, height)
    assert by_width[0] == wanted
    assert by_width[1] == 1 or abs(by_width[1] - height * wanted / width) <= 0.5
    assert by_height[1] == wanted
    assert by_height[0] == 1 or abs(by_height[0] - width * wanted / height) <= 0.5
    assert max(by_long) == wanted
    assert by_long in {TargetSize(width=wanted).of(width, height), TargetSize(height=wanted).of(width, height)}


@given(width=sides, height=sides, scale=st.floats(0.01, 16))
def test_a_scale_applies_to_both_sides(width: int, height: int, scale: float) -> None:
    for side, result in zip((width, height), TargetSize(scale=scale).of(width, height), strict=True):
        assert result >= 1
        assert result == 1 or abs(result - side * scale) <= 0.5


def test_four_times_larger_without_any_wish_and_halves_round_up() -> None:
    assert TargetSize().of(10, 7) == (40, 28)
    assert TargetSize(scale=1.5).of(3, 5) == (5, 8)
    assert TargetSize(scale=0.5).of(1, 5) == (1, 3)


@pytest.mark.parametrize(
    "wish",
    [
        {"scale": 0},
        {"scale": -1},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"width": 0},
        {"long_side": -3},
        {"height": 1.5},
    ],
)
def test_impossible_wishes_are_usage_errors(wish: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be a positive"):
        TargetSize(**wish)


def test_two_wishes_at_once_are_named() -> None:
    with pytest.raises(UsageError, match="scale, long_side"):
        TargetSize(scale=2, long_side=100)


def test_it_prints_as_asked() -> None:
    assert [str(size) for size in (TargetSize(), TargetSize(scale=1.5), TargetSize(long_side=800))] == [
        "scale 4",
        "scale 1.5",
        "long side 800",
    ]


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_a_quality_out_of_range(quality: int) -> None:
    with pytest.raises(UsageError, match="between 1 and 100, or be lossless"):
        SaveOptions(quality=quality)
    assert SaveOptions(quality="lossless").quality == "lossless"
