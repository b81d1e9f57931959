"""``rasr restore`` on folders, as scripts and clusters run it: nothing to do, workers, parts, lists of failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("--preset", "bicubic", "--scale", "2")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Six pictures in two folders, one empty file, one that is cut."""
    photo = Image.fromarray(data.chelsea()).crop((100, 50, 260, 170))
    for number in range(6):
        path = tmp_path / f"scans/{'old/' * (number % 2)}{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((10 * number, 0, 10 * number + 40, 30)).save(path)
    (tmp_path / "scans/empty.jpg").write_bytes(b"")
    (tmp_path / "scans/old/cut.jpg").write_bytes((tmp_path / "scans/0.jpg").read_bytes()[:500])
    for path in (tmp_path / "scans").rglob("*.jpg"):
        os.utime(path, (1e9, 1e9))
    return tmp_path / "scans"


def results(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*_rasr.*")}


@pytest.mark.parametrize("preset", ["mini", "bicubic"])
def test_nothing_to_do_loads_neither_torch_nor_the_model(preset: str, scans: Path, tmp_path: Path) -> None:
    """Also with a plain folder as the gallery, which is not looked through again."""
    for path in scans.rglob("*.jpg"):
        if path.stat().st_size in {0, 500} or path.name > "1.jpg":
            path.unlink()
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(data.coffee()[:64, :64]).save(photos / "coffee.png")
    code = (
        "import sys; from rasr.cli.main import _run; "
        "import rasr.images.decode as decode, rasr.gallery.gallery as gallery; "
        f"code = _run(['restore', 'scans', '-o', 'out', '-g', 'photos', '--preset', {preset!r}, '--scale', '1']); "
        "print([name for name in ('torch', 'ncnn.ncnn', 'kornia', 'cv2') if name in sys.modules], code)"
    )

    def restore() -> tuple[list[str], str]:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        *paths, last = done.stdout.splitlines()
        assert len(paths) == 2, done.stderr
        return last.rsplit(" ", 1), done.stderr

    (loaded, exit_code), talk = restore()
    assert exit_code == "0"
    assert "torch" in loaded, "the first run looks the picture up"
    assert "2 done" in talk
    (loaded, exit_code), talk = restore()
    assert (loaded, exit_code) == ("[]", "0")
    assert "0 done, 2 skipped, 0 failed" in talk
    assert "Gallery:" not in talk


def test_workers_print_record_and_name_what_one_process_does(run_rasr: Run, scans: Path, tmp_path: Path) -> None:
    alone = run_rasr("restore", scans, "-o", "alone", *QUICK, "--failed", "alone.jsonl")
    beside = run_rasr("restore", scans, "-o", "beside", *QUICK, "--workers", "2", "--failed", "beside.jsonl")
    assert (alone.returncode, beside.returncode) == (1, 1)
    assert sorted(beside.stdout.replace("beside", "alone").splitlines()) == sorted(alone.stdout.splitlines())
    assert results(tmp_path / "beside") == results(tmp_path / "alone")
    assert len(results(tmp_path / "alone")) == 6
    listed = [(tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines() for name in ("alone", "beside")]
    assert sorted(listed[0]) == sorted(listed[1])
    assert [Path(json.loads(line)["input"]).name for line in listed[0]] == ["empty.jpg", "cut.jpg"]
    assert "2 of 8 failed, listed in beside.jsonl:" in beside.stderr
    again = run_rasr("restore", scans, "-o", "beside", *QUICK)
    assert "0 done, 6 skipped, 2 failed" in again.stderr


def test_what_failed_is_restored_from_its_list_once_it_is_repaired(run_rasr: Run, scans: Path, tmp_path: Path) -> None:
    run_rasr("restore", scans, "-o", "out", *QUICK, "--failed", "failed.jsonl")
    whole = (scans / "0.jpg").read_bytes()
    (scans / "old/cut.jpg").write_bytes(whole)
    retry = run_rasr("restore", "--files-from", "failed.jsonl", "-o", "out", *QUICK, "--failed", "failed.jsonl")
    assert retry.returncode == 1
    assert retry.stdout == "out/old/cut_rasr.jpg\n", "mirrored as in the whole folder"
    assert "1 done, 0 skipped, 1 failed" in retry.stderr
    (line,) = (tmp_path / "failed.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["folder"] == str(scans)
    (scans / "empty.jpg").write_bytes(whole)
    assert (
        run_rasr("restore", "--files-from", "failed.jsonl", "-o", "out", *QUICK, "--failed", "failed.jsonl").returncode
        == 0
    )
    assert (tmp_path / "failed.jsonl").read_bytes() == b""
    nothing = run_rasr("restore", "--files-from", "failed.jsonl", "-o", "out", *QUICK)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing to do" in nothing.stderr
    assert "0 done, 8 skipped, 0 failed" in run_rasr("restore", scans, "-o", "out", *QUICK).stderr


def test_a_list_of_paths_from_a_pipe(scans: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rasr", "restore", "--files-from", "-", "-o", "out", *QUICK]
    given = "scans/0.jpg\nscans/old/1.jpg\n"
    done = subprocess.run(command, cwd=tmp_path, input=given, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["out/0_rasr.jpg", "out/1_rasr.jpg"]
    assert (tmp_path / "out/report.jsonl").is_file(), "a list is a batch"


def test_a_single_failure_is_listed_too(run_rasr: Run, scans: Path, tmp_path: Path) -> None:
    done = run_rasr("restore", scans / "empty.jpg", "-o", "out.jpg", *QUICK, "--failed", "failed.jsonl")
    assert done.returncode == 1
    assert json.loads((tmp_path / "failed.jsonl").read_bytes())["input"] == str(scans / "empty.jpg")


def test_parts_share_a_folder_or_have_their_own(run_rasr: Run, scans: Path, tmp_path: Path) -> None:
    """As jobs of a cluster, and as two machines whose folders are put together afterwards."""
    whole = run_rasr("restore", scans, "-o", "whole", *QUICK, "--failed", "whole.jsonl")
    printed, failed = set(), []
    for part in ("1/3", "2/3", "3/3"):
        done = run_rasr("restore", scans, "-o", "shared", *QUICK, "--shard", part, "--failed", "part.jsonl")
        assert done.stderr.rstrip().endswith(f": shared, part {part}")
        assert not printed & set(done.stdout.splitlines())
        printed |= set(done.stdout.splitlines())
        failed += (tmp_path / "part.jsonl").read_text("utf-8").splitlines()
        run_rasr("restore", scans, "-o", f"own{part[0]}", *QUICK, "--shard", part)
    assert printed == set(whole.stdout.replace("whole", "shared").splitlines())
    assert sorted(failed) == sorted((tmp_path / "whole.jsonl").read_text("utf-8").splitlines())
    assert results(tmp_path / "shared") == results(tmp_path / "whole")
    for part in (2, 3):
        subprocess.run(["cp", "-a", f"own{part}/.", "own1"], cwd=tmp_path, check=True)
    assert results(tmp_path / "own1") == results(tmp_path / "whole")
    for out in ("shared", "own1"):
        assert "0 done, 6 skipped, 2 failed" in run_rasr("restore", scans, "-o", out, *QUICK).stderr


def test_a_part_may_be_empty(run_rasr: Run, scans: Path) -> None:
    done = [
        run_rasr("restore", scans / "0.jpg", scans / "2.jpg", "-o", "out", *QUICK, "--shard", f"{part}/6")
        for part in range(1, 7)
    ]
    assert {one.returncode for one in done} == {0}
    assert sum(len(one.stdout.splitlines()) for one in done) == 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--shard", "0/3"), "numbered from 1 to 3"),
        (("--shard", "4/3"), "numbered from 1 to 3"),
        (("--shard", "two"), "write it as I/N"),
        (("--workers", "0"), "workers must be 1 to 256"),
        (("--files-from", "list.txt"), "name no others"),
        (("--name", "report-1-of-2.jsonl"), "must give a file name"),
    ],
)
def test_contradictions_are_told_before_any_work(run_rasr: Run, scans: Path, wrong: tuple[str, str], told: str) -> None:
    done = run_rasr("restore", scans, "-o", "out", *QUICK, *wrong)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert not (scans.parent / "out").exists()


def test_lists_that_are_missing_or_no_lists(run_rasr: Run, scans: Path) -> None:
    missing = run_rasr("restore", "--files-from", "list.txt", "-o", "out", *QUICK)
    assert (missing.returncode, "Cannot read the list list.txt" in missing.stderr) == (2, True)
    nothing = run_rasr("restore", *QUICK)
    assert (nothing.returncode, "Name a picture or a folder" in nothing.stderr) == (2, True)
    outside = scans.parent / "list.jsonl"
    outside.write_text('{"input": "elsewhere/x.jpg", "folder": "scans"}\n')
    wrong = run_rasr("restore", "--files-from", outside, "-o", "out", *QUICK)
    assert (wrong.returncode, "is not in there" in wrong.stderr) == (2, True)
    mine = scans.parent / "mine.jsonl"
    mine.write_text("mine")
    kept = run_rasr("restore", scans, "-o", "out", *QUICK, "--failed", mine)
    assert (kept.returncode, mine.read_text()) == (1, "mine")
