"""Bad input, bad places, full disks: one clear line, the right exit code, nothing left behind, the rest carried on."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from rasr.gallery import Gallery
from rasr.images import read_header

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("--preset", "bicubic", "--scale", "2")


def bomb() -> bytes:
    """A PNG whose header announces 50 000 × 50 000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad pictures."""
    folder = tmp_path_factory.mktemp("bad")
    photo = Image.fromarray(data.chelsea()[::6, ::6])
    photo.save(folder / "a-good.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("this is not a picture")
    photo.save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    (folder / "whole.jpg").unlink()
    (folder / "bomb.png").write_bytes(bomb())
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    frames = [Image.new("RGB", (16, 12), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    photo.crop((0, 0, 1, 1)).save(folder / "z-dot.png")
    return folder


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exactly one line is an error, names what it is about, and no traceback is shown."""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("rasr: ")]
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in line, line


def test_in_a_batch_one_bad_file_never_stops_the_rest(run_rasr: Run, bad: Path, tmp_path: Path) -> None:
    done = run_rasr("restore", bad, bad / "missing.png", "-o", "out", "--json", *QUICK)
    assert done.returncode == 1
    lines = {Path(fact["input"]).name: fact for fact in map(json.loads, done.stdout.splitlines())}
    failed = {name for name, fact in lines.items() if fact["error"]}
    assert failed == {"empty.png", "text.jpg", "truncated.jpg", "bomb.png", "missing.png"}
    assert all(name in lines[name]["error"] and lines[name]["output"] is None for name in failed)
    assert "5 of 9 failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert "CMYK" in str(lines["cmyk.jpg"]["notes"])
    assert "first of 2 frames" in str(lines["moving.webp"]["notes"])
    sizes = {path.name: read_header(path).width for path in (tmp_path / "out").glob("*_rasr.*")}
    assert sizes == {"a-good_rasr.png": 152, "cmyk_rasr.jpg": 152, "moving_rasr.webp": 32, "z-dot_rasr.png": 2}
    assert not list((tmp_path / "out").glob(".*")), "no temporary file"
    assert len((tmp_path / "out/report.jsonl").read_text().splitlines()) == 9


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.png", "no such file"),
        ("empty.png", "empty"),
        ("text.jpg", ""),
        ("truncated.jpg", "truncated"),
        ("bomb.png", "--max-megapixels"),
    ],
)
def test_a_single_bad_picture(run_rasr: Run, bad: Path, tmp_path: Path, name: str, words: str) -> None:
    done = run_rasr("restore", bad / name, "-o", "new/out.png", *QUICK)
    assert done.returncode == 1
    assert done.stdout == ""
    one_line(done, name, words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_pictures(run_rasr: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/notes.txt").write_text("nothing here")
    done = run_rasr("restore", "in", "-o", "out", *QUICK)
    assert done.returncode == 1
    assert "in: no pictures found" in done.stderr
    assert "Traceback" not in done.stderr


def test_references_and_galleries_that_are_none(run_rasr: Run, bad: Path, tmp_path: Path) -> None:
    good = bad / "a-good.png"
    for wrong, words in (
        (("--reference", bad / "text.jpg"), "text.jpg"),
        (("--reference", tmp_path / "missing.png"), "no such file"),
        (("-g", tmp_path / "nowhere"), "does not exist"),
        (("-g", good), "is a file"),
    ):
        done = run_rasr("restore", good, "-o", "out/out.png", *QUICK, *wrong)
        assert done.returncode == 1
        one_line(done, words)
    assert list(tmp_path.iterdir()) == []


class OldEncoder:
    """Calls itself by the name of the embedded encoder, but is another one."""

    name, version, dimension, input_size, fingerprint = "effnet-lite0", "0.0.1", 8, 8, "effnet-lite0/0.0.1/old"

    def preprocess(self, pixels: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(pixels[:8, :8].transpose(2, 0, 1), np.float32)

    def embed(self, batch: np.ndarray) -> np.ndarray:
        vectors = batch.reshape(len(batch), -1)[:, :8] + np.float32(0.1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_gallery_of_another_encoder_and_a_corrupt_one(run_rasr: Run, bad: Path, tmp_path: Path) -> None:
    good = bad / "a-good.png"
    gallery = tmp_path / "gallery"
    Gallery(gallery, encoder=OldEncoder()).add([good])
    done = run_rasr("restore", good, "-o", "out/out.png", "-g", gallery, *QUICK)
    assert done.returncode == 1
    one_line(done, "effnet-lite0 0.0.1", "rasr gallery add")
    largest = max((path for path in gallery.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)
    done = run_rasr("restore", good, "-o", "out/out.png", "-g", gallery, *QUICK)
    assert done.returncode == 1
    one_line(done, "gallery")
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_written(run_rasr: Run, bad: Path, tmp_path: Path) -> None:
    good = bad / "a-good.png"
    (tmp_path / "file").write_bytes(b"x")
    for place, words in (
        ("file/out.png", "folder cannot be made"),
        ("/sys/out.png", "cannot be written"),  # refused to everyone, root included
        ("/sys/new/out.png", "folder cannot be made"),
        ("out.gif", "extension '.gif'"),
        (f"{'x' * 300}.png", "Choose a shorter name"),
        (f"{'x' * 300}/out.png", "folder cannot be made"),
    ):
        done = run_rasr("restore", good, "-o", place, *QUICK)
        assert done.returncode == 1, place
        one_line(done, words)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sizes_a_format_cannot_hold_are_refused_before_the_work(run_rasr: Run, bad: Path, tmp_path: Path) -> None:
    for out, width in (("a.webp", "16384"), ("a.jpg", "65536")):
        done = run_rasr("restore", bad / "z-dot.png", "-o", out, "--width", width, "--preset", "bicubic")
        assert done.returncode == 1
        one_line(done, f"{int(width) - 1}", ".png")
    assert list(tmp_path.iterdir()) == []


def _limited(shell: list[str], *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*shell, sys.executable, "-m", "rasr", "restore", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_a_file_size_limit_leaves_nothing_half_written(bad: Path, tmp_path: Path) -> None:
    shell = ["bash", "-c", 'ulimit -f 8 && exec "$@"', "bash"]
    done = _limited(shell, bad / "a-good.png", "-o", "out/out.png", "--preset", "bicubic", "--scale", 4, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    one_line(done, "out.png", "cannot be written")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(bad: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=64k tmpfs {disk}"
    shell = [
        "unshare",
        "--mount",
        "--map-root-user",
        "bash",
        "-c",
        f'{mount} && "$@"; code=$?; ls -A {disk}; exit $code',
    ]
    if shutil.which("unshare") is None or subprocess.run([*shell, "bash", "true"], check=False).returncode != 0:
        pytest.skip("this machine does not let a process mount a small disk of its own")
    done = _limited([*shell, "bash"], bad / "a-good.png", bad / "z-dot.png", "-o", disk, *QUICK[:2], cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "No space left" in done.stderr
    assert "1 of 2 failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == [f"{disk}/z-dot_rasr.png", "report.jsonl", "z-dot_rasr.png"], "the rest is carried on"
