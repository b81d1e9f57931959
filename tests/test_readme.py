"""The README is true: its commands run, its links lead somewhere, it stays short; docs/tree.md names every file."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import skimage
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLES = Path(skimage.__file__).parent / "data"


def console_commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("rasr ")]


def test_the_readme_shows_commands() -> None:
    verbs = {shlex.split(line)[1] for line in console_commands()}
    assert {"gallery", "search", "restore"} <= verbs


def test_the_commands_of_the_readme_run_in_order(
    run_rasr: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    for category, name in [("cats", "chelsea.png"), ("space", "rocket.jpg"), ("bikes", "motorcycle_right.png")]:
        (photos / category).mkdir(parents=True)
        shutil.copy(SAMPLES / name, photos / category / name)
    (tmp_path / "holiday").mkdir()
    with Image.open(SAMPLES / "motorcycle_left.png") as image:
        small = image.resize((92, 62))
        small.save(tmp_path / "blurry.jpg", quality=60)
        small.resize((46, 31)).save(tmp_path / "holiday" / "one.jpg", quality=60)
    for line in console_commands():
        done = run_rasr(*shlex.split(line)[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "photos").mkdir()
    shutil.copy(SAMPLES / "motorcycle_right.png", tmp_path / "photos" / "right.png")
    with Image.open(SAMPLES / "motorcycle_left.png") as image:
        image.resize((92, 62)).save(tmp_path / "blurry.jpg", quality=60)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    with Image.open(tmp_path / "restored.png") as restored:
        assert restored.size == (368, 248)


def test_the_example_for_python_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text("utf-8"), flags=re.DOTALL)
    (tmp_path / "photos").mkdir()
    shutil.copy(SAMPLES / "motorcycle_right.png", tmp_path / "photos" / "right.png")
    with Image.open(SAMPLES / "motorcycle_left.png") as image:
        image.resize((92, 62)).save(tmp_path / "old.jpg", quality=60)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "python.md", "exec"), {})
    with Image.open(tmp_path / "restored.png") as restored, Image.open(tmp_path / "turned.webp") as turned:
        assert (restored.size, turned.size) == ((184, 124), (184, 124))
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("<Result 128×128 of a picture, ")
    assert told[1].startswith("PictureError An array of uint16 is not taken: ")


def test_how_to_have_the_cpu_build_is_said_where_one_installs() -> None:
    for page in ("README.md", "docs/quickstart.md", "constraints.txt", "Makefile"):
        text = (ROOT / page).read_text("utf-8")
        assert "https://download.pytorch.org/whl/cpu" in text, page
    for page in ("README.md", "docs/quickstart.md"):
        text = (ROOT / page).read_text("utf-8")
        assert "CUDA build" in text
        assert "https://pytorch.org/get-started/locally/" in text
    steps = subprocess.run(
        ["make", "-n", "demo", "TORCH_INDEX=https://example.org/cpu", "VENV=not-made"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    torch_first = next(n for n, line in enumerate(steps) if line.endswith("--index-url https://example.org/cpu torch"))
    assert any("-e '.[dev,heic,train]'" in line for line in steps[torch_first:])
    plain = subprocess.run(
        ["make", "-n", "demo", "VENV=not-made"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert 'test -z "" ||' in plain


def test_the_readme_stays_one_screen_of_everything() -> None:
    assert len(README.splitlines()) <= 130
    assert len(README.encode()) <= 9 * 1024


def test_the_tree_is_the_packages_tree() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_tree.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
