"""Restoring on a cluster of three nodes: one machine's files and journal, whichever node, process or command dies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.cluster.conftest import ended
from tests.gallery.standin import make_picture

if TYPE_CHECKING:
    from benchmarks.three_nodes import Nodes

pytestmark = [pytest.mark.large, pytest.mark.timeout(900)]
PICTURES = 30
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures large enough that a process is seen at work, and one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    (folder / "sub").mkdir()
    for number in range(PICTURES):
        pixels = noise.integers(0, 256, (300, 400, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{'sub/' * (number % 2)}{number:02}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for number in range(4):
        make_picture(folder / "photos" / f"{number}.png", number, (320, 240))
    made = subprocess.run(
        [sys.executable, "-m", "rasr", "gallery", "add", folder / "gallery", folder / "photos"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder / "gallery"


@pytest.fixture(scope="module")
def alone(pictures: Path, gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    done = subprocess.run(
        [sys.executable, "-m", "rasr", *words(pictures, gallery, out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr  # one file is no picture
    return out


def words(pictures: Path, gallery: Path, out: Path) -> list[str]:
    return [
        *("restore", str(pictures), "-g", str(gallery), "-o", str(out)),
        *("--preset", "bicubic", "--scale", "4", "--quality", "90", "--format", "jpg"),
    ]


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.jpg")}


def recorded(out: Path) -> list[str]:
    """Results that the journal knows, as often as it was told of them."""
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text("utf-8").splitlines()]
    return sorted(line["output"] for line in lines if line["error"] is None)


def assert_same(out: Path, alone: Path, *, more: int = 0) -> None:
    """The same files, each recorded once, but for ``more`` that a killed command had recorded and not placed."""
    assert files(out) == files(alone)
    assert len(files(out)) == PICTURES
    assert sorted(set(recorded(out))) == recorded(alone)
    assert len(recorded(out)) <= PICTURES + more
    assert not list(out.rglob(".rasr-*"))


def test_the_same_files_as_one_machine_makes(
    start: Start, pictures: Path, gallery: Path, alone: Path, tmp_path: Path
) -> None:
    done = start(*words(pictures, gallery, tmp_path / "out"))
    said = ended(done)
    assert done.returncode == 1, said  # one file is no picture
    assert "broken.png: this is not a picture" in said
    assert f"{PICTURES} done, 0 skipped, 1 failed" in said
    assert "Traceback" not in said
    assert_same(tmp_path / "out", alone)
    assert f"0 done, {PICTURES} skipped, 1 failed" in ended(start(*words(pictures, gallery, tmp_path / "out")))


@pytest.mark.parametrize("killed", ["process", "node"])
def test_what_is_killed_costs_nothing(
    killed: str,
    nodes: Nodes,
    start: Start,
    pictures: Path,
    gallery: Path,
    alone: Path,
    tmp_path: Path,
) -> None:
    done = start(*words(pictures, gallery, tmp_path / "out"))
    getattr(nodes, f"kill_{killed}")(done)
    assert f"{PICTURES} done, 0 skipped, 1 failed" in ended(done)
    assert_same(tmp_path / "out", alone)


def test_a_killed_command_goes_on(
    nodes: Nodes, start: Start, pictures: Path, gallery: Path, alone: Path, tmp_path: Path
) -> None:
    killed = start(*words(pictures, gallery, tmp_path / "out"))
    while not files(tmp_path / "out"):
        nodes.working(killed)
    killed.kill()
    ended(killed)
    before = len(files(tmp_path / "out"))
    assert 0 < before < PICTURES, "killed in the middle"
    said = ended(start(*words(pictures, gallery, tmp_path / "out")))
    assert f"{PICTURES - before} done, {before} skipped, 1 failed" in said
    assert_same(tmp_path / "out", alone, more=1)


def test_a_folder_as_gallery_is_refused_elsewhere(start: Start, pictures: Path, gallery: Path, tmp_path: Path) -> None:
    done = start("restore", pictures, "-g", gallery.parent / "photos", "-o", tmp_path / "out", "--preset", "bicubic")
    assert "rasr gallery add GALLERY FOLDER" in ended(done)
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()
