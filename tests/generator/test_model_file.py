"""Model files of users: what is read from them, what is refused, and what is said."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rasr.errors import UsageError, WeightsCorrupt
from rasr.generator import GenerationSettings
from rasr.generator.model_file import ModelFile
from tests.spandrel_standin import Descriptor, install, write_model


@pytest.fixture(autouse=True)
def _spandrel(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors"])
def test_scale_and_network_are_read_from_the_file(tmp_path: Path, suffix: str) -> None:
    generator = ModelFile(write_model(tmp_path / f"2x{suffix}"), device="cpu")
    info = generator.info
    assert (info.name, info.scale, info.grid, info.uses_reference) == ("Stand-in SR", 2, "input", False)
    assert info.weights == str(tmp_path / f"2x{suffix}")
    assert (info.tile.multiple, info.remark) == (4, "")
    tiles = np.random.default_rng(0).random((2, 8, 12, 3), np.float32)
    enlarged = generator.generate(tiles, None, generator.prepare(tiles[0], [], GenerationSettings()))
    np.testing.assert_array_equal(enlarged, tiles.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"modelspec.license": "CC-BY-4.0"}, "CC-BY-4.0"),
        ({"license": " MIT "}, "MIT"),
        ({"license": ""}, "unknown: the file does not say"),
        (None, "unknown: the file does not say"),
    ],
)
def test_the_licence_is_the_files_or_unknown(tmp_path: Path, metadata: dict[str, str] | None, licence: str) -> None:
    assert ModelFile(write_model(tmp_path / "a.safetensors", metadata=metadata)).info.licence == licence
    assert ModelFile(write_model(tmp_path / "a.pth")).info.licence == "unknown: the file does not say"


@pytest.mark.parametrize(("purpose", "words"), [("FaceSR", "made for faces"), ("Restoration", "no finer detail")])
def test_models_for_faces_and_noise_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purpose: str, words: str
) -> None:
    monkeypatch.setattr(Descriptor, "purpose", purpose)
    remark = ModelFile(write_model(tmp_path / "mine.pth")).info.remark
    assert words in remark
    assert remark.startswith("mine.pth (Stand-in SR)")


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_bomb_is_refused_before_spandrel_sees_it(tmp_path: Path, plain: bool) -> None:
    file, content = tmp_path / "bomb.pth", {"known.weight": _Bomb(tmp_path / "exploded")}
    if plain:
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    with pytest.raises(WeightsCorrupt, match=r"bomb\.pth"):
        _ = ModelFile(file).info
    assert not (tmp_path / "exploded").exists()


def test_files_of_other_kinds_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsCorrupt, match=r"other\.pth is no model that spandrel can load: unknown architecture$"):
        _ = ModelFile(write_model(tmp_path / "other.pth", known=False)).info
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(WeightsCorrupt, match=r"a\.onnx is no model file"):
        _ = ModelFile(tmp_path / "a.onnx").info
    (tmp_path / "cut.pth").write_bytes(write_model(tmp_path / "whole.pth").read_bytes()[:200])
    with pytest.raises(WeightsCorrupt, match=r"cut\.pth"):
        _ = ModelFile(tmp_path / "cut.pth").info
    with pytest.raises(UsageError, match="no model file"):
        ModelFile(tmp_path / "missing.pth")
    monkeypatch.setattr(Descriptor, "input_channels", 1)
    with pytest.raises(WeightsCorrupt, match="one RGB picture"):
        _ = ModelFile(tmp_path / "whole.pth").info


def test_a_network_that_gives_no_numbers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Descriptor, "__call__", lambda _, x: x * float("nan"))
    generator = ModelFile(write_model(tmp_path / "a.pth"))
    with pytest.raises(WeightsCorrupt, match=r"a\.pth gives invalid numbers"):
        generator.generate(np.zeros((1, 8, 8, 3), np.float32), None, generator.prepare(*[None] * 3))  # type: ignore[arg-type]
