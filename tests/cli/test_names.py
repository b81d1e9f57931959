"""Names of files that no terminal should get raw: every verb goes on, says them escaped and keeps them apart."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_console import drain

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("--preset", "bicubic", "--scale", "1")
NAMES = {
    b"latin-\xe9.png": r"latin-\xe9.png",
    "line\u2028end\x85.png".encode(): r"line\u2028end\x85.png",
    b"colour\x1b[31m\x07.png": r"colour\x1b[31m\x07.png",
    b"two\nlines\t.png": r"two\nlines\t.png",
    "turned\u202egnp.png".encode(): r"turned\u202egnp.png",
    "Зебра 👩\u200d🔬.png".encode(): "Зебра 👩\u200d🔬.png",
}
"""Name of a file → how it is shown."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / os.fsdecode(name), "PNG")
    return folder


def check_talk(talk: str) -> None:
    assert "Traceback" not in talk
    assert not set(talk) & {"\x1b", "\x07", "\t", "\u2028", "\x85", "\u202e"}
    talk.encode()


def test_a_batch_restores_records_and_finds_them_again(run_rasr: Run, photos: Path, tmp_path: Path) -> None:
    done = run_rasr("restore", photos, "-o", "out", *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    check_talk(done.stderr)
    facts = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    assert {os.fsencode(Path(fact["input"]).name) for fact in facts} == set(NAMES)
    assert all((tmp_path / fact["output"]).is_file() for fact in facts)
    assert all(fact["error"] is None for fact in facts)
    for shown in NAMES.values():
        assert shown in done.stderr
    lines = (tmp_path / "out/report.jsonl").read_text("utf-8").splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines), "a line for every reader's idea of lines"
    again = run_rasr("restore", photos, "-o", "out", *QUICK, "--resume", "--json")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("finished in an earlier run") == len(NAMES)


def test_paths_go_to_programs_as_they_are_and_to_a_terminal_escaped(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rasr", "restore", str(photos), "-o", "out", *QUICK, "--overwrite"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = sorted(b"out/" + name[:-4] + b"_rasr.png\n" for name in NAMES)
    assert done.stdout == b"".join(expected)
    terminal, end = pty.openpty()
    child = subprocess.Popen(
        command, cwd=tmp_path, stdout=end, stderr=subprocess.PIPE, env={**os.environ, "TERM": "dumb"}
    )
    os.close(end)
    seen = drain(terminal)
    _, talk = child.communicate()
    assert child.returncode == 0, talk
    for name in NAMES.values():
        assert f"out/{name[:-4]}_rasr.png" in seen
    assert not set(seen) & {"\x07", "\t", "\u2028", "\x85", "\u202e"}


def test_errors_and_mistakes_show_them(run_rasr: Run, photos: Path, tmp_path: Path) -> None:
    bad = "no\x1b[2Jpicture\udce9.png"
    (tmp_path / bad).write_text("text")
    for arguments in (
        ("restore", bad, "-o", "o.png", *QUICK),
        ("restore", "missing\x1b[2J.png", "-o", "o.png", *QUICK),
        ("degrade", "missing\x1b[2J.png", "o.png", "--seed", 1),
        ("restore", bad, "-o", "o.png", "--no\x1b[2J"),
        ("restore", bad, "-o", "o.png", *QUICK, "-g", "nowhere\x1b[2J"),
    ):
        done = run_rasr(*arguments)
        assert done.returncode in {1, 2}
        assert done.stdout == ""
        check_talk(done.stderr)
        assert r"\x1b[2J" in done.stderr, arguments


def test_degrade_names_what_a_manifest_cannot_hold_and_goes_on(run_rasr: Run, photos: Path, tmp_path: Path) -> None:
    done = run_rasr("degrade", photos, "lq", "--seed", 1, "--manifest", "set.json", "--json", OMP_NUM_THREADS="1")
    assert done.returncode == 1
    check_talk(done.stderr)
    assert r"latin-\xe9.png: The file name is not valid UTF-8" in done.stderr
    assert len(list((tmp_path / "lq").iterdir())) == len(NAMES) - 1
    facts = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    assert [bool(fact["error"]) for fact in facts].count(True) == 1
    rebuilt = run_rasr("degrade", photos, "again", "--from-manifest", "set.json", OMP_NUM_THREADS="1")
    assert rebuilt.returncode == 0, rebuilt.stderr


def test_a_gallery_names_what_it_cannot_hold_and_lists_the_rest(run_rasr: Run, photos: Path, tmp_path: Path) -> None:
    done = run_rasr("gallery", "add", "zoo", photos)
    check_talk(done.stderr)
    assert r"latin-\xe9.png: the file name is not valid UTF-8" in done.stderr
    assert json.loads(run_rasr("gallery", "info", "zoo", "--json").stdout)["photos"] == len(NAMES) - 1
    listed = run_rasr("gallery", "list", "zoo", "--json")
    assert listed.returncode == 0
    names = {Path(photo["path"]).name.encode() for photo in json.loads(listed.stdout)}
    assert names == {name for name in NAMES if b"\xe9" not in name}
    check_talk(listed.stdout.rstrip("\n"))
    check_talk(run_rasr("search", "zoo", photos / "two\nlines\t.png", "--query-restore", "off").stderr)
