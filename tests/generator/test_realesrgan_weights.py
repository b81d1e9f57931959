"""ncnn's files are read and rewritten to the byte; the layers trained further, their file and what they change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from skimage import data

from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.generator import GenerationSettings, load_generator
from rasr.generator.realesrgan_weights import (
    TUNED_LAYERS,
    read_convolutions,
    read_tuned,
    replace_convolutions,
    weight_files,
    write_tuned,
)
from rasr.weights import require


def test_a_file_of_another_length_is_not_believed(tmp_path: Path) -> None:
    param, model = weight_files(None)
    longer = tmp_path / "model.bin"
    longer.write_bytes(model.read_bytes() + b"\0\0\0\0")
    with pytest.raises(WeightsCorrupt, match="bytes where the network needs"):
        list(read_convolutions(param, longer))
    unknown = tmp_path / "unknown.bin"
    unknown.write_bytes(b"\1\2\3\4" + model.read_bytes()[4:])
    with pytest.raises(WeightsCorrupt, match="not known here"):
        list(read_convolutions(param, unknown))


def test_layers_put_back_give_the_same_bytes() -> None:
    param, model = weight_files(None)
    own = {n: (c.weight, c.bias) for n, c in enumerate(read_convolutions(param, model))}
    assert len(own) == 351
    assert replace_convolutions(param, model, own) == model.read_bytes()


@pytest.mark.parametrize("number", [0, 17, 350])
def test_one_layer_is_replaced_and_no_other(number: int, tmp_path: Path) -> None:
    param, model = weight_files(None)
    before = list(read_convolutions(param, model))
    random = np.random.default_rng(number)
    weight = random.standard_normal(before[number].weight.shape).astype(np.float16).astype(np.float32)
    bias = random.standard_normal(before[number].bias.shape).astype(np.float32)
    changed = tmp_path / "model.bin"
    changed.write_bytes(replace_convolutions(param, model, {number: (weight, bias)}))
    for n, (old, new) in enumerate(zip(before, read_convolutions(param, changed), strict=True)):
        wanted = (weight, bias) if n == number else (old.weight, old.bias)
        assert np.array_equal(new.weight, wanted[0]), n
        assert np.array_equal(new.bias, wanted[1]), n


@pytest.mark.parametrize(("number", "shape"), [(351, (3, 64, 3, 3)), (-1, (3, 64, 3, 3)), (350, (3, 32, 3, 3))])
def test_layers_that_do_not_fit_are_named(number: int, shape: tuple[int, ...]) -> None:
    param, model = weight_files(None)
    layer = np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)
    with pytest.raises(WeightsCorrupt, match=f"no convolution {number}"):
        replace_convolutions(param, model, {number: layer})


def test_what_ships_are_the_last_fifty_layers() -> None:
    layers = read_tuned()
    assert list(layers) == list(range(351 - TUNED_LAYERS, 351))
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
