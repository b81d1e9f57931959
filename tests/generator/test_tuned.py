"""The layers trained further: their file, and what they change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from skimage import data

from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.generator import GenerationSettings, load_generator
from rasr.generator.tuned import LAYERS, read_tuned, write_tuned
from rasr.weights import require


def test_what_ships_are_the_last_fifty_layers() -> None:
    layers = read_tuned()
    assert list(layers) == list(range(351 - LAYERS, 351))
    assert layers[350][0].shape == (3, 64, 3, 3)
    assert all(np.isfinite(part).all() for layer in layers.values() for part in layer)


def test_written_layers_come_back(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    layers = {
        n: (random.standard_normal((3, 4, 3, 3)).astype(np.float16).astype(np.float32), np.float32([1, 2, 3]) / 7)
        for n in (7, 12)
    }
    found = read_tuned(write_tuned(tmp_path / "layers.safetensors", layers, {"steps": 3}))
    assert found.keys() == layers.keys()
    for number, layer in layers.items():
        assert all(np.array_equal(a, b) for a, b in zip(found[number], layer, strict=True))


def test_files_that_hold_no_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"no weights file .*none\.safetensors"):
        read_tuned(tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(require("realesrgan-tuned").read_bytes()[:1000])
    with pytest.raises(WeightsCorrupt, match=r"cut\.safetensors"):
        read_tuned(cut)
    other = tmp_path / "other.safetensors"
    save_file({"1.weight": np.zeros(3, np.float32)}, other)
    with pytest.raises(WeightsCorrupt, match="does not hold"):
        read_tuned(other)
    half = tmp_path / "half.safetensors"
    save_file({"1.weight": np.zeros(3, np.float32)}, half, {"format": "rasr-realesrgan-1"})
    with pytest.raises(WeightsCorrupt, match=r"half\.safetensors"):
        read_tuned(half)


def test_layers_of_another_network_do_not_start(tmp_path: Path) -> None:
    wrong = write_tuned(tmp_path / "wrong.safetensors", {350: (np.zeros((3, 9, 3, 3)), np.zeros(3))}, {})
    generator = load_generator("realesrgan-tuned", device="cpu", tuned=wrong)
    with pytest.raises(WeightsCorrupt, match="no convolution 350"):
        generator.prepare(np.zeros((8, 8, 3), np.float32), (), GenerationSettings())


def test_they_change_the_picture_and_say_so() -> None:
    lq = data.chelsea()[60:76, 130:150].astype(np.float32) / 255
    pictures = {}
    for preset in ("realesrgan", "realesrgan-tuned"):
        generator = load_generator(preset, device="cpu")
        pictures[preset] = generator.generate(lq[None], None, generator.prepare(lq, (), GenerationSettings()))[0]
        assert generator.info.name == preset
        assert (str(require("realesrgan-tuned")) in generator.info.weights.split(" + ")) == (
            preset == "realesrgan-tuned"
        )
    difference = np.abs(pictures["realesrgan"] - pictures["realesrgan-tuned"])
    assert 0.001 < difference.mean() < 0.05
