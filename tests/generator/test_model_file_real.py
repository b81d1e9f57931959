"""Model files through spandrel itself, with tiny networks of random weights: ``make test-models`` runs these.

spandrel needs torchvision, which the development environment must not have (constraints.txt). Where torchvision is
installed beside a torch whose build it does not fit, its compiled operators are declared without code: spandrel uses
only functions of its that are written in Python.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rasr.errors import WeightsCorrupt
from rasr.generator import GenerationSettings, load_generator
from rasr.generator.model_file import ModelFile
from rasr.restoration import Restorer, TargetSize

if importlib.util.find_spec("spandrel") is None or importlib.util.find_spec("torchvision") is None:
    pytest.skip("spandrel and torchvision are not installed: make test-models", allow_module_level=True)

_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


def _import_torchvision() -> None:
    for _ in range(10):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import torchvision as _  # noqa: F401
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if not missing:
                raise
            _OPERATORS.define(f"{missing[1]}(Tensor x) -> Tensor")
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
        else:
            return


_import_torchvision()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from spandrel.architectures.DAT import DAT
    from spandrel.architectures.DnCNN import DnCNN
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.HAT import HAT
    from spandrel.architectures.SwinIR import SwinIR

_WINDOWS = {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2.0}
NETWORKS: dict[str, tuple[str, int, Callable[[], Any]]] = {
    "rrdbnet4": ("ESRGAN", 4, lambda: ESRGAN(num_filters=16, num_blocks=1, scale=4)),
    "rrdbnet2": ("ESRGAN", 2, lambda: ESRGAN(num_filters=16, num_blocks=1, scale=2)),
    "rrdbnet1": ("ESRGAN", 1, lambda: ESRGAN(num_filters=16, num_blocks=1, scale=1)),
    "swinir4": ("SwinIR", 4, lambda: SwinIR(**_WINDOWS, upscale=4, upsampler="nearest+conv")),
    "swinir2": ("SwinIR", 2, lambda: SwinIR(**_WINDOWS, upscale=2, upsampler="pixelshuffle")),
    "dat2": ("DAT", 2, lambda: DAT(embed_dim=32, depth=[1, 1], num_heads=[2, 2], split_size=[8, 8], upscale=2)),
    "hat4": ("HAT", 4, lambda: HAT(**_WINDOWS, upscale=4, num_feat=16, compress_ratio=3, squeeze_factor=4)),
    "dncnn": ("DnCNN", 1, lambda: DnCNN(in_nc=3, out_nc=3, nc=8, nb=4)),
}


def write(path: Path, name: str) -> Any:
    """A file of that network with random weights; returns the network."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = NETWORKS[name][2]().eval()
    tensors = {key: tensor.clone().contiguous() for key, tensor in network.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"params_ema": tensors}, path)
    return network


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_tiny_random_network_runs_as_it_is(tmp_path: Path, name: str, suffix: str) -> None:
    """The file's network and scale are recognised, and its picture is the network's own."""
    network, (architecture, scale, _) = write(tmp_path / f"mine{suffix}", name), NETWORKS[name]
    generator = ModelFile(tmp_path / f"mine{suffix}", device="cpu")
    info = generator.info
    assert (info.name, info.scale, info.licence) == (architecture, scale, "unknown: the file does not say")
    assert bool(info.remark) == (scale == 1)
    tile = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    restored = generator.generate(tile, None, generator.prepare(tile[0], [], GenerationSettings()))
    with torch.inference_mode():
        expected = network(torch.from_numpy(tile.transpose(0, 3, 1, 2))).clamp(0, 1).numpy().transpose(0, 2, 3, 1)
    assert restored.shape == (1, 64 * scale, 64 * scale, 3)
    np.testing.assert_allclose(restored, expected, atol=2e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_it_cleans_any_picture_to_any_size(tmp_path: Path, name: str) -> None:
    write(tmp_path / "mine.pth", name)
    picture = np.random.default_rng(1).random((45, 70, 3), np.float32)
    restorer = Restorer(cleaner=tmp_path / "mine.pth", device="cpu")
    for scale in (1, 2, 4):
        result = restorer(picture, size=TargetSize(scale=scale))
        assert (result.picture.width, result.picture.height) == (70 * scale, 45 * scale)
        assert any("mine.pth" in note for note in result.notes) == (NETWORKS[name][1] == 1)
    assert restorer.generator.info.name == NETWORKS[name][0]


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"params": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsCorrupt, match=r"bomb\.pth"):
        _ = load_generator(cleaner=tmp_path / "bomb.pth").info
    assert not (tmp_path / "exploded").exists()


def test_weights_of_no_network_are_named(tmp_path: Path) -> None:
    torch.save({"params": {"a": torch.zeros(3)}}, tmp_path / "strange.pth")
    with pytest.raises(WeightsCorrupt, match=r"strange\.pth is no model that spandrel can load"):
        _ = ModelFile(tmp_path / "strange.pth").info
