"""``rasr restore`` as scripts and people meet it: outputs, sizes, names, JSON, resume, report."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from rasr.images import read_header, read_picture

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("--preset", "bicubic")


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()[::5, ::5][:, :80]).save(path)  # 80 wide, 60 high
    return path


@pytest.fixture
def folder(tmp_path: Path, cat: Path) -> Path:
    (tmp_path / "in/sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / "in" / name).write_bytes(cat.read_bytes())
        os.utime(tmp_path / "in" / name, (1e9, 1e9))
    (tmp_path / "in/.DS_Store").write_bytes(b"x")
    return tmp_path / "in"


def test_the_default_preset_restores_a_photo_and_keeps_its_colours(run_rasr: Run, tmp_path: Path) -> None:
    hr = data.chelsea()[60:188, 130:258].astype(np.float32)
    lq = hr.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    Image.fromarray(lq.round().astype(np.uint8)).save(tmp_path / "lq.png")
    done = run_rasr("restore", "lq.png", "-o", "hr.png", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["settings"]["preset"] == "mini"
    assert "untrained" not in facts["settings"]["generator"]["name"]
    assert "BSD-3-Clause" in facts["settings"]["generator"]["licence"]
    assert facts["settings"]["cleaner"] is None, "one network"
    restored = read_picture(tmp_path / "hr.png").pixels * 255
    assert restored.shape == (128, 128, 3)
    assert np.abs(restored.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3)) - lq).mean() < 6.6  # Real-ESRGAN itself: 6.56
    enlarged = np.asarray(Image.fromarray(lq.round().astype(np.uint8)).resize((128, 128), Image.Resampling.BICUBIC))
    sharpness = [np.abs(np.diff(pixels.astype(np.float32), axis=0)).mean() for pixels in (restored, enlarged)]
    assert sharpness[0] > sharpness[1]
    assert "32×32 → 128×128" in done.stderr
    assert "plausible, not evidence" in done.stderr


def test_paths_on_stdout_and_talk_on_stderr(run_rasr: Run, cat: Path, tmp_path: Path) -> None:
    done = run_rasr("restore", cat, "-o", "new/dir/out.png", *QUICK)
    assert done.returncode == 0
    assert done.stdout == "new/dir/out.png\n"
    assert "80×60 → 320×240 pixels" in done.stderr
    assert read_header(tmp_path / "new/dir/out.png").width == 320


@pytest.mark.parametrize(
    ("choice", "size"),
    [(("--scale", "1.5"), (120, 90)), (("--width", "100"), (100, 75)), (("--long-side", "64"), (64, 48))],
)
def test_sizes(run_rasr: Run, cat: Path, tmp_path: Path, choice: tuple[str, str], size: tuple[int, int]) -> None:
    assert run_rasr("restore", cat, "-o", "out.png", *QUICK, *choice).returncode == 0
    header = read_header(tmp_path / "out.png")
    assert (header.width, header.height) == size


def test_formats_quality_and_depth(run_rasr: Run, cat: Path, tmp_path: Path) -> None:
    assert (
        run_rasr("restore", cat, "-o", "o/", "--format", "jpg", "--quality", "20", *QUICK).stdout == "o/cat_rasr.jpg\n"
    )
    assert run_rasr("restore", cat, "-o", "o/95.jpg", *QUICK).returncode == 0
    assert (tmp_path / "o/cat_rasr.jpg").stat().st_size < (tmp_path / "o/95.jpg").stat().st_size / 2
    assert run_rasr("restore", cat, "-o", "o/deep.tif", "--bits", "16", *QUICK).returncode == 0
    assert read_header(tmp_path / "o/deep.tif").bits == 16
    wrong = run_rasr("restore", cat, "-o", "o/x.jpg", "--bits", "16", *QUICK)
    assert wrong.returncode == 1
    assert "cannot hold 16 bits" in wrong.stderr


def test_a_folder_with_json_names_report_and_resume(run_rasr: Run, folder: Path, tmp_path: Path) -> None:
    command = ("restore", folder, "-o", "out", *QUICK, "--scale", "2", "--name", "{stem}@2x{ext}", "--json", "--resume")
    done = run_rasr(*command, "--report", "page.html")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["input"]).name for line in lines] == ["a.png", "b.png", "c.png"]
    assert [line["output"] for line in lines] == ["out/a@2x.png", "out/b@2x.png", "out/sub/c@2x.png"]
    assert all(line["error"] is None and line["references"] == [] for line in lines)
    assert "[3/3]" in done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<article") == 3
    (tmp_path / "out/sub/c@2x.png").unlink()
    again = run_rasr(*command, "--report", "page.html")
    assert again.returncode == 0, again.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('class="viewer"') == 3, "the page shows what the earlier run had finished"
    assert again.stderr.count("finished in an earlier run") == 2
    assert (tmp_path / "out/sub/c@2x.png").is_file()
    assert len((tmp_path / "out/report.jsonl").read_text().splitlines()) == 4


def test_nothing_is_replaced_unless_asked(run_rasr: Run, cat: Path, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"mine")
    (tmp_path / "page.html").write_bytes(b"mine")
    refused = run_rasr("restore", cat, "-o", "out.png", *QUICK)
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    assert (tmp_path / "out.png").read_bytes() == b"mine"
    refused = run_rasr("restore", cat, "-o", "new.png", "--report", "page.html", *QUICK)
    assert refused.returncode == 1
    assert not (tmp_path / "new.png").exists(), "known before the work"
    own = run_rasr("restore", cat, "-o", cat, "--overwrite", *QUICK)
    assert own.returncode == 1
    assert "input itself" in own.stderr
    assert run_rasr("restore", cat, "-o", "out.png", "--overwrite", *QUICK).returncode == 0
    assert read_header(tmp_path / "out.png").width == 320


def test_contradictions_are_usage_errors(run_rasr: Run, cat: Path, tmp_path: Path) -> None:
    for wrong in (
        ("--scale", "2", "--width", "100"),
        ("--scale", "0"),
        ("--preset", "nope"),
        ("--strength", "2"),
        ("--tile", "3"),
        ("--tile", "big"),
        ("--reference", "none", "--reference", "x.png"),
        ("--name", "{nope}"),
    ):
        done = run_rasr("restore", cat, "-o", "out/", *QUICK, *wrong)
        assert done.returncode == 2, wrong
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_restoring_without_gallery_and_network_starts_fast(cat: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from rasr.cli.main import _run; "
        f"code = _run(['restore', {str(cat)!r}, '-o', {str(tmp_path / 'o.png')!r}, '--preset', 'bicubic']); "
        "print([name for name in ('torch', 'lancedb', 'ncnn', 'pyarrow') if name in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"


def test_references_from_a_folder_of_photos(run_rasr: Run, tmp_path: Path) -> None:
    left, right, _ = data.stereo_motorcycle()
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, pixels in {"right": right, "cat": data.chelsea(), "coffee": data.coffee()}.items():
        Image.fromarray(np.asarray(pixels)).save(photos / f"{name}.png")
    small = Image.fromarray(left).resize((370, 250), Image.Resampling.BICUBIC)
    small.filter(ImageFilter.GaussianBlur(1.5)).save(tmp_path / "left.png")
    common = ("restore", "left.png", "--scale", "1", *QUICK, "--json")
    found = run_rasr(*common, "-g", photos, "-o", "found.png", "--query-restore", "off")
    assert found.returncode == 0, found.stderr
    facts = json.loads(found.stdout)
    assert Path(facts["references"][0]["path"]).name == "right.png"
    assert facts["references"][0]["accepted"]
    assert [reference["rank"] for reference in facts["references"]] == [1, 2, 3]
    assert all(reference["why"] for reference in facts["references"])
    assert facts["references"][0]["verdict"] == "same scene"
    assert facts["references"][0]["share"] > 0.15, "bicubic reads no reference, but detail of the same scene is fused"
    assert not any(reference["accepted"] for reference in facts["references"][1:])
    none = run_rasr(*common, "-g", photos, "-o", "none.png", "--reference", "none")
    assert json.loads(none.stdout)["references"] == []
    picked = run_rasr(*common, "-o", "picked.png", "--reference", photos / "cat.png")
    assert json.loads(picked.stdout)["references"][0]["score"] == 1.0
    pixels = [read_picture(tmp_path / f"{name}.png").pixels for name in ("found", "none", "picked")]
    assert not np.array_equal(pixels[0], pixels[1])
    assert np.array_equal(pixels[1], pixels[2]), "a photo of another scene changes nothing"


def test_an_interrupted_batch_leaves_whole_files_and_resumes(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.fromarray(data.chelsea()[::8, ::8][:32, :48]).save(path)
    Image.fromarray(data.chelsea()[:128, :300]).save(folder / "b.png")  # three tiles: long enough to be interrupted
    command = [sys.executable, "-m", "rasr", "restore", str(folder), "-o", "out", "--scale", "1"]
    command += ["--preset", "realesrgan"]
    child = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "out/a_rasr.png\n"
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, talk = child.communicate(timeout=60)
    assert child.returncode == 130, talk
    assert "interrupted" in talk
    left = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert left == ["a_rasr.png", "report.jsonl"]
    assert read_picture(tmp_path / "out/a_rasr.png").pixels.shape == (32, 48, 3)
    again = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert len(again.stdout.splitlines()) == 3
    assert "finished in an earlier run" in again.stderr


def test_on_a_terminal_there_is_a_bar_and_stdout_still_gets_the_data(folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").rename(folder / "[red]a.png")
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "rasr", "restore", str(folder), "-o", "out", *QUICK]
    child = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=end, text=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(end)
    assert child.stdout is not None
    seen = b""
    with suppress(OSError):  # how Linux says that the other end of a terminal is closed
        while block := os.read(terminal, 65536):
            seen += block
    os.close(terminal)
    with child.stdout as stdout:
        assert stdout.read().splitlines() == ["out/[red]a_rasr.png", "out/b_rasr.png", "out/sub/c_rasr.png"]
    assert child.wait() == 0
    talk = seen.decode()
    assert "[1/3] [red]a.png" in talk
    assert "100%" in talk


def test_a_blurred_photo_and_the_dial_are_told_in_line_json_and_metadata(run_rasr: Run, tmp_path: Path) -> None:
    photo = Image.fromarray(data.astronaut()[:300, 100:420])
    photo.filter(ImageFilter.GaussianBlur(6)).save(tmp_path / "soft.png")
    common = ("restore", "soft.png", "--scale", "1", "--detail", "0.7", "--json", "-o")
    done = run_rasr(*common, "out.png")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    width, height = facts["settings"]["reduced_to"]
    assert 64 <= width < 160
    assert f"restored at the {width}×{height} pixels" in done.stderr
    assert any("--no-reduce" in note for note in facts["notes"])
    assert (facts["settings"]["detail"], facts["settings"]["reduce"]) == (0.7, True)
    with Image.open(tmp_path / "out.png") as restored:
        assert restored.size == (320, 300)
        assert f'"reduced_to":[{width},{height}]' in str(restored.getexif().get_ifd(0x8769)) + str(restored.info)
    plain = run_rasr("restore", "soft.png", "--scale", "1", *QUICK, "--no-reduce", "--json", "-o", "plain.png")
    assert json.loads(plain.stdout)["settings"]["reduce"] is False
    refused = run_rasr("restore", "soft.png", *QUICK, "--detail", "0.7", "-o", "refused.png")
    assert refused.returncode == 2
    assert "no dial for detail" in refused.stderr
