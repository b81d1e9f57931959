"""Checkpoints that are not what they should be: an error, and nothing executed."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rasr.errors import OutputError, WeightsCorrupt, WeightsMissing
from rasr.weights import (
    fill_model,
    load_pretrained,
    load_strictly,
    read_checkpoint,
    read_safetensors,
    read_weights,
    write_safetensors,
)


class Bomb:
    """Unpickling it runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_ordinary_checkpoint_is_read(tmp_path: Path, legacy: bool) -> None:
    content = {"rank_unet": 4, "names": ["a", "b"], "state_dict_unet": {"a": torch.arange(3.0)}}
    torch.save(content, tmp_path / "good.pkl", _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(tmp_path / "good.pkl")
    assert (read["rank_unet"], read["names"]) == (4, ["a", "b"])
    assert torch.equal(read["state_dict_unet"]["a"], torch.arange(3.0))


@pytest.mark.parametrize("form", ["torch", "torch before 1.6", "plain pickle", "zip of ours"])
def test_a_pickle_bomb_does_not_go_off(tmp_path: Path, form: str) -> None:
    marker, file = tmp_path / "exploded", tmp_path / "bomb.pkl"
    content = {"state_dict_unet": Bomb(marker)}
    if form == "torch":
        torch.save(content, file)
    elif form == "torch before 1.6":
        torch.save(content, file, _use_new_zipfile_serialization=False)
    elif form == "plain pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content))
            archive.writestr("archive/version", "3\n")
    with pytest.raises(WeightsCorrupt, match=r"bomb\.pkl"):
        read_checkpoint(file)
    assert not marker.exists()


def test_a_file_that_would_unfold_is_refused_before_it_does(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pkl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 2**27)
    assert file.stat().st_size < 2**18
    with pytest.raises(WeightsCorrupt, match="not an ordinary checkpoint"):
        read_checkpoint(file)


def test_an_oversized_program_is_refused_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasr.weights.read._MAX_PROGRAM", 10_000)
    content = {f"name {number}": number for number in range(2000)}
    for legacy in (False, True):
        torch.save(content, tmp_path / "large.pkl", _use_new_zipfile_serialization=not legacy)
        with monkeypatch.context() as patch:
            patch.setattr("torch.load", lambda *_, **__: pytest.fail("it was loaded"))
            with pytest.raises(WeightsCorrupt, match="oversized pickle"):
                read_checkpoint(tmp_path / "large.pkl")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("part", [0, 10, 0.5, 0.99])
def test_truncated_checkpoints_are_refused(tmp_path: Path, part: float, legacy: bool) -> None:
    file = tmp_path / "cut.pkl"
    torch.save({"a": torch.zeros(1000)}, file, _use_new_zipfile_serialization=not legacy)
    data = file.read_bytes()
    file.write_bytes(data[: int(part * len(data)) if isinstance(part, float) else part])
    with pytest.raises(WeightsCorrupt, match=r"cut\.pkl"):
        read_checkpoint(file)


def test_a_checkpoint_that_is_no_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pkl")
    with pytest.raises(WeightsCorrupt, match="holds a Tensor"):
        read_checkpoint(tmp_path / "tensor.pkl")


def test_missing_files_are_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        read_checkpoint(tmp_path / "no.pkl")
    with pytest.raises(WeightsMissing):
        read_safetensors(tmp_path / "no.safetensors")


def test_weights_are_unwrapped_and_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2)}
    torch.save({"params": tensors | {"epoch": 3}}, tmp_path / "wrapped.pth")
    assert read_weights(tmp_path / "wrapped.pth").keys() == {"a"}
    write_safetensors(tmp_path / "plain.safetensors", tensors, {})
    assert read_weights(tmp_path / "plain.safetensors")["a"].tolist() == [1, 1]


def test_arrays_are_read_and_written_without_torch(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", {"a": np.arange(3, dtype=np.float16)}, {"k": "v"})
    tensors, metadata = read_safetensors(path, "numpy")
    assert (tensors["a"].tolist(), tensors["a"].dtype, metadata) == ([0, 1, 2], np.float16, {"k": "v"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight": None}, "lacks weight"),
        ({"other": torch.zeros(1), "more": torch.zeros(1)}, "has an unknown more and 1 more"),
        ({"bias": torch.zeros(3)}, r"has a wrong shape for bias \(\(3,\), not \(2,\)\)"),
    ],
)
def test_loading_is_strict_and_leaves_the_model_as_it_was(change: dict[str, Any], said: str) -> None:
    model, file = torch.nn.Linear(4, 2), Path("w.safetensors")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    good = {"weight": torch.ones(2, 4), "bias": torch.ones(2)}
    tensors = {name: tensor for name, tensor in (good | change).items() if tensor is not None}
    with pytest.raises(WeightsCorrupt, match=rf"w\.safetensors is for another architecture: it {said}\."):
        load_strictly(model.state_dict(), tensors, file)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with torch.device("meta"):
        empty = torch.nn.Linear(4, 2)
    with pytest.raises(WeightsCorrupt, match=said):
        fill_model(empty, dict(tensors), file)
    load_strictly(model.state_dict(), good, file)
    assert torch.equal(model.weight, torch.ones(2, 4))


def test_an_empty_model_is_filled_in_its_own_number_format_and_frozen() -> None:
    with torch.device("meta"):
        model = torch.nn.Linear(4, 2)
    tensors = {"weight": torch.ones(2, 4).half(), "bias": torch.ones(2).half(), "unused": torch.ones(1)}
    filled = fill_model(model, tensors, Path("w"), ignore_extra=True)
    assert (filled.weight.dtype, filled.weight.requires_grad, filled.training) == (torch.float32, False, False)
    assert tensors.keys() == {"unused"}, "nothing is held twice"


def test_a_transformers_model_must_be_filled_completely(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import ViTConfig, ViTModel

    settings = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    ViTModel(ViTConfig(**settings), add_pooling_layer=False).save_pretrained(tmp_path)
    capfd.readouterr()
    assert load_pretrained(ViTModel, tmp_path, add_pooling_layer=False).config.hidden_size == 8
    assert capfd.readouterr() == ("", "")
    with pytest.raises(WeightsCorrupt, match=r"tensors are missing or unexpected, first pooler"):
        load_pretrained(ViTModel, tmp_path)
    tensors, metadata = read_safetensors(tmp_path / "model.safetensors")
    write_safetensors(tmp_path / "model.safetensors", tensors | {"extra": torch.zeros(1)}, metadata)
    with pytest.raises(WeightsCorrupt, match="first extra"):
        load_pretrained(ViTModel, tmp_path, add_pooling_layer=False)
    assert load_pretrained(ViTModel, tmp_path, ignore_extra=True, add_pooling_layer=False) is not None


def test_writing_replaces_in_one_step_or_says_why_not(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "new" / "w.safetensors", {"a": torch.ones(2)}, {"k": "v"})
    write_safetensors(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(read_safetensors(path)[0]["a"], torch.zeros(2))
    assert [file.name for file in path.parent.iterdir()] == ["w.safetensors"]
    with pytest.raises(OutputError):
        write_safetensors(path / "below-a-file.safetensors", {"a": torch.ones(1)}, {})
