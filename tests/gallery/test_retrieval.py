"""Retrieval: the query cleaned and embedded once; threshold by gallery size, margin, k, reasons, calibrations."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasr.errors import ConfigError
from rasr.gallery import Gallery, Reference, retrieval, retrieve
from rasr.gallery.encoders import ENCODERS, load_encoder
from rasr.gallery.retrieval import Calibration, accept, calibration_of
from rasr.images import FloatImage, read_picture
from tests.gallery.standin import ColourLayout

PLAIN = Calibration(thresholds=((1, 0.20), (10, 0.30), (100, 0.40)), margin=0.15, sure=0.80)


@pytest.fixture(autouse=True)
def plain_calibration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path))
    monkeypatch.setattr(retrieval, "_shipped", lambda: {"plain": PLAIN})


def proposals(*scores: float) -> list[Reference]:
    return [Reference(Path(f"{rank}.jpg"), score, rank) for rank, score in enumerate(scores, 1)]


def spread(count: int, typical: float, *best: float) -> np.ndarray:
    return np.array([*best, *np.full(count - len(best), typical)], np.float32)


def test_the_query_is_cleaned_and_embedded_once(
    gallery: Gallery, photos: Path, encoder: ColourLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, other = photos / "cat" / "00.png", photos / "dog" / "02.png"
    asked: list[tuple[tuple[int, ...], int]] = []

    def clean(pixels: FloatImage, input_size: int) -> FloatImage:
        asked.append((pixels.shape, input_size))
        return read_picture(other).pixels

    before = encoder.embedded
    found = retrieve(gallery, query, k=2, clean=clean)
    assert asked == [((32, 48, 3), 8)]
    assert encoder.embedded == before + 1
    assert (len(found), found[0].path, found[0].rank) == (5, other, 1)
    assert found[0].accepted
    assert found[0].score == pytest.approx(1.0, abs=1e-6)
    assert found[0].id in {photo.id for photo in gallery.list(category="dog")}
    embedded = retrieve(gallery, gallery.embedding_of(other), k=2, clean=clean)
    assert embedded == found
    assert len(asked) == 1, "an embedding cannot be cleaned"
    assert [one.accepted for one in found] == [one.accepted for one in accept(found, gallery.scores(other), "x", k=2)]


def test_filters_and_the_leak_guard_reach_the_search(gallery: Gallery, photos: Path) -> None:
    query = photos / "cat" / "00.png"
    assert [one.path for one in retrieve(gallery, query, shown=1)] == [query]
    assert query not in {one.path for one in retrieve(gallery, query, shown=20, exclude_near_duplicates=True)}
    assert {one.category for one in retrieve(gallery, query, shown=20, category="dog")} == {"dog"}
    assert retrieve(gallery, query, category="fish") == []


def test_a_reference_as_json(gallery: Gallery, photos: Path) -> None:
    (found,) = retrieve(gallery, photos / "cat" / "00.png", shown=1)
    assert found.to_json() == {
        "path": str(photos / "cat" / "00.png"), "score": 1.0, "rank": 1, "category": "cat", "tags": [],
        "accepted": True, "why": found.why, "verdict": None, "share": None, "changed": None,
    }  # fmt: skip


def test_a_score_above_the_threshold_is_accepted_with_a_reason() -> None:
    (chosen,) = accept(proposals(0.45), spread(100, 0.1, 0.45), "plain")
    assert chosen.accepted
    assert "0.45" in chosen.why
    assert "0.40" in chosen.why
    assert "100" in chosen.why


def test_a_score_below_the_threshold_is_turned_down_with_a_reason() -> None:
    (chosen,) = accept(proposals(0.39), spread(100, 0.1, 0.39), "plain")
    assert not chosen.accepted
    assert chosen.why.startswith("Turned down")
    assert "0.39" in chosen.why
    assert "0.40" in chosen.why


@pytest.mark.parametrize(("photos", "threshold"), [(1, 0.20), (10, 0.30), (100, 0.40), (1000, 0.50), (10**9, 0.80)])
def test_the_threshold_grows_with_the_gallery(photos: int, threshold: float) -> None:
    assert PLAIN.threshold(photos) == pytest.approx(threshold)


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_the_threshold_never_falls(a: int, b: int) -> None:
    small, large = sorted((a, b))
    assert PLAIN.threshold(small) <= PLAIN.threshold(large) + 1e-9


@pytest.mark.parametrize("photos", [1, 2, 3, 5])
def test_a_tiny_gallery_is_judged_by_the_threshold_alone(photos: int) -> None:
    """All its photos may show the same thing: no margin can be asked."""
    scores = np.full(photos, 0.45, np.float32)
    assert accept(proposals(0.45), scores, "plain")[0].accepted
    assert not accept(proposals(0.15), np.full(photos, 0.15, np.float32), "plain")[0].accepted


def test_a_score_that_hardly_stands_out_is_turned_down() -> None:
    (chosen,) = accept(proposals(0.50), spread(100, 0.40, 0.50), "plain")
    assert not chosen.accepted
    assert "half of the gallery" in chosen.why


def test_a_sure_score_needs_no_margin() -> None:
    """A gallery of one species: everything is alike, and alike to the query."""
    assert accept(proposals(0.85), spread(100, 0.82, 0.85), "plain")[0].accepted


def test_k_best_are_used_and_the_others_say_why_not() -> None:
    judged = accept(proposals(0.9, 0.8, 0.7, 0.1), spread(50, 0.05, 0.9, 0.8, 0.7, 0.1), "plain", k=2)
    assert [reference.accepted for reference in judged] == [True, True, False, False]
    assert "best 2" in judged[2].why
    assert judged[3].why.startswith("Turned down")


def test_a_photo_turned_down_before_stays_so_and_makes_room() -> None:
    first, second = proposals(0.9, 0.8)
    first = replace(first, accepted=False, why="The photo's file is missing.")
    judged = accept([first, second], spread(50, 0.05, 0.9, 0.8), "plain")
    assert judged[0] == first
    assert judged[1].accepted


def test_order_paths_scores_and_ranks_are_kept() -> None:
    before = proposals(0.9, 0.3, 0.2)
    after = accept(before, spread(30, 0.1, 0.9), "plain", k=3)
    assert [(r.path, r.score, r.rank) for r in after] == [(r.path, r.score, r.rank) for r in before]
    assert all(reference.why for reference in after)


def test_no_proposals_no_choice() -> None:
    assert accept([], np.zeros(0, np.float32), "plain") == []


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        accept(proposals(0.9), [0.9], "plain", k=0)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60), st.integers(1, 5))
def test_raising_a_score_never_turns_it_down(scores: list[float], k: int) -> None:
    best = max(scores)
    before = accept(proposals(best), scores, "plain", k=k)[0].accepted
    raised = min(1.0, best + 0.1)
    after = accept(proposals(raised), [raised if score == best else score for score in scores], "plain", k=k)[
        0
    ].accepted
    assert after or not before or np.median(scores) == best


def test_an_encoder_without_calibration_is_judged_cautiously_and_says_so() -> None:
    good, fair = accept(proposals(0.7, 0.45), spread(100, 0.1, 0.7, 0.45), "dinov2-small", k=2)
    assert good.accepted
    assert not fair.accepted
    assert "dinov2-small has no calibration" in good.why
    assert "dinov2-small has no calibration" in fair.why


def test_a_users_own_calibration_wins(tmp_path: Path) -> None:
    (tmp_path / "calibration.toml").write_text("[dinov2-small]\nthresholds = [[1, 0.3]]\nmargin = 0.1\nsure = 0.9\n")
    assert calibration_of("dinov2-small") == Calibration(((1, 0.3),), 0.1, 0.9)
    assert calibration_of("plain") == PLAIN


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "a = 1",
        "[a]\nmargin = 0.1",
        "[a]\nthresholds = []\nmargin = 0.1\nsure = 1",
        "[a]\nthresholds = [[5, 0.1], [1, 0.2]]\nmargin = 0.1\nsure = 1",
        "[a]\nthresholds = [[0, 0.1]]\nmargin = 0.1\nsure = 1",
        "[a]\nthresholds = [[1, 'x']]\nmargin = 0.1\nsure = 1",
    ],
)
def test_a_broken_calibration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"calibration\.toml"):
        calibration_of("a")


class TestShipped:
    """The file in the package."""

    @pytest.fixture
    def tables(self) -> dict[str, dict[str, object]]:
        return tomllib.loads((files("rasr.gallery") / "calibration.toml").read_text())

    def test_every_calibration_is_of_the_encoder_as_it_is_now(self, tables: dict[str, dict[str, object]]) -> None:
        assert tables
        for name, table in tables.items():
            assert name in ENCODERS
            assert table["fingerprint"] == load_encoder(name).fingerprint

    def test_thresholds_rise_and_stay_below_sure(self, tables: dict[str, dict[str, object]]) -> None:
        for calibration in retrieval._read((files("rasr.gallery") / "calibration.toml").read_text(), "").values():
            values = [value for _, value in calibration.thresholds]
            assert values == sorted(values)
            assert values[-1] < calibration.sure < 1
            assert 0 < calibration.margin < values[-1]
