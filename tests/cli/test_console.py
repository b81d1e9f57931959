"""What people see while they wait: lines, bars in a real terminal, the time left, Ctrl-C, quiet and loud."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rasr.cli import console
from rasr.images import read_picture

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("--preset", "bicubic", "--device", "cpu")
SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small pictures, and a file that is none."""
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    for name in "abc":
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


def on_terminal(arguments: list[str], cwd: Path, **env: str) -> tuple[int, str]:
    """Run the real command in a terminal that shows stdout and stderr: its exit code, and all that was written."""
    terminal, end = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "rasr", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=end,
        stderr=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "PYTHONPATH": str(SOURCE), **env},
    )
    os.close(end)
    seen = drain(terminal)
    return child.wait(), seen


def drain(terminal: int) -> str:
    """All that is written to the other end of a pseudo-terminal until it is closed; closes this one."""
    seen = b""
    with suppress(OSError):  # how Linux says that the other end of a terminal is closed
        while block := os.read(terminal, 65536):
            seen += block
    os.close(terminal)
    return seen.decode()


def screen(written: str) -> list[str]:
    """The lines that stand on a terminal after ``written``: what rich uses of its language, played back."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b"):
            count = int(re.sub(r"\D", "", part) or 1)
            if part.endswith("A"):
                row = max(0, row - count)
            elif part.endswith("K"):
                lines[row] = "" if "2K" in part else lines[row][:column]
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def test_results_have_lines_of_their_own_where_a_terminal_shows_the_bar_too(folder: Path, tmp_path: Path) -> None:
    long = "a" * 90 + ".png"
    (folder / "a.png").rename(folder / long)
    code, written = on_terminal(["restore", "in", "-o", "out", *QUICK], tmp_path)
    assert code == 0, written
    lines = screen(written)
    paths = [f"out/{'a' * 90}_rasr.png", "out/b_rasr.png", "out/c_rasr.png"]
    assert [line for line in lines if line.startswith("out/")] == paths
    assert "━" not in "".join(lines), "the bar goes when the work is done"
    assert "━" in written
    assert "3 done, 0 skipped, 0 failed in" in written
    # Nothing follows a path on its line, and nothing stood before it that was not cleared.
    for path in paths:
        assert re.search(rf"(^|[\r\n]|\x1b\[2K){re.escape(path)}\r?\n", written), path


def test_no_color_and_dumb_terminals_are_heard(folder: Path, tmp_path: Path) -> None:
    colour = r"\x1b\[[0-9;]*3[0-9][0-9;]*m"
    _, coloured = on_terminal(["restore", "in", "-o", "out", *QUICK], tmp_path)
    _, plain = on_terminal(["restore", "in", "-o", "out2", *QUICK], tmp_path, NO_COLOR="1")
    _, dumb = on_terminal(["restore", "in", "-o", "out3", *QUICK], tmp_path, TERM="dumb")
    assert re.search(colour, coloured)
    assert not re.search(colour, plain)
    assert "\x1b" not in dumb
    assert "restore …" in dumb, "lines in place of the bar"


def test_quiet_tells_failures_only_and_verbose_tells_more(run_rasr: Run, folder: Path) -> None:
    (folder / "b.png").write_bytes(b"no picture")
    quiet = run_rasr("restore", folder, "-o", "out", "-q", *QUICK)
    assert quiet.returncode == 1
    assert quiet.stdout == "out/a_rasr.png\nout/c_rasr.png\n"
    assert all("failed" in line or "this is not a picture" in line for line in quiet.stderr.splitlines())
    assert "b.png" in quiet.stderr
    loud = run_rasr("restore", folder, "-o", "out", "-v", "--overwrite", "--threads", "3", *QUICK)
    assert "Threads: 3: as asked by --threads" in loud.stderr
    assert "Seconds: read" in loud.stderr
    broken = run_rasr("restore", folder / "b.png", "-o", "x.png", "-v", *QUICK)
    assert "UnsupportedFormat" in broken.stderr, "where it was raised"
    assert "UnsupportedFormat" not in run_rasr("restore", folder / "b.png", "-o", "x.png", *QUICK).stderr


def test_the_first_line_comes_before_the_libraries_and_each_stage_has_one(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from rasr.cli import console\n"
        "say = console.warn\n"
        "def told(line): say(str('numpy' in sys.modules) + ' ' + line)\n"
        "console.warn = told\n"
        f"from rasr.cli.main import main; main(['restore', {str(folder)!r}, '-o', 'out', '--preset', 'bicubic'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert lines[0] == "False Looking at the pictures …"
    assert [line for line in lines if "restore …" in line] == [f"True   [{n}/3] restore …" for n in (1, 2, 3)]
    assert re.fullmatch(r"True 3 done, 0 skipped, 0 failed in \d+ s: out", lines[-1])


def test_the_time_left_is_shown_from_the_first_piece_and_never_forgotten() -> None:
    assert console.left(0, 10, 0, 5) == ""
    assert console.left(1, 10, 60, 60) == "9:00 left"
    assert console.left(1, 10, 60, 65) == "8:55 left", "it counts down between pieces"
    assert console.left(1, 10, 60, 6000) == "0:01 left", "and stays when a piece takes long"
    assert console.left(1, 10, 1200, 1200) == "3:00:00 left"
    assert console.left(10, 10, 60, 60) == "0:00 left"
    assert console.left(1, None, 60, 60) == ""


def test_without_a_terminal_long_stages_are_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    console.begin()
    now = [0.0]
    lines = console.Lines(clock=lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        lines.show("embed", second, 200)
    assert capsys.readouterr().err.splitlines() == [
        "  embed …",
        "  embed: 15%, 2:50 left",
        "  embed: 30%, 2:20 left",
        "  embed: 45%, 1:50 left",
    ]


def interrupted(arguments: list[str], cwd: Path, *, after: str) -> tuple[int, str, float, float]:
    """Press Ctrl-C once ``after`` was told: exit code, talk, seconds to the first answer and to the end."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "rasr", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert child.stderr is not None
    talk = ""
    while after not in talk:
        line = child.stderr.readline()
        assert line, talk
        talk += line
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    begun = time.monotonic()
    line = child.stderr.readline()
    answered = time.monotonic() - begun
    _, rest = child.communicate(timeout=60)
    return child.returncode, line + rest, answered, time.monotonic() - begun


def test_ctrl_c_ends_a_long_tile_soon_and_says_how_to_go_on(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((400, 400, 3), np.uint8)).save(folder / "b.png")
    arguments = ["restore", "in", "-o", "out", "--scale", "1", "--preset", "realesrgan", "--tile", "400"]
    code, talk, answered, ended = interrupted([*arguments, "--device", "cpu"], tmp_path, after="[2/3] restore …")
    assert code == 130
    assert talk.splitlines() == ["stopping …", "rasr: interrupted: 1 of 3 done; the same command goes on."]
    assert answered < 2, "not only when the tile is finished"
    assert ended < 30, "the tile takes longer than that; how soon exactly is the machine's business"
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["a_rasr.png"]
    assert read_picture(tmp_path / "out/a_rasr.png").pixels.shape == (24, 32, 3)


def test_ctrl_c_where_python_answers_is_an_ordinary_end(tmp_path: Path) -> None:
    code = (
        "import time; from rasr.cli import console, main\n"
        "import click\n"
        "@click.command()\n"
        "def slow():\n"
        "    with console.resumable(lambda: '2 of 5 done.'):\n"
        "        console.say('ready')\n"
        "        time.sleep(60)\n"
        "main.rasr.add_command(slow)\n"
        "main.Verbs.get_command = lambda self, ctx, name: slow\n"
        "main.VERBS['slow'] = ''\n"
        "main.main(['slow'])\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, talk = child.communicate(timeout=30)
    assert child.returncode == 130
    assert sorted(filter(None, talk.splitlines())) == ["rasr: interrupted: 2 of 5 done.", "stopping …"]
