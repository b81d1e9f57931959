"""``rasr evaluate`` and ``rasr methods`` through the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
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


def test_mistakes_are_told_before_torch_is_loaded(folder: Path, tmp_path: Path) -> None:
    """The benchmark, the method, the metric, the picture of the figure, the range of an option, the device."""
    wrong = {
        ("evaluate", str(tmp_path / "none"), "--method", "bicubic"): "There is no folder",
        ("evaluate", str(folder), "--method", "nonesuch"): "Unknown method 'nonesuch'",
        ("evaluate", str(folder), "--method", "bicubic", "--metrics", "vmaf"): "Unknown metric 'vmaf'",
        ("evaluate", str(folder), "--method", "bicubic", "--figure", "p7"): "no such picture",
        ("evaluate", str(folder), "--method", "bicubic", "--crop", "3"): "at least 16 pixels, not 3",
        ("evaluate", str(folder), "--method", "bicubic", "--references", "best"): "Unknown reference policy",
        ("evaluate", str(folder), "--method", "bicubic", "--device", "abacus"): "Unknown device 'abacus'",
        ("evaluate", str(folder), "--method", "bicubic", "-g", str(tmp_path / "no")): str(tmp_path / "no"),
    }
    code = (
        "import sys\nfrom rasr.cli.main import main\nfor line in sys.stdin.read().splitlines():\n"
        "    try:\n        main(line.split('\\t'))\n    except SystemExit as end:\n        print(end.code)\n"
        "print('torch' in sys.modules)"
    )
    lines = "\n".join("\t".join((*arguments, "-o", str(tmp_path / "out"))) for arguments in wrong)
    done = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*["2"] * (len(wrong) - 1), "1", "False"]  # a missing gallery is an error of its own
    told = done.stderr.strip().splitlines()
    for fact in wrong.values():
        assert any(fact in line for line in told), (fact, told)
    assert not (tmp_path / "out").exists()
