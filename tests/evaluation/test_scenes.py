"""Verdicts on references: rates with exact intervals, groups by verdict and coverage, false accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from rasr.evaluation.inputs import TestInput
from rasr.evaluation.method import MethodInfo
from rasr.evaluation.metrics import MetricInfo
from rasr.evaluation.rows import Row
from rasr.evaluation.scenes import Rate, judge_scenes
from rasr.gallery import Reference

EPD = MetricInfo("EPD", "lower", "full-reference", 0.0, 9.0, 4, "as always", "someone")
INFO = MethodInfo("m", "Other", "", uses_reference=True)


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [  # Clopper and Pearson's; of none and of all in closed form
        (Rate(0, 10), 0.0, 0.3084971),
        (Rate(10, 10), 0.6915029, 1.0),
        (Rate(7, 12), 0.2766697, 0.8483478),
        (Rate(0, 0), 0.0, 1.0),
    ],
)
def test_intervals_are_exact(rate: Rate, low: float, high: float) -> None:
    assert rate.interval == pytest.approx((low, high), abs=1e-6)


def test_a_rate_in_words() -> None:
    assert Rate(7, 12).text == "7 of 12 (58.3 %, 27.7–84.8 %)"
    assert Rate(0, 0).text == "–"


@pytest.fixture
def inputs(tmp_path: Path) -> list[TestInput]:
    """Ten scenes of ten places with one photo each."""
    made = []
    for number in range(10):
        own = tmp_path / f"own{number}.jpg"
        own.write_bytes(bytes([number]))
        made.append(TestInput(f"s{number}", f"s{number}", own, own, own, "", "", 4, 8, 8, (own,)))
    return made


def judged(policy: str, place: str | None, verdicts: dict[int, float]) -> Row:
    """A row of ten pictures: those of ``verdicts`` are the same scene with that share, EPD lower by the share."""
    row = Row(INFO, policy, 10)
    for number in range(10):
        share = verdicts.get(number)
        verdict: Literal["same scene", "unrelated"] = "unrelated" if share is None else "same scene"
        category = f"s{number}" if place is None else place
        row.references[f"s{number}"] = (Reference(Path("r"), 0.5, 1, category, verdict=verdict, share=share),)
        row.scores.setdefault("EPD", {})[f"s{number}"] = 1.0 - (share or 0.0)
        row.outputs[f"s{number}"] = "hash"
    return row


def test_gains_by_verdict_and_coverage(inputs: list[TestInput]) -> None:
    none = Row(INFO, "none", 10, scores={"EPD": {f"s{i}": 1.0 for i in range(10)}})
    same = judged("same-scene", None, {0: 0.1, 1: 0.2, 2: 0.25, 3: 0.6, 4: 1.0})
    (found,) = judge_scenes([none, same], inputs, [EPD])
    assert (found.row, found.verified, found.false_accepts, found.wrong) == (same, Rate(5, 10), Rate(0, 0), ())
    groups = {group.name: group for group in found.groups}
    assert {name: len(group.pictures) for name, group in groups.items()} == {
        "all": 10,
        "same scene": 5,
        "not the same scene": 5,
        "same scene, covered below 25%": 2,
        "same scene, covered 25% to 50%": 1,
        "same scene, covered 50% and above": 2,
    }
    assert groups["same scene"].share == pytest.approx(0.43)
    assert groups["not the same scene"].share == 0
    compared = groups["same scene, covered below 25%"].scores["EPD"]
    assert (compared.value, compared.without, compared.interval) == (pytest.approx(0.85), 1.0, None)
    assert compared.text(EPD) == "0.8500 (-0.1500)"
    whole = groups["all"].scores["EPD"].interval
    assert whole is not None
    assert (whole.mean, whole.count) == (pytest.approx(-0.215), 10)


def test_photos_of_other_places_that_were_accepted_are_named(inputs: list[TestInput]) -> None:
    (found,) = judge_scenes([judged("random", "elsewhere", {3: 0.2})], inputs, [EPD])
    assert (found.verified, found.false_accepts) == (Rate(1, 10), Rate(1, 10))
    assert [name for name, _ in found.wrong] == ["s3"]
    assert found.groups[0].scores["EPD"].without is None
    (truth,) = judge_scenes([judged("truth", "elsewhere", {3: 0.2})], inputs, [EPD])
    assert truth.false_accepts == Rate(0, 0)


def test_rows_without_verdicts_are_left_out(inputs: list[TestInput]) -> None:
    silent = Row(INFO, "random", 10, references={"s0": (Reference(Path("r"), 0.5, 1),)})
    assert judge_scenes([silent], inputs, [EPD]) == []
