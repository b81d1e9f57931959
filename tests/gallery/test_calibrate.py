"""Calibration by a gallery's own photos: what is measured, where it is kept, when it counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rasr.errors import GalleryCorrupt, GalleryError
from rasr.gallery import Gallery, retrieve
from rasr.gallery.calibrate import calibrate, figures
from rasr.gallery.retrieval import calibration_of, calibration_of_gallery
from rasr.images import FloatImage
from tests.gallery.standin import ColourLayout, make_picture


@pytest.fixture
def many(tmp_path: Path, encoder: ColourLayout) -> Gallery:
    """Forty photos."""
    for seed in range(40):
        make_picture(tmp_path / "many" / f"{seed:02d}.png", seed)
    gallery = Gallery(tmp_path / "gallery", encoder=encoder)
    gallery.add(tmp_path / "many")
    return gallery


def noisy(pixels: FloatImage, name: str) -> Sequence[FloatImage]:
    rng = np.random.default_rng(int(name[:8], 16))
    return [np.clip(pixels + rng.normal(0, s, pixels.shape), 0, 1).astype(np.float32) for s in (0.1, 0.3)]


def kinds(groups: int, each: int, dimension: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (N, D) of photos of several kinds, and each one's kind."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(groups, dimension))
    of = np.repeat(np.arange(groups), each)
    vectors = centres[of] + 0.7 * rng.normal(size=(len(of), dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), of


def test_thresholds_are_passed_by_the_share_of_unrelated_photos_they_are_for() -> None:
    """Kinds are never told, and held against: photos of another kind pass in about one query of ten."""
    vectors, of = kinds(16, 20)
    rng = np.random.default_rng(1)
    own = rng.permutation(len(of))[:150]
    queries = vectors[own] + 0.1 * rng.normal(size=(150, 64)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores = (queries @ vectors.T).astype(np.float32)
    table = figures(scores, own, vectors, rng)
    sizes, values = zip(*table["thresholds"], strict=True)  # type: ignore[misc, call-overload]
    assert list(sizes) == [1, 3, 10, 30, 100, 287]
    assert list(values) == sorted(values)
    assert table["sure"] >= values[-1]  # type: ignore[operator]
    other = np.where(of[None] == of[own][:, None], -1, scores)
    for size, value in table["thresholds"]:  # type: ignore[attr-defined]
        best = [rng.choice(row[row > -1], min(size, 300), replace=False).max() for row in other for _ in range(5)]
        assert 0.03 < np.mean(np.array(best) > value) < 0.3, size
    same = np.where(of[None] == of[own][:, None], scores, -1)
    same[np.arange(150), own] = -1
    assert np.mean(same.max(axis=1) > values[-1]) > 0.9
    assert 0 <= table["margin"] < 0.3  # type: ignore[operator]


def test_it_is_kept_with_the_gallery_and_counts_there(
    many: Gallery, encoder: ColourLayout, reopen: Callable[[], Gallery]
) -> None:
    before = retrieve(many, many.list()[0].path)
    assert "cautious defaults" in before[0].why
    found = calibrate(many, noisy, sample=20)
    again = reopen()
    assert calibration_of_gallery(again) == found
    assert found != calibration_of(encoder.name)
    judged = retrieve(again, many.list()[0].path)
    needed = max(found.threshold(40), 0.0)
    assert "cautious defaults" not in judged[0].why
    assert f"needs {needed:.2f}" in judged[0].why or "half of the gallery" in judged[0].why
    info = again.info().calibration
    assert info is not None
    assert (info["encoder"], info["photos"], info["queries"]) == (encoder.fingerprint, 40, 40)
    assert again.verify(deep=True).ok
    assert len(again) == 40


def test_it_stays_through_changes_and_is_replaced_by_the_next(many: Gallery, tmp_path: Path) -> None:
    calibrate(many, noisy, sample=10)
    first, version = many.calibration, many.info().version
    make_picture(tmp_path / "more" / "x.png", 99)
    many.add(tmp_path / "more")
    many.remove([many.list()[0].path])
    assert many.calibration == first
    assert many.info().version != version
    calibrate(many, noisy, sample=20)
    assert json.loads(many.calibration)["queries"] == 40


def test_the_same_seed_gives_the_same_figures(many: Gallery) -> None:
    one, two, three = (calibrate(many, noisy, sample=10, seed=seed) for seed in (0, 0, 1))
    assert one == two
    assert one != three


def test_a_calibration_of_another_encoder_does_not_count(many: Gallery) -> None:
    calibrate(many, noisy, sample=10)
    many.calibration = json.dumps({**json.loads(many.calibration), "encoder": "another"})
    assert calibration_of_gallery(many) is None


@pytest.mark.parametrize("broken", ["{", "[]", "{}"])
def test_a_broken_calibration_is_said(many: Gallery, broken: str) -> None:
    table = json.dumps(
        {"encoder": many.encoder.fingerprint, "thresholds": [[3, 0.1], [1, 0.2]], "margin": 0, "sure": 1}
    )
    for text in (broken, table):
        many.calibration = text
        with pytest.raises(GalleryError, match="rasr gallery calibrate"):
            calibration_of_gallery(many)


def test_a_flipped_bit_in_it_is_found(many: Gallery, reopen: Callable[[], Gallery]) -> None:
    calibrate(many, noisy, sample=10)
    file = many.path / "gallery.db"
    content = file.read_bytes()
    assert content.count(b"thresholds") == 1
    file.write_bytes(content.replace(b"thresholds", b"thresholdz"))
    with pytest.raises(GalleryCorrupt, match="manifest"):
        reopen().info()


def test_small_and_unreadable_galleries_are_refused(many: Gallery) -> None:
    for photo in many.list():
        photo.path.unlink()
    with pytest.raises(GalleryError, match="nothing was calibrated"):
        calibrate(many, noisy)
    many.remove([photo.path for photo in many.list()[:12]])
    with pytest.raises(GalleryError, match="28 photos; to calibrate takes at least 30"):
        calibrate(many, noisy)
    assert many.calibration == ""


def test_galleries_from_before_read_and_write_as_they_did(many: Gallery) -> None:
    """Without a calibration the database holds not a word of it."""
    assert b"calibration" not in (many.path / "gallery.db").read_bytes()
