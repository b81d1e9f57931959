"""EfficientNet-Lite0 with the head that sees through degradation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from skimage import data

from rasr.degrade import crop_to_multiple, degrade
from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.gallery.encoders import Encoder, load_encoder
from rasr.weights import require

PHOTOS = {
    name: (getattr(data, name)()[..., :3] / 255).astype(np.float32)
    for name in ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina", "immunohistochemistry")
}
BLANK = np.zeros((1, 3, 224, 224), np.float32)


def embed(encoder: Encoder, *pictures: np.ndarray) -> np.ndarray:
    return encoder.embed(np.stack([encoder.preprocess(picture) for picture in pictures]))


def test_meets_the_protocol() -> None:
    encoder = load_encoder("effnet-lite0-robust")
    assert isinstance(encoder, Encoder)
    vectors = embed(encoder, PHOTOS["chelsea"], PHOTOS["coffee"])
    assert vectors.shape == (2, encoder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_is_the_backbone_and_the_published_formula() -> None:
    head = load_file(require("effnet-lite0-robust"))
    features = embed(load_encoder("effnet-lite0"), PHOTOS["astronaut"])[0].astype(np.float64)
    mapped = head["matrix"].astype(np.float64) @ (np.sqrt(features) - head["mean"])
    ours = embed(load_encoder("effnet-lite0-robust"), PHOTOS["astronaut"])[0]
    np.testing.assert_allclose(ours, mapped / np.linalg.norm(mapped), atol=1e-5)


def test_degraded_photos_find_themselves_more_surely_than_with_the_plain_encoder() -> None:
    """On photos that neither training nor calibration ever saw; the gap is to the best wrong photo."""
    degraded = [
        degrade(crop_to_multiple(photo, 4), seed=seed, name=name)[0]
        for name, photo in PHOTOS.items()
        for seed in (1, 2)
    ]
    gaps = {}
    for name in ("effnet-lite0", "effnet-lite0-robust"):
        encoder = load_encoder(name)
        scores = embed(encoder, *degraded) @ embed(encoder, *PHOTOS.values()).T
        own = np.repeat(np.arange(len(PHOTOS)), 2)
        right = scores[np.arange(len(own)), own].copy()
        scores[np.arange(len(own)), own] = -np.inf
        gaps[name] = right - scores.max(axis=1)
    assert gaps["effnet-lite0-robust"].mean() > gaps["effnet-lite0"].mean() + 0.05
    assert (gaps["effnet-lite0-robust"] > 0).sum() >= (gaps["effnet-lite0"] > 0).sum()


def test_fingerprint_tells_it_from_the_plain_encoder() -> None:
    plain, robust_ = load_encoder("effnet-lite0"), load_encoder("effnet-lite0-robust")
    assert plain.fingerprint != robust_.fingerprint
    assert plain.fingerprint in robust_.fingerprint


def test_a_changed_head_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("effnet-lite0", "effnet-lite0-robust"):
        shutil.copy(require(name), tmp_path)
    head = tmp_path / require("effnet-lite0-robust").name
    content = bytearray(head.read_bytes())
    content[-1] ^= 1
    head.write_bytes(content)
    monkeypatch.setattr("rasr.weights.locate.package_folder", lambda weights: tmp_path)
    with pytest.raises(WeightsCorrupt, match=r"effnet_lite0_robust.*Install rasr again"):
        load_encoder("effnet-lite0-robust").embed(BLANK)
    head.unlink()
    with pytest.raises(WeightsMissing, match=r"effnet-lite0-robust.*Install rasr again"):
        load_encoder("effnet-lite0-robust").embed(BLANK)
