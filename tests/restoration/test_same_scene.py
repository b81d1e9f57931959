"""Same scene in a restoration: verdicts, rank, what is fused, and where features are kept."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rasr.restoration.same_scene as module
from rasr.gallery import Gallery, Reference
from rasr.images import FloatImage, read_picture, resize
from rasr.registration import fingerprint
from rasr.restoration import Restorer, Result, Settings, TargetSize
from rasr.restoration.same_scene import fuse_same_scene
from tests.gallery.standin import ColourLayout
from tests.restoration.conftest import Scene

SIZE = TargetSize(scale=2)


@pytest.fixture(scope="module")
def restored(scene: Scene) -> Result:
    """A look-alike by score first, the photo of the same scene last."""
    return Restorer("bicubic")(scene.query, reference=[scene.other, scene.same], size=SIZE)


@pytest.fixture(scope="module")
def plain(scene: Scene) -> FloatImage:
    return Restorer("bicubic")(scene.query, reference="none", size=SIZE).picture.pixels


def test_the_same_scene_outranks_every_likeness(scene: Scene, restored: Result) -> None:
    first, second = restored.references
    assert (first.path, first.rank, first.verdict, first.accepted) == (scene.same, 1, "same scene", True)
    assert (second.path, second.rank, second.accepted) == (scene.other, 2, False)
    assert first.share == pytest.approx(restored.evidence.shares[0])  # type: ignore[union-attr]
    assert (first.share or 0) > 0.15, "half the size has lost only the finest"
    assert second.share is None
    assert restored.evidence_references == [first]


def test_verdicts_are_told_in_plain_words_with_the_facts(restored: Result) -> None:
    first, second = restored.references
    assert first.why.startswith("Same scene: ")
    assert "places of it found again in" in first.why
    assert first.why.endswith(f"{first.share:.0%} of the result is detail from it.")
    assert second.why.startswith("Picked by hand. Not verified: ")
    assert second.verdict == "not verified", "picked by hand: how alike it looks was not measured"
    assert second.to_json()["verdict"] == "not verified"


def test_fusion_changes_the_picture_where_the_map_says_and_nowhere_else(restored: Result, plain: FloatImage) -> None:
    assert restored.evidence is not None
    touched = restored.evidence.total > 0
    assert np.array_equal(restored.picture.pixels[~touched], plain[~touched])
    assert np.abs(restored.picture.pixels - plain)[touched].mean() > 0.003


def test_without_a_photo_of_the_scene_the_result_is_that_of_none(scene: Scene, plain: FloatImage) -> None:
    result = Restorer("bicubic")(scene.query, reference=scene.other, size=SIZE)
    assert np.array_equal(result.picture.pixels, plain)
    assert result.evidence is None
    assert not any(one.accepted for one in result.references)
    assert "No photo of the same scene: restored without a reference." in result.notes


def test_strength_0_fuses_nothing(scene: Scene, plain: FloatImage) -> None:
    result = Restorer("bicubic")(scene.query, reference=scene.same, size=SIZE, strength=0.0)
    assert result.references[0].verdict == "same scene"
    assert result.evidence is None
    assert result.evidence_references == []
    assert np.array_equal(result.picture.pixels, plain)


def test_without_candidates_nothing_is_looked_at(scene: Scene, plain: FloatImage) -> None:
    result = Restorer("bicubic")(scene.query, reference=scene.same, size=SIZE, candidates=0)
    assert result.references[0].verdict == ""
    assert np.array_equal(result.picture.pixels, plain)


def _fuse(
    scene: Scene, references: list[Reference], gallery: Path | None, **settings: Any
) -> tuple[list[Reference], Any, FloatImage]:
    lq = read_picture(scene.query).pixels
    pixels = np.clip(resize(lq, (320, 320)), 0, 1)
    told, evidence = fuse_same_scene(pixels, lq, references, Settings(**settings), reads=False, gallery=gallery)
    return told, evidence, pixels


def test_what_retrieval_proposes_is_looked_at_as_far_as_asked(scene: Scene) -> None:
    turned_down = {"accepted": False, "why": "Turned down: matches 0.20, needs 0.50 here."}
    proposed = [Reference(scene.other, 0.3, 1, **turned_down), Reference(scene.same, 0.2, 2, **turned_down)]
    told, evidence, _ = _fuse(scene, proposed, None, candidates=1)
    assert evidence is None
    assert [(one.path, one.verdict) for one in told] == [(scene.other, "unrelated"), (scene.same, "unrelated")]
    told, evidence, _ = _fuse(scene, proposed, None, candidates=2)
    assert evidence is not None
    assert [(one.path, one.verdict) for one in told] == [(scene.same, "same scene"), (scene.other, "unrelated")]
    alike = [Reference(scene.other, 0.9, 1, why="Matches well: 0.90, needs 0.50 here.")]
    ((kind,), none, _) = _fuse(scene, alike, None)
    assert (kind.verdict, none) == ("same kind", None), "a gallery's photo was measured for likeness"
    ((hand,), none, _) = _fuse(scene, alike, None, reference=[scene.other])
    assert (hand.verdict, none) == ("not verified", None)


def test_a_photo_that_cannot_be_read_is_named_and_left_out(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xffno picture")
    references = [Reference(tmp_path / "bad.jpg", 0.9, 1), Reference(tmp_path / "gone.jpg", 0.8, 2)]
    told, evidence, _ = _fuse(scene, [*references, Reference(scene.same, 0.1, 3)], None)
    assert evidence is not None
    assert [one.path for one in told] == [scene.same, tmp_path / "bad.jpg", tmp_path / "gone.jpg"]
    assert all("Not used: " in one.why and not one.accepted and not one.usable for one in told[1:])


@pytest.fixture(scope="module")
def gallery(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("gallery")
    gallery = Gallery(folder / "gallery", encoder=ColourLayout())
    gallery.add([scene.same.parent])
    return gallery


def test_features_are_kept_beside_the_gallery_and_a_damaged_file_costs_only_time(
    scene: Scene, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[FloatImage] = []
    extract = module.extract_reference
    monkeypatch.setattr(module, "extract_reference", lambda pixels: made.append(pixels) or extract(pixels))
    kept = gallery.path / "features.db"

    def restore() -> FloatImage:
        monkeypatch.setattr("rasr.gallery.local_features._memory.get", lambda key, make: make())
        return Restorer("bicubic", gallery)(scene.query, size=SIZE).picture.pixels

    first = restore()
    assert len(made) == 2
    assert kept.is_file()
    with sqlite3.connect(kept) as database:
        rows = database.execute("SELECT photo, made_by FROM features").fetchall()
    database.close()
    assert sorted(rows) == sorted((photo.id, fingerprint()) for photo in gallery.list())
    assert np.array_equal(restore(), first)
    assert len(made) == 2, "kept ones are used"
    kept.write_bytes(os.urandom(5000))
    assert np.array_equal(restore(), first)
    assert len(made) == 4
