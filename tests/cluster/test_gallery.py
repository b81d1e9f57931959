"""Adding on a cluster of three nodes gives one machine's gallery, whichever node, process or command is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rasr.gallery import Gallery
from tests.cluster.conftest import TIMEOUT, ended
from tests.gallery.standin import make_picture

if TYPE_CHECKING:
    from benchmarks.three_nodes import Nodes

pytestmark = [pytest.mark.large, pytest.mark.timeout(900)]
PHOTOS = 96
SOURCE = Path(__file__).resolve().parents[2] / "src"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(PHOTOS):
        make_picture(folder / f"{number % 3}" / f"{number:05}.png", number, (320, 240))
    (folder / "0" / "broken.png").write_bytes(b"no picture")
    (folder / "2" / "copy.png").write_bytes((folder / "0" / "00000.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    made = Gallery(tmp_path_factory.mktemp("alone") / "gallery")
    made.add(photos)
    return made


def assert_same(made: Gallery, alone: Gallery) -> None:
    (photos, vectors), (expected, right) = made.embeddings(), alone.embeddings()
    by_id = {photo.id: (photo, vector) for photo, vector in zip(photos, vectors, strict=True)}
    assert len(by_id) == len(photos) == len(expected) == PHOTOS
    for photo, vector in zip(expected, right, strict=True):
        other, given = by_id[photo.id]
        facts = ("path", "category", "tags", "size", "mtime_ns", "width", "height", "phash", "near_duplicate_of")
        assert [getattr(other, name) for name in facts] == [getattr(photo, name) for name in facts]
        assert float(np.abs(given - vector).max()) <= 1e-6
    assert made.verify(deep=True).ok


def test_the_same_gallery_as_one_machine_makes(start: Start, photos: Path, alone: Gallery, tmp_path: Path) -> None:
    done = start("gallery", "add", tmp_path / "gallery", photos)
    said = ended(done)
    assert done.returncode == 1, said  # one file is no picture
    assert "broken.png: this is not a picture" in said
    assert f"{PHOTOS} added" in said
    assert "Traceback" not in said
    assert_same(Gallery(tmp_path / "gallery"), alone)
    again = start("gallery", "add", tmp_path / "gallery", photos)
    assert f"0 added, {PHOTOS} unchanged" in ended(again)


def test_moved_photos_are_not_embedded_again(start: Start, tmp_path: Path) -> None:
    for number in range(4):
        make_picture(tmp_path / "photos" / f"{number}.png", number)
    ended(start("gallery", "add", tmp_path / "gallery", tmp_path / "photos"))
    (tmp_path / "photos").rename(tmp_path / "moved")
    said = ended(start("gallery", "add", tmp_path / "gallery", tmp_path / "moved"))
    assert "0 added, 4 moved" in said
    assert "images/s" not in said, "which is told of what was embedded"


def test_a_killed_process_costs_nothing(
    nodes: Nodes, start: Start, photos: Path, alone: Gallery, tmp_path: Path
) -> None:
    done = start("gallery", "add", tmp_path / "gallery", photos)
    nodes.kill_process(done)
    assert f"{PHOTOS} added" in ended(done)
    assert_same(Gallery(tmp_path / "gallery"), alone)


def test_a_killed_node_costs_nothing(nodes: Nodes, start: Start, photos: Path, alone: Gallery, tmp_path: Path) -> None:
    done = start("gallery", "add", tmp_path / "gallery", photos)
    nodes.kill_node(done)
    assert len(nodes.raylets) == 2
    assert f"{PHOTOS} added" in ended(done)
    assert_same(Gallery(tmp_path / "gallery"), alone)


def test_a_killed_command_goes_on(nodes: Nodes, start: Start, photos: Path, alone: Gallery, tmp_path: Path) -> None:
    killed = start("gallery", "add", tmp_path / "gallery", photos)
    nodes.working(killed)
    killed.kill()
    ended(killed)
    again = start("gallery", "add", tmp_path / "gallery", photos)
    said = ended(again)
    assert again.returncode == 1, said  # one file is no picture
    assert_same(Gallery(tmp_path / "gallery"), alone)


def test_two_processes_share_a_gpu(nodes: Nodes, start: Start, photos: Path, alone: Gallery, tmp_path: Path) -> None:
    """GPUs in name only: Ray takes a node's word for them, and counts."""
    shares = ("--actor-cpus", "0.5", "--actor-gpus", "0.5", "--device", "cpu")
    done = start("gallery", "add", tmp_path / "gallery", photos, *shares)
    most = 0
    while done.poll() is None:
        most = max(most, len(nodes.processes("ray::Remote")))
        time.sleep(0.05)
    assert f"{PHOTOS} added" in ended(done)
    assert 3 < most <= 6, "more than one on each node"
    assert_same(Gallery(tmp_path / "gallery"), alone)


def test_what_no_machine_has_room_for_is_refused(start: Start, photos: Path, tmp_path: Path) -> None:
    done = start("gallery", "add", tmp_path / "gallery", photos, "--actor-gpus", "2")
    assert "has 1 core(s) and 2 GPU(s) for a process" in ended(done)
    assert done.returncode == 1
    assert not (tmp_path / "gallery").exists()


def test_another_token_is_refused(nodes: Nodes, photos: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "rasr", "gallery", "add", tmp_path / "gallery", photos, "--cluster", nodes.address]
    environment = {**nodes.environment, "RAY_AUTH_TOKEN": "f" * 64}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 1
    assert "RAY_AUTH_TOKEN must name it here, too." in done.stderr
    assert "Traceback" not in done.stderr
    assert nodes.environment["RAY_AUTH_TOKEN"] not in done.stderr


def test_a_cluster_of_ones_own(photos: Path, alone: Gallery, tmp_path: Path) -> None:
    """Started with a token that no file holds, and gone with the command."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    home = tmp_path / "home"
    home.mkdir()
    path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
    words = [sys.executable, "-m", "rasr", "gallery", "add", tmp_path / "gallery", photos, "--cluster", "local"]
    environment = {**own, "HOME": str(home), "PYTHONPATH": path}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert f"{PHOTOS} added" in done.stderr
    assert "Traceback" not in done.stderr
    assert_same(Gallery(tmp_path / "gallery"), alone)
    assert not (home / ".ray").exists()
