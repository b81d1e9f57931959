"""``rasr degrade`` through the real command line."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data


@pytest.fixture
def photos(tmp_path: Path) -> Any:
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    Image.fromarray(data.astronaut()[:203, :301]).save(folder / "astronaut.png")
    Image.fromarray(data.chelsea()[:150, :150]).save(folder / "cats" / "chelsea.jpg", quality=95)
    Image.fromarray(data.coffee()[:140, :160]).save(folder / "cats" / "chelsea.webp", quality=95)
    return folder


def hashes(folder: Path) -> Any:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.png")}


def test_a_folder_is_mirrored_and_its_manifest_rebuilds_it(
    run_rasr: Callable[..., subprocess.CompletedProcess[str]], photos: Path, tmp_path: Path
) -> None:
    first = run_rasr(
        "degrade", photos, "lq", "--seed", 5, "--manifest", "set.json", "--hr-out", "hr", "--json", OMP_NUM_THREADS="1"
    )
    assert first.returncode == 0, first.stderr
    rows = [json.loads(line) for line in first.stdout.splitlines()]
    assert len(rows) == 3
    assert all(row["error"] is None for row in rows)
    made = hashes(tmp_path / "lq")
    assert set(made) == {"astronaut.png", "cats/chelsea.jpg.png", "cats/chelsea.webp.png"}
    with Image.open(tmp_path / "lq" / "astronaut.png") as lq, Image.open(tmp_path / "hr" / "astronaut.png") as hr:
        assert lq.size == (75, 50)
        assert hr.size == (300, 200)
        assert np.array_equal(np.asarray(hr), data.astronaut()[:200, :300])

    again = run_rasr("degrade", photos, "again", "--from-manifest", "set.json", OMP_NUM_THREADS="2")
    assert again.returncode == 0, again.stderr
    assert hashes(tmp_path / "again") == made

    alone = run_rasr("degrade", photos / "astronaut.png", "one.png", "--seed", 5)
    assert alone.returncode == 0, alone.stderr
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "lq" / "astronaut.png").read_bytes()


def test_the_manifest_may_lie_in_a_folder_that_the_pictures_make(
    run_rasr: Callable[..., subprocess.CompletedProcess[str]], photos: Path, tmp_path: Path
) -> None:
    done = run_rasr("degrade", photos, "new/lq", "--seed", 5, "--manifest", "new/set.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "set.json").is_file()


def test_a_changed_original_is_noticed_on_rebuilding(
    run_rasr: Callable[..., subprocess.CompletedProcess[str]], photos: Path
) -> None:
    assert run_rasr("degrade", photos, "lq", "--seed", 1, "--manifest", "set.json").returncode == 0
    Image.fromarray(data.astronaut()[5:208, :301]).save(photos / "astronaut.png")
    (photos / "cats" / "chelsea.webp").unlink()
    done = run_rasr("degrade", photos, "lq2", "--from-manifest", "set.json")
    assert done.returncode == 1
    assert "astronaut.png: differs from the manifest" in done.stderr
    assert "chelsea.webp" in done.stderr
    assert "2 failed" in done.stderr


def test_bad_pictures_are_named_and_the_rest_is_done(
    run_rasr: Callable[..., subprocess.CompletedProcess[str]], photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "cats" / "chelsea.jpg").read_bytes()[:900])
    done = run_rasr("degrade", photos, "lq", "--seed", 1, "--crop", 148)
    assert done.returncode == 1
    assert "broken.jpg" in done.stderr
    assert "smaller than the 148-pixel crop" in done.stderr
    with Image.open(tmp_path / "lq" / "astronaut.png") as lq:
        assert lq.size == (37, 37)
    assert not (tmp_path / "lq" / "cats" / "chelsea.webp.png").exists()


def test_nothing_is_overwritten_unless_asked(
    run_rasr: Callable[..., subprocess.CompletedProcess[str]], photos: Path, tmp_path: Path
) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"precious")
    done = run_rasr("degrade", photos / "astronaut.png", "a.png", "--seed", 1)
    assert done.returncode == 1
    assert target.read_bytes() == b"precious"
    assert run_rasr("degrade", photos / "astronaut.png", "a.png", "--seed", 1, "--overwrite").returncode == 0
    assert target.read_bytes() != b"precious"
    original = (photos / "astronaut.png").read_bytes()
    done = run_rasr("degrade", photos / "astronaut.png", photos, "--seed", 1, "--overwrite")
    assert done.returncode == 1
    assert "this is the input itself" in done.stderr
    assert (photos / "astronaut.png").read_bytes() == original


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lq"], "Say --seed N"),
        (["lq", "--seed", 1, "--crop", 30], "--crop 30 is not a multiple of the scale 4"),
        (["lq", "--seed", 1, "--from-manifest", "bad.json"], "--from-manifest already decides"),
        (["lq", "--from-manifest", "bad.json"], "bad.json is not a degradation manifest"),
        (["lq", "--from-manifest", "escape.json"], "outside the folder"),
    ],
)
def test_contradictions_are_usage_errors(
    run_rasr: Callable[..., subprocess.CompletedProcess[str]],
    photos: Path,
    tmp_path: Path,
    arguments: list[Any],
    message: str,
) -> None:
    (tmp_path / "bad.json").write_text('{"format": "rasr-degradation-1", "seed": 1, "picturs": []}')
    from rasr.degrade import draw
    from rasr.degrade.files import Entry, Manifest

    entry = Entry(name="a.png", output="../a.png", width=1, height=1, sha256="", recipe=draw(seed=0, name="a.png"))
    (tmp_path / "escape.json").write_text(Manifest(seed=1, pictures=(entry,)).model_dump_json())
    done = run_rasr("degrade", photos, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "lq").exists()


def test_a_manifest_that_cannot_be_written_is_told_before_the_work(
    run_rasr: Callable[..., subprocess.CompletedProcess[str]], photos: Path, tmp_path: Path
) -> None:
    done = run_rasr("degrade", photos, "lq", "--seed", 1, "--manifest", "gone/set.json")
    assert done.returncode == 1
    assert "the folder gone does not exist" in done.stderr
    assert not (tmp_path / "lq").exists()


def test_a_picture_that_fails_is_named_once(
    run_rasr: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"GIF89a")
    done = run_rasr("degrade", "bad.png", "out.png", "--seed", 1)
    assert done.returncode == 1
    assert done.stderr.count("bad.png") == 1
    assert "this is a GIF" in done.stderr
