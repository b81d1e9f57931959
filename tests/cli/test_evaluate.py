"""``rasr evaluate`` and ``rasr methods`` through the real command line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = Image.open(Path(skimage.data.__file__).with_name("chelsea.png")).convert("RGB")
    (tmp_path / "test").mkdir()
    for number in range(2):
        source.crop((100 * number, 0, 100 * number + 128, 128)).save(tmp_path / "test" / f"p{number}.png")
    return tmp_path / "test"


def test_a_table_from_one_command_and_its_exit_codes(run_rasr: Run, folder: Path, tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.mkdir()
    Image.new("RGB", (128, 128), "grey").save(done / "p0.png")
    common = ("evaluate", folder, "--references", "none", "--metrics", "psnr,lpips", "-o", tmp_path / "out")
    good = run_rasr(*common, "--method", "bicubic", "--json")
    assert good.returncode == 0, good.stderr
    results = json.loads(good.stdout)
    assert [row["method"] for row in results["rows"]] == ["bicubic"]
    assert results["rows"][0]["scores"]["PSNR"] > 15
    assert results["unavailable"][0]["name"] == "LPIPS"
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == results["rows"]
    partly = run_rasr(*common, "--method", "bicubic", "--method", f"half=outputs:{done}")
    assert partly.returncode == 1
    assert "half (incomplete: 1 of 2)" in partly.stdout
    assert "half, picture 'p1': no output picture was written" in partly.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    wrong = run_rasr(*common, "--method", "nonesuch")
    assert wrong.returncode == 2
    assert "Unknown method 'nonesuch'" in wrong.stderr
    assert "Traceback" not in good.stderr + partly.stderr + wrong.stderr


def test_methods_and_metrics_are_listed(run_rasr: Run) -> None:
    listed = run_rasr("methods", "--json")
    assert listed.returncode == 0, listed.stderr
    methods = {method["name"]: method for method in json.loads(listed.stdout)}
    assert methods["bicubic"]["state"] == "ready"
    assert methods["seesr"]["state"] == "needs checkout"
    metrics = run_rasr("methods", "--metrics")
    assert "NIQE" in metrics.stdout
    assert "needs weights" in metrics.stdout
