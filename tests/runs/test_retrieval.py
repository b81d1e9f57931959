"""The encoder's head and the calibration of retrieval, made from a tiny photo set from beginning to end."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rasr.gallery.encoders import load_encoder
from rasr.gallery.encoders.efficientnet import Head
from rasr.gallery.retrieval import calibration_of
from rasr.weights import read_safetensors
from runs import retrieval_calibrate, retrieval_head, retrieval_set

pytestmark = pytest.mark.usefixtures("_small")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_set, "LONG_SIDE", 64)
    monkeypatch.setattr(retrieval_head, "WHOLE", (48, 64))
    monkeypatch.setattr(retrieval_head, "MID", (48, 64))
    monkeypatch.setattr(retrieval_head, "VIEWS", ("crop", "mid"))
    monkeypatch.setattr(retrieval_head, "SEEDS", range(1))


def test_a_photo_set_is_read_and_asked(photo_set: Path, tmp_path: Path) -> None:
    found = retrieval_set.photos(photo_set)
    assert len(found) == 36
    assert {photo.split for photo in found} == {"train", "test"}
    assert retrieval_set.query(found[0], "clean", 0).shape == (72, 72, 3)
    assert retrieval_set.query(found[0], "crop", 0).shape == (18, 18, 3)
    assert retrieval_set.query(found[0], "whole", 0).shape == (16, 16, 3)
    encoder = load_encoder("effnet-lite0")
    few = retrieval_set.embeddings(encoder, "clean", found[:2], retrieval_set.Photo.read, tmp_path)
    others = retrieval_set.embeddings(encoder, "clean", found[2:4], retrieval_set.Photo.read, tmp_path)
    assert not np.array_equal(few, others), "as many photos, but others: never the ones kept before"

    def fail(_photo: retrieval_set.Photo) -> None:
        raise AssertionError("made twice")

    again = retrieval_set.embeddings(encoder, "clean", found[:2], fail, tmp_path)  # type: ignore[arg-type]
    assert np.array_equal(again, few)


def test_the_calibration_is_written_and_used(
    photo_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path / "home"))
    file = tmp_path / "home" / "calibration.toml"
    file.parent.mkdir()
    file.write_text('[other]\nfingerprint = "x"\nthresholds = [[1, 0.5]]\nmargin = 0.1\nsure = 0.9\n')
    options = ["--photos", str(photo_set), "--cache", str(tmp_path), "--encoder", "effnet-lite0"]
    retrieval_calibrate.main([*options, "--write", str(file)])
    calibration = calibration_of("effnet-lite0")
    printed = capsys.readouterr().out
    assert calibration.measured
    assert f"sure {calibration.sure:.3f}, margin {calibration.margin:.3f}" in printed
    assert re.search(r"crop +P@1 \d", printed)
    assert calibration_of("other").sure == 0.9, "another encoder's figures are left"
    assert file.read_text().startswith("# Written by runs/retrieval_calibrate.py")


def test_the_head_is_trained_judged_calibrated_and_written(
    photo_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--photos", str(photo_set), "--cache", str(tmp_path / "cache"), "--steps", "3", "--batch", "8"]
    options += ["--dimension", "4", "--folds", "--calibrate", str(tmp_path / "calibration.toml")]
    retrieval_head.main([*options, "--write", str(tmp_path / "head")])
    printed = capsys.readouterr().out
    assert "33 photos, 2 views each" in printed
    assert all(title in printed for title in ("plain ", "with the head", "categories never seen, head"))
    tensors, facts = read_safetensors(tmp_path / "head.safetensors", "numpy")
    assert tensors["matrix"].shape == (4, 1280)
    assert "effnet-lite0" in facts["base"]
    embedded = Head(tensors["mean"], tensors["matrix"])(np.full((1, 1280), 0.01, np.float32))
    assert np.linalg.norm(embedded) == pytest.approx(1, abs=1e-5)
    assert "[effnet-lite0-robust]" in (tmp_path / "calibration.toml").read_text()

    retrieval_head.main([*options, "--write", str(tmp_path / "again")])
    again, _ = read_safetensors(tmp_path / "again.safetensors", "numpy")
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)
