"""``rasr restore`` in a pipe, and without an output."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., subprocess.CompletedProcess[str]]
SOURCE = Path(__file__).resolve().parents[2] / "src"
QUICK = ("--preset", "bicubic", "--device", "cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def content(format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, format)
    return stream.getvalue()


def piped(tmp_path: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command with ``given`` on stdin; what it must not leave behind would lie in ``tmp``."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "rasr", "restore", *arguments, *QUICK],
        cwd=tmp_path,
        input=given,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        check=False,
    )
    assert list((tmp_path / "tmp").iterdir()) == []
    return done


@pytest.mark.parametrize(
    ("format", "options", "expected"),
    [("PNG", (), "PNG"), ("JPEG", (), "JPEG"), ("WEBP", (), "WEBP"), ("TIFF", (), "TIFF"),
     ("JPEG", ("--format", "png"), "PNG"), ("PNG", ("-o", "-"), "PNG")],
)  # fmt: skip
def test_a_picture_goes_through_a_pipe(tmp_path: Path, format: str, options: tuple[str, ...], expected: str) -> None:
    done = piped(tmp_path, "-", *options, given=content(format))
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as image:
        image.load()
        assert (image.format, image.size) == (expected, (32, 24))


def test_a_pipe_may_end_or_begin_in_a_file(tmp_path: Path) -> None:
    done = piped(tmp_path, "-", "-o", "new.png", given=content("JPEG"))
    assert (done.returncode, done.stdout) == (0, b"new.png\n")
    into = piped(tmp_path, "-", "-o", "folder/", given=content("JPEG"))
    assert (into.returncode, into.stdout) == (0, b"folder/stdin_rasr.jpg\n")
    out = piped(tmp_path, "new.png", "-o", "-", "--scale", "1")
    with Image.open(io.BytesIO(out.stdout)) as image:
        assert (image.format, image.size) == ("PNG", (32, 24))


@pytest.mark.parametrize(
    ("arguments", "given", "code", "words"),
    [
        (("-", "--json"), content("PNG"), 2, "--json goes there too"),
        (("-", "other.png"), content("PNG"), 2, "give it alone"),
        (("-",), b"", 1, "empty"),
        (("-",), b"no picture at all", 1, "not a picture"),
        (("-",), content("PNG")[:100], 1, "stdin"),
    ],
)
def test_mistakes_with_pipes_are_one_line(
    tmp_path: Path, arguments: tuple[str, ...], given: bytes, code: int, words: str
) -> None:
    done = piped(tmp_path, *arguments, given=given)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_no_picture_is_written_onto_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content("PNG"))
    terminal, end = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "rasr", "restore", "a.png", "-o", "-", *QUICK],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SOURCE)}, stdout=end, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(end)
    os.close(terminal)
    assert done.returncode == 2
    assert "that is a terminal" in done.stderr.decode()


def test_without_an_output_results_lie_beside_the_inputs(run_rasr: Run, tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    for name in ("in/a.png", "in/sub/b.png", "c.png"):
        (tmp_path / name).write_bytes(content("PNG"))
    assert run_rasr("restore", "c.png", *QUICK).stdout == "c_rasr.png\n"
    assert run_rasr("restore", "in/a.png", "--name", "{stem}@4x{ext}", *QUICK).stdout == "in/a@4x.png\n"
    assert run_rasr("restore", "in/a.png", "--format", "webp", *QUICK).stdout == "in/a_rasr.webp\n"
    for name in ("in/a@4x.png", "in/a_rasr.webp"):
        (tmp_path / name).unlink()
    first = run_rasr("restore", "in", *QUICK)
    assert first.stdout.splitlines() == ["in/a_rasr.png", "in/sub/b_rasr.png"], first.stderr
    again = run_rasr("restore", "in", *QUICK)
    assert again.returncode == 0
    assert "0 done, 2 skipped, 0 failed" in again.stderr, "and results are never inputs"
    scattered = run_rasr("restore", "c.png", "in/a.png", *QUICK)
    assert scattered.returncode == 2
    assert "several folders" in scattered.stderr
