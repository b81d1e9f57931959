"""`rasr restore` from and to object storage: whole objects, nothing replaced, finished ones known again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rasr.files import write_bytes
from rasr.images import read_picture
from rasr.object_path import place
from tests.gallery.standin import make_picture
from tests.objects.proxy import Proxy
from tests.objects.servers import s3, s3_server

__all__ = ["s3", "s3_server"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scans(s3: str, tmp_path: Path) -> Path:
    top = place(f"{s3}/scans")
    for number, name in enumerate(("a.png", "sub/b.png", "sub/c.jpg")):
        local = make_picture(tmp_path / "scans" / name, number)
        write_bytes(local.read_bytes(), top / name)
    return top


def test_a_prefix_is_restored_to_another_and_gone_on_with(s3: str, scans: Path, run_rasr: Run, tmp_path: Path) -> None:
    words = ("restore", scans, "-o", f"{s3}/out", "--preset", "bicubic", "--scale", "2", "--json")
    done = run_rasr(*words)
    assert done.returncode == 0, done.stderr
    out = place(f"{s3}/out")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["a_rasr.png", "sub/b_rasr.png", "sub/c_rasr.jpg"]
    assert sorted(one["output"] for one in told) == [f"{out}/{name}" for name in names]
    assert sorted(one["input"] for one in told) == [f"{scans}/{name}" for name in ("a.png", "sub/b.png", "sub/c.jpg")]
    local = run_rasr("restore", tmp_path / "scans", "-o", tmp_path / "out", *words[4:])
    assert local.returncode == 0, local.stderr
    for name in names:
        assert (read_picture(out / name).pixels == read_picture(tmp_path / "out" / name).pixels).all()
    times = [(out / name).stat().st_mtime_ns for name in names]
    again = run_rasr(*words)
    assert again.returncode == 0, again.stderr
    assert "3 skipped" in again.stderr
    assert [(out / name).stat().st_mtime_ns for name in names] == times
    (out / "a_rasr.png").unlink()
    third = run_rasr(*words)
    assert third.returncode == 0, third.stderr
    assert "1 done, 2 skipped" in third.stderr
    places = {one.key.rpartition("/")[0].rpartition("/")[2] for one in out.walk_objects()}  # type: ignore[attr-defined]
    assert places == {"out", "sub", "report.jsonl"}, "no probe and no temporary object is left"


def test_nothing_is_replaced_unless_asked(s3: str, scans: Path, run_rasr: Run) -> None:
    target = place(f"{s3}/one.png")
    write_bytes(b"mine", target)
    words = ("restore", scans / "a.png", "-o", target, "--preset", "bicubic")
    done = run_rasr(*words)
    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert target.read_bytes() == b"mine"
    assert run_rasr(*words, "--overwrite").returncode == 0
    assert read_picture(place(str(target))).width > 0
    own = run_rasr("restore", scans / "a.png", "-o", scans / "a.png", "--preset", "bicubic", "--overwrite")
    assert own.returncode != 0
    assert "input" in own.stderr


def test_from_an_address_to_a_folder_and_back(s3: str, scans: Path, run_rasr: Run, tmp_path: Path) -> None:
    here = tmp_path / "here"
    assert run_rasr("restore", scans, "-o", here, "--preset", "bicubic").returncode == 0
    assert sorted(path.name for path in here.rglob("*_rasr.*")) == ["a_rasr.png", "b_rasr.png", "c_rasr.jpg"]
    done = run_rasr("restore", here / "a_rasr.png", "-o", f"{s3}/back.png", "--preset", "bicubic")
    assert done.returncode == 0, done.stderr
    assert np.isfinite(read_picture(f"{s3}/back.png").pixels).all()


def test_storage_that_would_replace_is_refused_before_the_work(
    s3: str, s3_server: str, scans: Path, run_rasr: Run
) -> None:
    def dishonest(method: str, path: str, headers: dict[str, str]) -> str:
        return "unconditional" if "if-none-match" in headers else ""

    with Proxy(s3_server, dishonest) as proxy:
        done = run_rasr(
            "restore", scans / "a.png", "-o", f"{s3}/new.png", "--preset", "bicubic", AWS_ENDPOINT_URL=proxy.address
        )
    assert done.returncode == 1
    assert "could replace what another has written" in done.stderr
    assert not place(f"{s3}/new.png").exists()


def test_secrets_in_an_address_are_refused_and_not_repeated(scans: Path, run_rasr: Run) -> None:
    done = run_rasr("restore", scans, "-o", "s3://key:secret@host/out", "--preset", "bicubic")
    assert done.returncode == 2
    assert "secret" not in done.stderr


def test_a_reference_a_page_and_a_map_at_addresses(s3: str, scans: Path, run_rasr: Run) -> None:
    """Paths from the command line stay addresses in the settings, in the page and beside it."""
    words = ("-o", f"{s3}/new.png", "--preset", "bicubic", "--reference", scans / "sub" / "b.png")
    done = run_rasr("restore", scans / "a.png", *words, "--report", f"{s3}/page.html", "--evidence", f"{s3}/map.png")
    assert done.returncode == 0, done.stderr
    assert f"Reference 1: {scans}/sub/b.png" in done.stderr
    page = place(f"{s3}/page.html").read_bytes().decode()
    assert f"{scans}/sub/b.png" in page
    assert page.count("data:image/") >= 3, "input, result and the reference are shown"
    assert read_picture(f"{s3}/map.png").width == read_picture(f"{s3}/new.png").width


@pytest.mark.large
def test_parts_and_workers_together_make_one_run(s3: str, tmp_path: Path, run_rasr: Run) -> None:
    """Three parts at the same moment, two of them with two workers each, one killed twice on its way."""
    for number in range(30):
        local = make_picture(tmp_path / "scans" / f"{'sub/' * (number % 2)}{number}.png", number)
        write_bytes(local.read_bytes(), place(f"{s3}/scans/{'sub/' * (number % 2)}{number}.png"))
    write_bytes(b"none", place(f"{s3}/scans/broken.png"))
    (tmp_path / "scans" / "broken.png").write_bytes(b"none")
    words = ["restore", f"{s3}/scans", "-o", f"{s3}/out", "--preset", "bicubic", "--scale", "8"]

    def begin(part: int, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rasr", *words, "--shard", f"{part}/3", *more]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def made() -> list[str]:
        return [one.name for one in place(f"{s3}/out").walk_objects() if "_rasr." in one.name]  # type: ignore[attr-defined]

    for least in (1, 4):
        killed = begin(1, "--workers", "2")
        while len(made()) < least:
            assert killed.poll() is None, "it ended before it could be killed"
        killed.kill()
        killed.wait(30)
    assert len(made()) < 30
    parts = [begin(1, "--workers", "2"), begin(2, "--workers", "2"), begin(3)]
    codes = [part.wait(300) for part in parts]
    assert sorted(codes) == [0, 0, 1], "the part with the broken picture says so"
    whole = run_rasr("restore", tmp_path / "scans", "-o", tmp_path / "out", *words[4:])
    assert whole.returncode == 1
    local = {one.relative_to(tmp_path / "out").as_posix(): one for one in (tmp_path / "out").rglob("*_rasr.png")}
    assert len(local) == 30
    far = {one.key.removeprefix("out/"): one for one in place(f"{s3}/out").walk_objects()}  # type: ignore[attr-defined]
    assert {name for name in far if not name.startswith("report")} == {*local}, "none lost, nothing left over"
    for name, path in local.items():
        assert (read_picture(far[name]).pixels == read_picture(path).pixels).all()
    again = run_rasr(*words)
    assert "0 done, 30 skipped, 1 failed" in again.stderr
    listed = run_rasr("restore", f"{s3}/scans", "-o", f"{s3}/out", *words[4:], "--failed", f"{s3}/failed.jsonl")
    assert listed.returncode == 1
    failed = run_rasr("restore", "--files-from", f"{s3}/failed.jsonl", "-o", f"{s3}/out", *words[4:])
    assert "0 done, 0 skipped, 1 failed" in failed.stderr
