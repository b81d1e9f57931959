"""Choices out of range are refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rasr.errors import UsageError
from rasr.generator import GenerationSettings
from rasr.restoration import Settings, TargetSize


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"reference": ()}, "No reference"),
        ({"k": 0}, "k must be"),
        ({"strength": 1.01}, "between 0 and 1"),
        ({"strength": float("nan")}, "between 0 and 1"),
        ({"tile": 0}, "tile must be"),
        ({"colour": "sepia"}, "wavelet, adain, none"),
        ({"query_restore": "maybe"}, "auto, on or off"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_values_out_of_range(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings(**choice)


def test_the_generator_sees_its_part_and_json_all() -> None:
    settings = Settings((Path("a.png"),), strength=0.5, seed=7, prompt="cat", size=TargetSize(width=9))
    assert settings.generation == GenerationSettings(0.5, 7, "cat")
    plain = settings.to_json()
    assert plain["reference"] == ["a.png"]
    assert plain["size"] == "width 9"
    assert set(plain) == set(Settings.__slots__)
