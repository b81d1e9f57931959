"""Checkpoints that are not what they should be: an error, and nothing executed."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from rasr.errors import OutputError, WeightsCorrupt, WeightsMissing
from rasr.generator.weights import read_checkpoint, read_safetensors, write_safetensors


class Bomb:
    """Unpickling it runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_an_ordinary_checkpoint_is_read(tmp_path: Path) -> None:
    content = {"rank_unet": 4, "names": ["a", "b"], "state_dict_unet": {"a": torch.arange(3.0)}}
    torch.save(content, tmp_path / "good.pkl")
    read = read_checkpoint(tmp_path / "good.pkl")
    assert (read["rank_unet"], read["names"]) == (4, ["a", "b"])
    assert torch.equal(read["state_dict_unet"]["a"], torch.arange(3.0))


@pytest.mark.parametrize("form", ["torch", "plain pickle", "zip of ours"])
def test_a_pickle_bomb_does_not_go_off(tmp_path: Path, form: str) -> None:
    marker, file = tmp_path / "exploded", tmp_path / "bomb.pkl"
    content = {"state_dict_unet": Bomb(marker)}
    if form == "torch":
        torch.save(content, file)
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


@pytest.mark.parametrize("part", [0, 10, 0.5, 0.99])
def test_truncated_checkpoints_are_refused(tmp_path: Path, part: float) -> None:
    file = tmp_path / "cut.pkl"
    torch.save({"a": torch.zeros(1000)}, file)
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


def test_writing_replaces_in_one_step_or_says_why_not(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "new" / "w.safetensors", {"a": torch.ones(2)}, {"k": "v"})
    write_safetensors(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(read_safetensors(path)[0]["a"], torch.zeros(2))
    assert [file.name for file in path.parent.iterdir()] == ["w.safetensors"]
    with pytest.raises(OutputError):
        write_safetensors(path / "below-a-file.safetensors", {"a": torch.ones(1)}, {})
