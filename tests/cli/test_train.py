"""``rasr train`` through the real command line, with mini itself, and its adapter in ``rasr restore``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

Run = Callable[..., subprocess.CompletedProcess[str]]

QUICK = [
    "--set", "data.crop=64", "--set", "data.workers=0", "--set", "loop.batch=1", "--set", "loop.log_every=1",
    "--set", "optimizer.lr=0.01", "--set", "optimizer.warmup=0", "--set", "optimizer.ema=0",
    "--set", "loss.perceptual=0", "--set", "loss.gram=0", "--set", "loop.precision=fp32",
    "--set", "model.cleaner=none", "--set", "data.pool=4", "--set", "data.pool_side=96", "--set", "references.side=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate((data.astronaut(), data.coffee(), data.chelsea())):
        Image.fromarray(picture[50:210, 60:220]).save(folder / f"{index}.png")
    return folder


def test_from_photos_to_an_adapter_that_restore_uses(run_rasr: Run, photos: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = run_rasr(
        "train", "mini-backbone-cpu", "--photos", photos, "--out", "one", "--set", "loop.steps=2", *QUICK,
        RASR_HOME=str(home),
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    second = run_rasr(
        "train", "mini-reference-cpu", "--photos", photos, "--out", "two", "--json", "--set", "loop.steps=3",
        "--set", 'references.phases=[{mix = {warped = 1.0}}]',
        "--set", f'model.weights.backbone="{tmp_path}/one/mini-backbone.safetensors"',
        *QUICK, RASR_HOME=str(home),
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    rows = [json.loads(line) for line in second.stdout.splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert "effnet" not in second.stderr, "no feature network is loaded for a weight of 0"

    (home / "models").mkdir(exist_ok=True)
    shutil.copy(tmp_path / "one" / "mini-backbone.safetensors", home / "models" / "mini.safetensors")
    Image.fromarray(data.astronaut()[100:132, 100:132]).save(tmp_path / "lq.png")
    restore = ["restore", tmp_path / "lq.png", "--preset", "mini", "--scale", "2", "--colour", "none"]
    # The same scene, twice as large and brighter: of photos of other scenes the branch takes nothing.
    same = Image.fromarray((data.astronaut()[100:132, 100:132] * 0.8 + 40).astype(np.uint8))
    same.resize((64, 64), Image.Resampling.LANCZOS).save(tmp_path / "same.png")
    plain = run_rasr(*restore, "-o", tmp_path / "plain.png", RASR_HOME=str(home))
    assert plain.returncode == 0, plain.stderr
    adapter = tmp_path / "two" / "mini-reference.safetensors"
    guided = run_rasr(
        *restore, "--candidates", "0", "--adapter", adapter,
        "--reference", tmp_path / "same.png", "-o", tmp_path / "guided.png",
        RASR_HOME=str(home),
    )  # fmt: skip
    assert guided.returncode == 0, guided.stderr
    with Image.open(tmp_path / "plain.png") as a, Image.open(tmp_path / "guided.png") as b:
        assert a.size == b.size == (64, 64)
        assert not np.array_equal(np.asarray(a), np.asarray(b))


def test_mistakes_are_usage_errors(run_rasr: Run, photos: Path, tmp_path: Path) -> None:
    done = run_rasr("train", "mini-backbone-cpu", "--photos", photos, "--set", "loop.stepz=2")
    assert done.returncode == 2
    assert "unknown key 'loop.stepz'. Did you mean 'steps'?" in done.stderr
    done = run_rasr("train", "mini-backbone-cpu")
    assert done.returncode == 2
    assert "--photos FOLDER" in done.stderr
    done = run_rasr("train", "nonsense")
    assert done.returncode == 2
    assert "mini-reference-cpu" in done.stderr
    assert not (tmp_path / "trained").exists()


def test_mistakes_are_reported_before_torch_is_loaded(run_rasr: Run, photos: Path, tmp_path: Path) -> None:
    held = tmp_path / "held" / "checkpoints"
    held.mkdir(parents=True)
    (held / "step-00000250.safetensors").touch()
    missing = tmp_path / "missing.safetensors"
    for options, message in (
        (["--photos", tmp_path / "nowhere"], "data.photos: .*nowhere is not a folder"),
        (["--photos", photos, "--validate-on", tmp_path / "none"], "validation.photos: .*none is not a folder"),
        (["--photos", photos, "--out", "held"], "held holds a run of 250 steps. Add --resume"),
        (["--photos", photos, "--set", "loop.accumulation=3"], "Use a multiple of 3"),
        (["--photos", photos, "--set", "model.reference.blokcs=3"], "model.reference: unknown key 'blokcs'"),
        (["--photos", photos, "--set", "model.preset=minni"], "minni"),
        (["--photos", photos, "--set", f"model.weights.backbone={missing}"], "There is no weights file .*missing"),
    ):
        done = run_rasr("train", "mini-backbone-cpu", *options, PYTHONPROFILEIMPORTTIME="1")
        assert done.returncode in {1, 2}, done.stderr[-1000:]
        assert re.search(message, done.stderr), done.stderr[-1000:]
        assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE), message
    assert not (tmp_path / "trained").exists()
