"""`rasr dataset` through the real command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

Run = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
name = "samples"
[splits]
train = 4
test = 2
reference = 6
by_photographer = true
related_similarity = 0.97
[filters]
min_short_side = 64
max_blur = 0.9
max_blockiness = 3.0
duplicate_similarity = 0.99
[lq]
crop = 64
[[source]]
kind = "folder"
path = "photos"
credits = "credits.csv"
"""


@pytest.fixture
def museum(tmp_path: Path) -> Path:
    """A folder of photos with a table of credits: crops of skimage's samples, in two categories."""
    rows = ["photo,author,licence"]
    for category, names in (("pets", ["chelsea", "astronaut"]), ("things", ["coffee", "rocket"])):
        (tmp_path / "photos" / category).mkdir(parents=True)
        for name in names:
            pixels = getattr(data, name)()
            for index in range(8):
                top, left = 40 * (index // 4), 60 * (index % 4)
                crop = Image.fromarray(np.ascontiguousarray(pixels[top : top + 200, left : left + 200]))
                crop = crop.rotate(90 * (index % 4))
                crop.save(tmp_path / "photos" / category / f"{name}{index}.png")
                rows.append(f"{name}{index},Photographer {name} {index // 2},CC0")
    (tmp_path / "credits.csv").write_text("\n".join(rows), "utf-8")
    (tmp_path / "museum.toml").write_text(CONFIG, "utf-8")
    return tmp_path


def test_build_check_card_and_plant_leaks(museum: Path, run_rasr: Run) -> None:
    built = run_rasr("dataset", "build", "museum.toml", "-o", "out", "--json", cwd=museum)
    assert built.returncode == 0, built.stderr
    report = json.loads(built.stdout)
    assert report["photos"] == 24
    assert [category["splits"] for category in report["categories"]] == [{"train": 4, "test": 2, "reference": 6}] * 2
    checked = run_rasr("dataset", "check", "out", cwd=museum)
    assert (checked.returncode, checked.stdout) == (0, "")
    card = run_rasr("dataset", "card", "out", cwd=museum)
    assert card.stdout.strip().endswith("out/README.md")

    lines = (museum / "out/manifest.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    train = next(record for record in records if record["split"] == "train")
    reference = next(record for record in records if record["split"] == "reference")
    # A near-duplicate across splits: the training photo, softened and saved as the reference.
    with Image.open(museum / "out" / train["file"]) as image:
        image.filter(ImageFilter.GaussianBlur(1)).save(museum / "out" / reference["file"])
    # And the same author on both sides of another pair.
    other = next(record for record in records if record["split"] == "test")
    another = [record for record in records if record["split"] == "train"][-1]
    other["author"] = other["author_id"] = another["author"]
    (museum / "out/manifest.jsonl").write_text("\n".join(json.dumps(record) for record in records), "utf-8")
    checked = run_rasr("dataset", "check", "out", "--json", cwd=museum)
    assert checked.returncode == 1
    leaks = [one["message"] for one in json.loads(checked.stdout)["findings"] if one["kind"] == "leak"]
    assert any("same photo" in leak and train["file"] in leak and reference["file"] in leak for leak in leaks)
    assert any("several splits" in leak and other["file"] in leak for leak in leaks)


def test_what_is_missing_exits_1_and_is_named(museum: Path, run_rasr: Run) -> None:
    (museum / "museum.toml").write_text(
        CONFIG.replace("train = 4", "train = 50").replace("crop = 64", "enabled = false"), "utf-8"
    )
    built = run_rasr("dataset", "build", "museum.toml", "-o", "out", cwd=museum)
    assert built.returncode == 1
    assert "pets: " in built.stderr
    assert "photos are missing" in built.stderr
    assert (museum / "out/manifest.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["build", "nothing.toml", "-o", "out"], 2, "no config file nothing.toml"),
        (["build", "rasr-flickr30"], 2, "--out"),
        (["build", "rasr-flickr30", "-o", "out"], 1, "www.flickr.com is not asked"),
        (["check", "gone"], 2, "gone"),
        (["check", "."], 1, "neither"),
        (["card", "."], 1, "manifest.jsonl"),
        (["review", "."], 1, "manifest.jsonl"),
        (["adapt", "imagenet"], 2, "no adapter 'imagenet'"),
        (["configs", "flickr31"], 2, "no shipped config"),
    ],
)
def test_mistakes(tmp_path: Path, run_rasr: Run, arguments: list[str], code: int, said: str) -> None:
    result = run_rasr("dataset", *arguments, FLICKR_API_KEY="", RASR_OFFLINE="1")
    assert (result.returncode, result.stdout) == (code, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_configs_and_adapters_are_listed_and_printed(run_rasr: Run) -> None:
    assert "rasr-flickr30\t" in run_rasr("dataset", "configs").stdout
    assert run_rasr("dataset", "configs", "museum").stdout.startswith("# A museum")
    assert "cufed5\t" in run_rasr("dataset", "adapt").stdout
    assert "https://" in run_rasr("dataset", "adapt", "lsdir").stdout


def test_every_help_ends_in_examples(run_rasr: Run) -> None:
    for verb in ("build", "check", "card", "review", "adapt", "configs"):
        text = run_rasr("dataset", verb, "--help").stdout
        assert re.search(r"Examples:\n(?:\s+.*rasr dataset .*\n)+", text), verb


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, rasr.dataset; print([m for m in ('torch', 'lancedb', 'scipy', 'skimage') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
