"""DINOv2 through the hub's cache layout and through a plain folder, against transformers' own preprocessing and model.

The weights are a seeded, randomly initialised Dinov2Model: everything is as with the published ones, except what the
numbers mean. The network is blocked throughout.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from transformers import Dinov2Config, Dinov2Model
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from rasr.errors import UsageError, WeightsCorrupt, WeightsMissing
from rasr.gallery.encoders import Encoder, load_encoder
from rasr.weights import entry

COMMIT = entry("dinov2-small").revision


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``save_pretrained`` writes it: DINOv2's architecture, 2 layers of width 48."""
    torch.manual_seed(7)
    config = Dinov2Config(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=518, patch_size=14)
    target = tmp_path_factory.mktemp("dinov2-random")
    Dinov2Model(config).save_pretrained(target)
    return target


@pytest.fixture
def hub_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same files in the hub's cache layout: blobs by hash, a snapshot of links, refs/main."""
    cache = tmp_path / "hub"
    repository = cache / "models--facebook--dinov2-small"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        blob = repository / "blobs" / hashlib.sha256((folder / name).read_bytes()).hexdigest()
        shutil.copyfile(folder / name, blob)
        (snapshot / name).symlink_to(blob)
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


PHOTOS = {
    "landscape": data.chelsea(),
    "square": data.astronaut(),
    "portrait": np.rot90(data.rocket()).copy(),
    "small": data.coffee()[::4, ::4].copy(),
    "long": np.tile(data.coffee(), (1, 2, 1)),
}


def by_transformers(folder: Path, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Input and unit class token as transformers computes them with DINOv2's published preprocessor settings."""
    processor = BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    inputs = processor(Image.fromarray(photo), return_tensors="pt")["pixel_values"]
    model = Dinov2Model.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        token = model(inputs).last_hidden_state[:, 0]
    return inputs[0].numpy(), torch.nn.functional.normalize(token, dim=1)[0].numpy()


@pytest.mark.parametrize("photo", PHOTOS.values(), ids=PHOTOS.keys())
def test_equals_transformers_own_output(folder: Path, photo: np.ndarray) -> None:
    encoder = load_encoder(f"dinov2:{folder}")
    ours = encoder.preprocess(photo.astype(np.float32) / 255)
    inputs, embedding = by_transformers(folder, photo)
    np.testing.assert_allclose(ours, inputs, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(ours[None])[0], embedding, atol=1e-5)


def test_the_hubs_cache_is_used_without_network(hub_cache: Path, folder: Path) -> None:
    encoder = load_encoder("dinov2-small")
    photo = PHOTOS["landscape"]
    embedding = encoder.embed(encoder.preprocess(photo.astype(np.float32) / 255)[None])[0]
    np.testing.assert_allclose(embedding, by_transformers(folder, photo)[1], atol=1e-5)
    assert isinstance(encoder, Encoder)
    assert encoder.dimension == 48


def test_another_commit_is_found_through_the_branch(hub_cache: Path) -> None:
    repository = hub_cache / "models--facebook--dinov2-small"
    (repository / "snapshots" / COMMIT).rename(repository / "snapshots" / ("f" * 40))
    (repository / "refs" / "main").write_text("f" * 40)
    assert load_encoder("dinov2-small").embed(np.zeros((1, 3, 224, 224), np.float32)).shape == (1, 48)


def test_same_weights_same_fingerprint_from_hub_and_folder(hub_cache: Path, folder: Path) -> None:
    assert load_encoder("dinov2-small").fingerprint == load_encoder(f"dinov2:{folder}").fingerprint


@pytest.mark.parametrize("change", ["weights", "heads"])
def test_fingerprint_follows_the_content(folder: Path, copy: Path, change: str) -> None:
    if change == "weights":
        torch.manual_seed(8)
        Dinov2Model(Dinov2Config.from_pretrained(folder)).save_pretrained(copy)
    else:
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"num_attention_heads": 6}))
    assert load_encoder(f"dinov2:{copy}").fingerprint != load_encoder(f"dinov2:{folder}").fingerprint


def test_fingerprint_ignores_what_does_not_matter(folder: Path, copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "4.0", "architectures": ["X"]}))
    assert load_encoder(f"dinov2:{copy}").fingerprint == load_encoder(f"dinov2:{folder}").fingerprint


@pytest.mark.parametrize("variable", ["RASR_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_and_absent_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv(variable, "1")
    encoder = load_encoder("dinov2-base")
    assert encoder.dimension == 768
    with pytest.raises(
        WeightsMissing, match=r"346 MB, Apache-2\.0.*facebook/dinov2-base.*dinov2:FOLDER.*network is off"
    ):
        encoder.embed(np.zeros((1, 3, 224, 224), np.float32))


def test_nothing_is_downloaded_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for variable in ("RASR_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(variable, "0")
    encoder = load_encoder("dinov2-large")
    assert encoder.dimension == 1024
    with pytest.raises(WeightsMissing, match=r"with: rasr models download dinov2-large"):
        _ = encoder.fingerprint
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="there is no folder"):
        _ = load_encoder(f"dinov2:{tmp_path / 'nowhere'}").fingerprint


def test_pickled_weights_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(WeightsMissing, match=r"lacks model\.safetensors.*can run code"):
        load_encoder(f"dinov2:{copy}").embed(np.zeros((1, 3, 224, 224), np.float32))


def test_empty_folder_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="dinov2:FOLDER"):
        load_encoder("dinov2:")


@pytest.mark.parametrize("length", [0, 4, 1000, 100_000])
def test_truncated_weights_are_refused(copy: Path, length: int) -> None:
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[:length])
    with pytest.raises(WeightsCorrupt, match=r"model\.safetensors"):
        load_encoder(f"dinov2:{copy}").embed(np.zeros((1, 3, 224, 224), np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 3},
        {"hidden_size": 64},
        {"hidden_act": "nonsense"},
        {"num_attention_heads": "six"},
        {"model_type": "vit"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_configuration_that_does_not_fit_is_refused(copy: Path, change: dict[str, Any]) -> None:
    """Above all the first: transformers fills tensors missing from the file with random numbers."""
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(WeightsCorrupt, match=r"config\.json"):
        load_encoder(f"dinov2:{copy}").embed(np.zeros((1, 3, 224, 224), np.float32))


def test_a_configuration_that_is_not_json_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(WeightsCorrupt, match=r"config\.json"):
        _ = load_encoder(f"dinov2:{copy}").fingerprint


def test_loading_is_silent(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_encoder(f"dinov2:{folder}").embed(np.zeros((1, 3, 224, 224), np.float32))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_one_pixel_panorama_is_cheap(folder: Path) -> None:
    assert load_encoder(f"dinov2:{folder}").preprocess(np.full((1, 60_000, 3), 0.5, np.float32)).shape == (3, 224, 224)
