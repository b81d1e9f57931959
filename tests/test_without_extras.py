"""Without lancedb, obstore, pyarrow, fsspec and ray all works that needs none of them; what does names the extra."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gallery.standin import make_picture

HIDDEN = ("lancedb", "lance", "obstore", "pyarrow", "fsspec", "s3fs", "ray")
HIDE = f"""
import sys
from importlib.machinery import PathFinder


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {HIDDEN!r} else PathFinder.find_spec(name, path, target)


sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture
def without(
    tmp_path: Path, run_rasr: Callable[..., subprocess.CompletedProcess[str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line where those packages are not installed."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDE)
    path = os.pathsep.join(filter(None, [str(tmp_path / "hidden"), os.environ.get("PYTHONPATH", "")]))

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_rasr(*arguments, PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1] / "src"), path]))

    return run


def test_they_are_hidden_and_rasr_is_imported(tmp_path: Path) -> None:
    script = HIDE + (
        "import importlib, pkgutil, rasr\n"
        "for module in pkgutil.walk_packages(rasr.__path__, 'rasr.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        f"assert not {{*{HIDDEN!r}}} & {{name.partition('.')[0] for name in sys.modules}}\n"
        "try:\n    import lancedb\nexcept ImportError:\n    print('hidden')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "hidden\n", done.stderr


def test_the_core_commands_work(without: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    for number in range(3):
        make_picture(tmp_path / "photos" / f"{number}.png", number)
    picture, gallery = tmp_path / "photos" / "0.png", tmp_path / "gallery"
    for words in (
        ("gallery", "add", gallery, tmp_path / "photos"),
        ("gallery", "info", gallery),
        ("gallery", "list", gallery),
        ("gallery", "verify", gallery),
        ("gallery", "optimize", gallery),
        ("gallery", "copy", gallery, tmp_path / "copy"),
        ("search", gallery, picture),
        ("degrade", picture, tmp_path / "bad.png", "--seed", 1),
        ("restore", tmp_path / "bad.png", "-g", gallery, "--preset", "bicubic", "-o", tmp_path / "good.png"),
        ("gallery", "remove", gallery, picture),
        ("doctor",),
    ):
        done = without(*words)
        assert done.returncode == 0, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert (tmp_path / "good.png").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ("gallery", "info", "s3://bucket/zoo"),
        ("gallery", "add", "lance://gallery", "photos"),
        ("gallery", "copy", "photos-index", "lance://copy"),
        ("search", "gs://bucket/zoo", "photos/0.png"),
        ("gallery", "add", "gallery", "s3://bucket/photos"),
        ("restore", "photos/0.png", "-g", "az://bucket/zoo", "-o", "out.png", "--preset", "bicubic"),
        ("gallery", "add", "gallery", "photos", "--cluster", "local"),
        ("restore", "photos/0.png", "-o", "out.png", "--preset", "bicubic", "--cluster", "local"),
        ("serve", "--data", "data", "--preset", "bicubic", "--cluster", "local"),
    ],
)
def test_what_needs_them_names_the_extra(
    without: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, words: tuple[str, ...]
) -> None:
    make_picture(tmp_path / "photos" / "0.png", 0)
    assert without("gallery", "add", "photos-index", "photos").returncode == 0
    done = without(*words)
    assert done.returncode == 1
    assert f"[{'cluster' if '--cluster' in words else 'lance'}]'" in done.stderr
    assert "Install it with" in done.stderr
    assert "Traceback" not in done.stderr
