"""Same scene in a restoration: verdicts, rank, what is fused, and where features are kept."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

import rasr.restoration.same_scene as module
from rasr.gallery import Gallery, Reference
from rasr.generator.adapter import save_adapter, save_backbone
from rasr.generator.diffusion import DiffusionGenerator
from rasr.generator.refdsr import build_model
from rasr.images import FloatImage, read_picture, resize
from rasr.registration import SceneMatch, fingerprint
from rasr.restoration import Restorer, Result, Settings, TargetSize
from rasr.restoration.report import write_report
from rasr.restoration.result import DRAWN
from rasr.restoration.same_scene import Looked, fuse_same_scene, look
from tests.gallery.standin import ColourLayout
from tests.generator.conftest import awaken, small
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
    chosen = Settings(**settings)
    looked = look(pixels, references, chosen, gallery=gallery)
    told, evidence = fuse_same_scene(pixels, lq, looked, chosen, reads=False)
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


def test_a_face_that_restoring_lost_is_known_from_the_photo(tmp_path: Path) -> None:
    portrait = (data.astronaut() / 255).astype(np.float32)
    lq = np.clip(resize(portrait, (40, 40)), 0, 1)
    lost = np.clip(resize(lq, (256, 256)), 0, 1)
    photo = Reference(tmp_path / "portrait.jpg", 1.0, 1)
    twice = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    seen = SceneMatch(same_scene=True, matches=100, covered=0.9, to_reference=twice)
    alone = Looked([], [], lambda _one: portrait).faces(lost, lq, Settings())
    found = Looked([(photo, seen)], [], lambda _one: portrait).faces(lost, lq, Settings())
    assert alone == []
    (face,) = (one for one in found if one.left < 112 < one.right and one.top < 57 < one.bottom)
    assert face.small, "seven pixels of the input do not tell whose it is"


@pytest.fixture(scope="module")
def branch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small diffusion model with a branch whose weights are not zero, as files."""
    folder = tmp_path_factory.mktemp("branch")
    model = build_model(small())
    model.attach_reference(small().reference.model_copy(update={"registered": True}))
    awaken(model)
    return {
        "weights": save_backbone(model, folder / "backbone.safetensors"),
        "adapter": save_adapter(model, folder / "adapter.safetensors"),
    }


@pytest.fixture(scope="module")
def left_half(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The view of the same scene without its right half: it ends at column 220 of 320 at most."""
    path = tmp_path_factory.mktemp("half") / "left.png"
    with Image.open(scene.same) as image:
        image.crop((0, 0, 370, image.height)).save(path)
    return path


def test_a_branch_sees_a_photo_of_the_scene_in_its_place(
    scene: Scene, branch: dict[str, Path], left_half: Path, tmp_path: Path
) -> None:
    as_trained, as_they_are = (
        Restorer(DiffusionGenerator(small(), device="cpu", **branch, registered=registered))
        for registered in ("auto", "off")
    )

    def restore(*given: Path, restorer: Restorer = as_trained, **settings: Any) -> Result:
        return restorer(scene.query, reference=given or "none", size=SIZE, colour="none", **settings)

    plain, placed = restore().picture.pixels, restore(left_half)
    (one,) = placed.references
    assert (one.verdict, one.accepted) == ("same scene", True)
    assert 0.2 < (one.changed or 0) < 0.75
    assert np.array_equal(placed.picture.pixels[:, 250:], plain[:, 250:]), "nothing is drawn where it shows nothing"
    drawn = (np.abs(placed.picture.pixels - plain).max(2) > 0) & (placed.evidence.total == 0)  # type: ignore[union-attr]
    assert drawn.mean() > 0.01, "it is drawn with it in view also where no detail was taken over"
    assert f"The generator saw it in {one.changed:.0%} of the picture: changed because of it." in one.why
    assert json.loads(placed._description())["evidence"] == [
        f"{one.share:.0%} detail from your photo left.png", "changed because of left.png", DRAWN,
    ]  # fmt: skip
    assert one.to_json()["changed"] == round(one.changed or 0, 4)
    page = write_report([placed], tmp_path / "report.html").read_text()
    assert "Used: detail from your photo left.png; elsewhere changed because of left.png." in page

    nothing = restore(left_half, strength=0.0)
    assert np.array_equal(nothing.picture.pixels, plain)
    assert nothing.references[0].changed is None

    # Of another scene, and by choice, a photo is shown as it is: all of the picture is drawn with it in view.
    other = restore(scene.other)
    assert other.references[0].verdict == "not verified"
    for result in (other, restore(left_half, restorer=as_they_are), restore(scene.other, candidates=0)):
        assert result.references[0].changed == 1
        assert result.references[0].why.endswith("The generator saw it: changed because of it.")
        assert not np.array_equal(result.picture.pixels[:, 250:], plain[:, 250:])

    both = restore(scene.other, left_half)
    first, second = both.references
    assert (first.path, second.path, second.accepted, second.changed) == (left_half, scene.other, False, None)
    assert np.array_equal(both.picture.pixels, placed.picture.pixels), "beside a photo of the scene no other guides"
