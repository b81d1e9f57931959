"""Published datasets, in the layouts they unpack to, brought into ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rasr.dataset import ADAPTERS, adapt_dataset
from rasr.errors import DatasetError, OutputError, UsageError
from rasr.images import Picture, write_picture

_PNG: bytes | None = None


def _picture(path: Path) -> None:
    global _PNG  # noqa: PLW0603 - one picture is enough for thousands of files
    path.parent.mkdir(parents=True, exist_ok=True)
    if _PNG is None:
        write_picture(Picture(np.full((8, 8, 3), 0.5, np.float32)), path)
        _PNG = path.read_bytes()
    path.write_bytes(_PNG)


def test_cufed5_complete_and_with_a_gap(tmp_path: Path) -> None:
    for scene in range(126):
        for view in range(6):
            _picture(tmp_path / f"CUFED5/{scene:03d}_{view}.png")
    (tmp_path / "CUFED5/notes.txt").write_text("x")
    report = adapt_dataset("cufed5", tmp_path / "CUFED5", tmp_path / "out")
    assert report.problems == []
    assert report.files == 756
    assert (tmp_path / "out/125_5.png").exists()
    (tmp_path / "CUFED5/007_3.png").unlink()
    (tmp_path / "CUFED5/008_0.png").write_bytes(b"cut off")
    gap = adapt_dataset("cufed5", tmp_path / "CUFED5", tmp_path / "gap")
    assert any("scene 007: 007_3 missing" in problem for problem in gap.problems)
    assert any("008_0.png" in problem for problem in gap.problems)
    assert any("754 pictures; the complete cufed5 has 756" in problem for problem in gap.problems)


def test_wr_sr_pairs(tmp_path: Path) -> None:
    for pair in range(1, 81):
        _picture(tmp_path / f"WR-SR/input/{pair:03d}.png")
        _picture(tmp_path / f"WR-SR/ref/{pair:03d}_ref.png")
    assert adapt_dataset("wr-sr", tmp_path / "WR-SR", tmp_path / "out").problems == []
    assert (tmp_path / "out/ref/080_ref.png").exists()
    (tmp_path / "WR-SR/ref/033_ref.png").unlink()
    gap = adapt_dataset("wr-sr", tmp_path / "WR-SR", tmp_path / "gap")
    assert any("033 has no partner 033_ref" in problem for problem in gap.problems)


def test_div2k_takes_hr_only(tmp_path: Path) -> None:
    for number in range(1, 901):
        folder = "DIV2K_train_HR" if number <= 800 else "DIV2K_valid_HR"
        _picture(tmp_path / f"DIV2K/{folder}/{number:04d}.png")
    _picture(tmp_path / "DIV2K/DIV2K_train_LR_bicubic/X4/0001x4.png")
    report = adapt_dataset("div2k", tmp_path / "DIV2K", tmp_path / "out")
    assert report.problems == []
    assert len(list((tmp_path / "out/train").iterdir())) == 800
    assert len(list((tmp_path / "out/test").iterdir())) == 100
    assert json.loads((tmp_path / "out/adapted.json").read_text()) == {
        "dataset": "div2k",
        "pictures": {"train": 800, "test": 100},
    }


def test_lsdir_shards_are_joined_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    _picture(tmp_path / "LSDIR/0001000/0000001.png")
    _picture(tmp_path / "LSDIR/0001000/0000002.png")
    _picture(tmp_path / "LSDIR/val1/HR/val/0000001.png")
    _picture(tmp_path / "LSDIR/val1/X4/val/0000001x4.png")
    _picture(tmp_path / "LSDIR/X2/0000001.png")
    report = adapt_dataset("lsdir", tmp_path / "LSDIR", tmp_path / "out")
    assert (tmp_path / "out/train/0000/0000002.png").exists()
    assert (tmp_path / "out/val/0000/0000001.png").exists()
    assert report.files == 3
    assert report.problems == ["train has 2 pictures; the complete lsdir has 84991."]


def test_the_same_picture_twice_is_named(tmp_path: Path) -> None:
    _picture(tmp_path / "x/a/001.png")
    _picture(tmp_path / "x/b/001.png")
    report = adapt_dataset("wr-sr", tmp_path / "x", tmp_path / "out")
    assert any("already gives input/001.png" in problem for problem in report.problems)


def test_wrong_name_wrong_folder_and_a_full_one(tmp_path: Path) -> None:
    _picture(tmp_path / "x/holiday.png")
    with pytest.raises(UsageError, match="lsdir, div2k, cufed5, wr-sr"):
        adapt_dataset("imagenet", tmp_path / "x", tmp_path / "out")
    with pytest.raises(DatasetError, match="holds no picture of cufed5"):
        adapt_dataset("cufed5", tmp_path / "x", tmp_path / "out")
    with pytest.raises(OutputError, match="not an empty folder"):
        adapt_dataset("wr-sr", tmp_path / "x", tmp_path / "x")


def test_every_adapter_says_how_to_get_the_data() -> None:
    for adapter in ADAPTERS.values():
        assert "https://" in adapter.instructions
        assert f"rasr dataset adapt {adapter.name} " in adapter.instructions


def test_the_evaluation_reads_what_the_adapters_make(tmp_path: Path) -> None:
    from rasr.evaluation.benchmark import load_benchmark

    for scene in range(2):
        for view in range(6):
            _picture(tmp_path / f"CUFED5/{scene:03d}_{view}.png")
    _picture(tmp_path / "WR-SR/input/001.png")
    _picture(tmp_path / "WR-SR/ref/001_ref.png")
    adapt_dataset("cufed5", tmp_path / "CUFED5", tmp_path / "cufed5")
    adapt_dataset("wr-sr", tmp_path / "WR-SR", tmp_path / "wr-sr")
    assert [len(sample.paired) for sample in load_benchmark(tmp_path / "cufed5").samples] == [5, 5]
    assert [len(sample.paired) for sample in load_benchmark(tmp_path / "wr-sr").samples] == [1]
