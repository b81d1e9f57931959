"""``rasr train`` through the real command line: both stages, and the weights in a generator."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from rasr.generator import GenerationSettings, ReferencePicture
from rasr.generator.diffusion import DiffusionGenerator

Run = Callable[..., subprocess.CompletedProcess[str]]

MODEL = Path(__file__).parents[1] / "small.toml"
CONFIG = f"""
name = "small-STAGE"
stage = "STAGE"
[model]
preset = "{MODEL}"
[data]
crop = 64
workers = 0
pool = 4
pool_side = 96
[loss]
perceptual = 0
[optimizer]
lr = 0.01
warmup = 0
ema = 0
[loop]
steps = 2
batch = 1
log_every = 1
"""
MIX = "[[references.phases]]\nmix = { warped = 1.0 }\n"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, picture in enumerate((data.astronaut(), data.coffee(), data.chelsea())):
        Image.fromarray(picture[50:210, 60:220]).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The backbone stage of a small model, from fresh weights; the reference stage lies beside it."""
    for stage, more in (("backbone", ""), ("reference", MIX)):
        (tmp_path / f"{stage}.toml").write_text(CONFIG.replace("STAGE", stage) + more)
    return tmp_path / "backbone.toml"


def test_from_photos_to_an_adapter_that_a_generator_uses(
    run_rasr: Run, photos: Path, config: Path, tmp_path: Path
) -> None:
    first = run_rasr("train", config, "--photos", photos, "--out", "one")
    assert first.returncode == 0, first.stderr
    backbone = tmp_path / "one" / "small-backbone.safetensors"
    second = run_rasr(
        "train", config.with_name("reference.toml"), "--photos", photos, "--out", "two", "--json",
        "--set", "loop.steps=3", "--set", f'model.weights.backbone="{backbone}"',
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    rows = [json.loads(line) for line in second.stdout.splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert "effnet-lite1" not in second.stderr, "no feature network is loaded for a weight of 0"

    lq = np.float32(data.astronaut()[100:164, 100:164] / 255)
    reference = ReferencePicture(np.float32(data.astronaut()[110:174, 110:174] / 255), 0.9)

    def restored(**weights: object) -> np.ndarray:
        generator = DiffusionGenerator(MODEL, device="cpu", weights=backbone, **weights)
        return generator.generate(lq[None], None, generator.prepare(lq, [reference], GenerationSettings()))

    guided = restored(adapter=tmp_path / "two" / "small-reference.safetensors")
    assert not np.array_equal(guided, restored(adapter="none"))


def test_mistakes_are_usage_errors(run_rasr: Run, photos: Path, tmp_path: Path) -> None:
    done = run_rasr("train", "sd21-rasrnet", "--photos", photos, "--set", "loop.stepz=2")
    assert done.returncode == 2
    assert "unknown key 'loop.stepz'. Did you mean 'steps'?" in done.stderr
    done = run_rasr("train", "sd21-rasrnet")
    assert done.returncode == 2
    assert "--photos FOLDER" in done.stderr
    done = run_rasr("train", "nonsense")
    assert done.returncode == 2
    assert "sd21-rasrnet" in done.stderr
    assert not (tmp_path / "trained").exists()


def test_mistakes_are_reported_before_torch_is_loaded(
    run_rasr: Run, photos: Path, config: Path, tmp_path: Path
) -> None:
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
        done = run_rasr("train", config, *options, PYTHONPROFILEIMPORTTIME="1")
        assert done.returncode in {1, 2}, done.stderr[-1000:]
        assert re.search(message, done.stderr), done.stderr[-1000:]
        assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE), message
    assert not (tmp_path / "trained").exists()
