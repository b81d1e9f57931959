"""The table of weights against what is installed, and entries of one's own."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rasr.errors import UsageError, WeightsCorrupt, WeightsMissing
from rasr.files import sha256_file
from rasr.weights import (
    CATALOGUE,
    ModelWeights,
    entry,
    find,
    read_safetensors,
    read_weights,
    register,
    require,
    serving,
    verify,
)
from rasr.weights.locate import package_folder

PACKAGED = [weights for weights in CATALOGUE.values() if weights.package]
READABLE = [weights for weights in PACKAGED if weights.files[0].endswith((".safetensors", ".pth"))]


def by_name(weights: ModelWeights) -> str:
    return weights.name


@pytest.mark.parametrize("weights", PACKAGED, ids=by_name)
def test_packaged_files_are_the_tables(weights: ModelWeights) -> None:
    folder = package_folder(weights)
    assert folder is not None
    assert weights.sha256.keys() == set(weights.files)
    for name, stated in weights.sha256.items():
        assert len(stated) == 64
        assert sha256_file(folder / name) == stated
    size = sum((folder / name).stat().st_size for name in weights.files)
    assert weights.megabytes - 1 < size / 1e6 <= weights.megabytes, "megabytes, rounded up"


def test_every_packaged_weights_file_is_in_the_table() -> None:
    root = Path(str(importlib.util.find_spec("rasr").origin)).parent  # type: ignore[union-attr]
    shipped = {path for path in root.rglob("*") if path.suffix in {".safetensors", ".pth", ".bin", ".pkl", ".npz"}}
    folders = ((package_folder(weights), weights.files) for weights in PACKAGED)
    assert shipped == {folder / name for folder, names in folders for name in names if folder} & shipped


@pytest.mark.parametrize("weights", READABLE, ids=by_name)
def test_a_flipped_bit_of_a_packaged_file_is_found(
    weights: ModelWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(require(weights.name), tmp_path)
    monkeypatch.setattr("rasr.weights.locate.package_folder", lambda asked: tmp_path if asked == weights else None)
    path = require(weights.name)
    assert path.parent == tmp_path
    assert read_weights(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsCorrupt, match=r"SHA-256 differs\. (Install rasr again|Reinstall it: pip install)"):
        read_weights(path)
    copy = Path(shutil.copy(path, tmp_path / "mine.safetensors"))
    verify(copy)  # a file of one's own is not the table's business
    path.unlink()
    with pytest.raises((WeightsMissing, Exception), match=r"pip install|Install rasr again"):
        require(weights.name)


def test_a_file_that_must_be_an_entrys_is_held_to_its_hash_wherever_it_lies(tmp_path: Path) -> None:
    for name in entry("realesrgan").files:
        copy = Path(shutil.copy(require("realesrgan") / name, tmp_path))
        verify(copy, "realesrgan")
        copy.write_bytes(copy.read_bytes()[:-1])
        with pytest.raises(WeightsCorrupt, match="SHA-256 differs"):
            verify(copy, "realesrgan")


def test_every_entry_says_whose_it_is_and_how_to_get_it() -> None:
    assert len(CATALOGUE) >= 21
    for name, weights in CATALOGUE.items():
        assert weights.name == name
        assert all((weights.purpose, weights.licence, weights.terms, weights.files, weights.origin))
        assert weights.megabytes > 0
        assert weights.how_to_get.startswith(("Get it", "Install"))
        sources = [bool(weights.package), bool(weights.repositories), bool(weights.url)]
        assert sum(sources) <= 1, "one source"
        assert any(sources) or weights.advice
        assert not weights.revision or len(weights.revision) == 40
        assert set(weights.sha256) <= set(weights.files)
        assert all(file in weights.url for file in weights.files if weights.url)


def test_looking_up_loads_no_framework() -> None:
    import subprocess

    code = (
        "import sys; from rasr.weights import CATALOGUE, find; [find(name) for name in CATALOGUE]; "
        "heavy = {'torch', 'numpy', 'safetensors', 'transformers', 'httpx', 'httpx2'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_a_preset_needs_is_asked_by_its_name() -> None:
    assert [weights.name for weights in serving("sd21-osediff")] == ["sd21", "osediff"]
    assert [weights.name for weights in serving("LPIPS")] == ["alexnet", "lpips-alex-linear"]
    assert serving("bicubic") == []
    with pytest.raises(UsageError, match=r"Unknown model 'sd3'\. Choose one of: realesrgan, mini, .*sd21"):
        find("sd3")


def test_an_encoder_of_ones_own_declares_its_weights_in_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"mean": torch.ones(3)}, tmp_path / "head.safetensors")
    (tmp_path / "my_encoder.py").write_text(
        "from rasr.weights import ModelWeights, register\n"
        "WEIGHTS = register(ModelWeights(name='my-head', purpose='my encoder', megabytes=1, licence='MIT',\n"
        "    terms='ours', package='my_encoder', files=('head.safetensors',), serves=('my-encoder',),\n"
        f"    sha256={{'head.safetensors': '{sha256_file(tmp_path / 'head.safetensors')}'}}))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(CATALOGUE, "gone", CATALOGUE["mini"])  # restores the table afterwards
    monkeypatch.delitem(CATALOGUE, "gone")
    module = importlib.import_module("my_encoder")
    try:
        assert serving("my-encoder") == [module.WEIGHTS]
        tensors, _ = read_safetensors(require("my-head"))
        assert tensors["mean"].tolist() == [1, 1, 1]
        (tmp_path / "head.safetensors").write_bytes((tmp_path / "head.safetensors").read_bytes()[:-1] + b"!")
        with pytest.raises(WeightsCorrupt, match=r"head\.safetensors"):
            read_safetensors(require("my-head"))
        assert register(module.WEIGHTS) is module.WEIGHTS
        with pytest.raises(ValueError, match="my-head"):
            register(ModelWeights(name="my-head", purpose="", megabytes=1, licence="", terms="", files=("x",)))
    finally:
        del CATALOGUE["my-head"], sys.modules["my_encoder"]
