"""Every mistake on the command line is told before torch is loaded, in one line and with its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WITHOUT_TORCH = """
import contextlib, io, json, os, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise SystemExit("torch was loaded")

sys.meta_path.insert(0, Refuse())
from rasr.cli.main import main

for arguments in json.loads(sys.argv[1]):
    before, code = sorted(os.walk(".")), None
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as talk:
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = repr(error)
    sys.stdout.write(json.dumps([code, out.getvalue(), talk.getvalue(), sorted(os.walk(".")) == before]) + chr(10))
"""
"""Runs the command line many times in one process, where torch cannot be imported; one JSON line each."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photo, a folder of photos, a gallery's index in the making, and files that are none."""
    place = tmp_path_factory.mktemp("usage")
    (place / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for name in ("a.png", "exists.png", "photos/b.png", "photos/c.png"):
        Image.fromarray(pixels).save(place / name)
    (place / "page.html").write_text("mine")
    (place / "notes.txt").write_text("no picture")
    (place / "empty").mkdir()
    (place / "wrong.toml").write_text("nonsense = 1")
    return place


RESTORE = ("restore", "a.png", "-o", "out.png")
SD21 = ("--preset", "sd21")
EVALUATE = ("evaluate", "photos", "-o", "out", "--method", "rasrnet-mini")


CASES: list[tuple[tuple[str, ...], int, str]] = [
    (("restore", "missing.png", "-o", "out.png"), 1, "missing.png: no such file"),
    (("restore", "notes.txt", "-o", "out.png"), 1, "notes.txt: this is not a picture"),
    (("restore", "a.png", "-o", "exists.png"), 1, "exists.png: exists already"),
    (("restore", "a.png", "-o", "a.png", "--overwrite"), 1, "input itself"),
    (("restore", "a.png", "-o", "out.gif"), 1, "extension '.gif'"),
    (("restore", "a.png", "photos", "-o", "out.png"), 2, "named like a file"),
    (("restore", "a.png", "-o", "out/", "--name", "{nope}"), 2, "--name '{nope}' is not possible"),
    ((*RESTORE, "--report", "page.html"), 1, "page.html: exists already"),
    ((*RESTORE, "--preset", "nope"), 2, "Unknown preset 'nope'"),
    ((*RESTORE, "--preset", "bicubic", "--set", "vae=tiny"), 2, "has no option 'vae'"),
    ((*RESTORE, "--set", "nope=1"), 2, "has no option 'nope'"),
    ((*RESTORE, "--set", "dtype"), 2, "write it as KEY=VALUE"),
    ((*RESTORE, "--nope"), 2, "No such option"),
    ((*RESTORE, "-k", "0"), 2, "k must be at least 1"),
    ((*RESTORE, "--strength", "2"), 2, "between 0 and 1"),
    ((*RESTORE, "--scale", "2", "--width", "9"), 2, "Give one of scale"),
    ((*RESTORE, "--width", "0"), 2, "positive whole number"),
    ((*RESTORE, "--quality", "200"), 2, "between 1 and 100"),
    (("restore", "a.png", "-o", "out.jpg", "--quality", "lossless"), 1, "a JPEG is never lossless"),
    ((*RESTORE, "--seed", "-1"), 2, "The seed must be"),
    ((*RESTORE, "--reference", "none", "--reference", "a.png"), 2, "cannot be combined"),
    ((*RESTORE, "--reference", "missing.png"), 1, "missing.png: no such file"),
    ((*RESTORE, "-g", "nowhere"), 1, "nowhere does not exist"),
    ((*RESTORE, "-g", "a.png"), 1, "a.png is a file"),
    ((*RESTORE, *SD21, "--device", "tpu"), 2, "Unknown device 'tpu'"),
    ((*RESTORE, *SD21, "--device", "cuda"), 2, "sees no CUDA or ROCm GPU"),
    ((*RESTORE, *SD21, "--device", "mps"), 2, "no Apple GPU"),
    ((*RESTORE, *SD21, "--dtype", "fp8"), 2, "Unknown number format 'fp8'"),
    ((*RESTORE, *SD21, "--device", "cpu", "--set", "dtype=fp16"), 2, "fp16 does not run on the CPU"),
    ((*RESTORE, "--vae", "tiny"), 2, "no option 'vae'"),
    ((*RESTORE, "--preset", "sd21", "--vae", "nope"), 2, "Invalid value for '--vae'"),
    ((*RESTORE, *SD21, "--device", "cuda:9"), 2, "sees no CUDA or ROCm GPU"),
    ((*RESTORE, "--prompt", "a zebra"), 2, "reads no text"),
    ((*RESTORE, "--preset", "bicubic", "--set", "prompt=a zebra"), 2, "bicubic reads no text"),
    ((*RESTORE, "--tile", "3"), 2, "--tile 3 is too small"),
    ((*RESTORE, *SD21, "--set", "cache_bytes=-1"), 2, "cache_bytes must be a whole number from 0 on, not -1"),
    ((*RESTORE, "--preset", "sd21-osediff"), 1, "osediff (OSEDiff's one-step LoRA"),
    (("restore", "photos", "a.png", "-o", "photos", "--name", "b{ext}"), 2, "photos/b.png"),
    ((*RESTORE, *SD21, "--adapter", "missing.safetensors"), 1, "no weights file missing.safetensors"),
    ((*RESTORE, *SD21, "--cleaner", "nope"), 2, "Unknown preset 'nope'"),
    (("search", "photos", "missing.png"), 1, "missing.png: no such file"),
    (("search", "nowhere", "a.png"), 1, "nowhere does not exist"),
    (("search", "photos", "a.png", "-k", "0"), 2, "Invalid value for '-k'"),
    (("search", "photos", "a.png", "--device", "cuda"), 2, "sees no CUDA or ROCm GPU"),
    (("search", "photos", "a.png", "--encoder", "nope"), 2, "Unknown encoder 'nope'"),
    (("gallery", "add", "new", "missing"), 1, "missing: no such file"),
    (("gallery", "add", "new", "photos", "--device", "tpu"), 2, "Unknown device 'tpu'"),
    (("gallery", "add", "new", "photos", "--encoder", "nope"), 2, "Unknown encoder 'nope'"),
    (("gallery", "add", "new", "empty"), 1, "no pictures found"),
    (("gallery", "info", "nowhere"), 1, "nowhere"),
    ((*EVALUATE, "--method", "nope"), 2, "Unknown method 'nope'"),
    ((*EVALUATE, "--metrics", "nope"), 2, "nope"),
    ((*EVALUATE, "--references", "nope"), 2, "nope"),
    ((*EVALUATE, "--device", "cuda"), 2, "sees no CUDA or ROCm GPU"),
    ((*EVALUATE, "--degradation", "nope"), 2, "nope"),
    ((*EVALUATE, "--scale", "99"), 2, "from 1 to 16, not 99"),
    ((*EVALUATE, "--checkout", "nope"), 2, "NAME=DIR"),
    (("evaluate", "nowhere", "-o", "out", "--method", "bicubic"), 2, "nowhere"),
    ((*EVALUATE, "-g", "nowhere"), 1, "nowhere does not exist"),
    (("degrade", "a.png", "lq.png"), 2, "Say --seed N"),
    (("degrade", "missing.png", "lq.png", "--seed", "1"), 2, "does not exist"),
    (("train", "nope"), 2, "nope"),
    (("train", "wrong.toml"), 2, "wrong.toml: name"),
    (("train", "sd21-rasrnet", "--photos", "photos", "--set", "loop.nope=1"), 2, "loop.nope"),
    (("train", "sd21-rasrnet", "--photos", "nowhere"), 2, "nowhere"),
    (("methods", "--profiles", "nowhere"), 2, "nowhere"),
    (("models", "path", "nope"), 2, "Unknown model 'nope'"),
    (("dataset", "check", "nowhere"), 2, "nowhere"),
    (("demo", "--preset", "nope"), 2, "Unknown preset 'nope'"),
    (("demo", "--out", "notes.txt"), 2, "notes.txt"),
    (("nope",), 2, "No such command 'nope'"),
]


@pytest.fixture(scope="module")
def told(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], list[Any]]:
    """Arguments → exit code or exception, stdout, stderr, and whether the folder is as it was."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps([arguments for arguments, _, _ in CASES])],
        cwd=place,
        env={**os.environ, "RASR_HOME": str(tmp_path_factory.mktemp("home"))},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(CASES), done.stderr
    return dict(zip([arguments for arguments, _, _ in CASES], lines, strict=True))


@pytest.mark.parametrize(("arguments", "code", "words"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_a_mistake_is_told_before_torch_is_loaded(
    told: dict[tuple[str, ...], list[Any]], arguments: tuple[str, ...], code: int, words: str
) -> None:
    ended, out, talk, untouched = told[arguments]
    assert ended == code, talk
    assert words in talk
    assert out == ""
    assert untouched, "nothing is left behind"
