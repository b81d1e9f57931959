"""Presets and spandrel files as methods."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rasr.errors import ExtraMissing, UsageError, WeightsCorrupt
from rasr.evaluation import Job, MethodOptions, list_methods, load_method
from rasr.images import read_header, read_picture, resize
from tests.evaluation.conftest import photo


@pytest.fixture
def job(tmp_path: Path) -> Job:
    photo("chelsea.png", (100, 80, 132, 104)).save(tmp_path / "low.png")
    return Job("a", tmp_path / "low.png", tmp_path / "a.png", 128, 96, 4)


def test_bicubic_is_bicubic(job: Job, tmp_path: Path) -> None:
    outcomes = list(load_method("bicubic").run([job], tmp_path))
    assert outcomes[0].error == ""
    assert outcomes[0].memory > 10_000_000
    expected = np.rint(np.clip(resize(read_picture(job.low).pixels, (128, 96)), 0, 1) * 255)
    np.testing.assert_array_equal(np.asarray(Image.open(job.output), np.float32), expected)


def test_every_built_in_method_has_a_state_and_says_what_it_needs() -> None:
    infos = {info.name: info for info in list_methods()}
    assert {"bicubic", "realesrgan", "rasrnet-mini", "rasrnet-sd21", "osediff", "pisasr"} <= infos.keys()
    assert infos["bicubic"].state == infos["realesrgan"].state == infos["rasrnet-mini"].state == "ready"
    assert infos["rasrnet-mini"].uses_reference
    for name in ("rasrnet-sd21", "osediff", "pisasr"):
        assert infos[name].state == "needs weights"
        assert infos[name].todo
    assert not infos["osediff"].uses_reference
    for info in infos.values():
        assert (info.state == "ready") == (not info.todo)


def test_an_untrained_preset_says_so_in_its_label() -> None:
    info = load_method("rasrnet-mini").info
    assert (info.remark == "") == (info.label == "rasrnet-mini")
    assert info.label.startswith("rasrnet-mini")


class Descriptor:
    """What spandrel returns for a single-image model, as far as it is used."""

    input_channels = output_channels = 3
    scale = 2
    architecture = types.SimpleNamespace(name="Stand-in SR")
    size_requirements = types.SimpleNamespace(multiple_of=4)

    def __init__(self) -> None:
        self.model = nn.Upsample(scale_factor=2, mode="nearest")

    def to(self, device: torch.device) -> Descriptor:
        return self

    def eval(self) -> Descriptor:
        return self

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        upsampled: torch.Tensor = self.model(x)
        return upsampled


@pytest.fixture
def spandrel(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("spandrel")

    class ModelLoader:
        def load_from_file(self, path: Path) -> Descriptor:
            if path.read_bytes() != b"model":
                raise ValueError("unknown architecture")
            return Descriptor()

    module.ModelLoader, module.ImageModelDescriptor = ModelLoader, Descriptor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spandrel", module)
    return module


@pytest.mark.usefixtures("spandrel")
def test_a_model_file_runs_through_spandrel(job: Job, tmp_path: Path) -> None:
    (tmp_path / "BSRGANx2.pth").write_bytes(b"model")
    method = load_method(f"spandrel:{tmp_path / 'BSRGANx2.pth'}", MethodOptions(device="cpu"))
    assert (method.info.name, method.info.settings["generator"]) == ("BSRGANx2", "Stand-in SR")
    twice = Job("a", job.low, job.output, 64, 48, 2)
    assert next(iter(method.run([twice], tmp_path))).error == ""
    expected = np.asarray(Image.open(job.low).resize((64, 48), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(np.asarray(Image.open(job.output)), expected)
    assert next(iter(method.run([job], tmp_path))).error == ""  # another factor than the model's
    assert (read_header(job.output).width, read_header(job.output).height) == (128, 96)


@pytest.mark.usefixtures("spandrel")
def test_settings_change_with_the_content_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"model")
    before = load_method(f"spandrel:{path}", MethodOptions(device="cpu")).info.settings
    monkeypatch.setattr(sys.modules["spandrel"].ModelLoader, "load_from_file", lambda *_: Descriptor())
    path.write_bytes(b"retrained")
    after = load_method(f"spandrel:{path}", MethodOptions(device="cpu")).info.settings
    assert before != after


@pytest.mark.usefixtures("spandrel")
def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"text")
    with pytest.raises(WeightsCorrupt, match="unknown architecture"):
        _ = load_method(f"spandrel:{tmp_path / 'x.pth'}").info
    with pytest.raises(UsageError, match="no model file"):
        _ = load_method(f"spandrel:{tmp_path / 'y.pth'}").info


def test_without_spandrel_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    (tmp_path / "x.pth").write_bytes(b"model")
    with pytest.raises(ExtraMissing, match=r"rasr\[spandrel\]"):
        _ = load_method(f"spandrel:{tmp_path / 'x.pth'}").info
