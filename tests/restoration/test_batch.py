"""Batches: one bad file never stops the rest, finished work is not redone, nothing half-made is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rasr.errors import GalleryNotFound, OutputError, OutputExists, PictureError, UsageError, WeightsMissing
from rasr.images import read_header
from rasr.restoration import Job, Restorer, SaveOptions, Settings, TargetSize, plan_jobs, run_batch

Make = Callable[..., Any]
TWICE = Settings(size=TargetSize(scale=2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.full((6, 8, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:50])
    return folder


def test_one_bad_file_never_stops_the_rest(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcomes = list(run_batch(plan_jobs([folder], out), Restorer("bicubic"), TWICE, journal_folder=out))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), type(None), PictureError, type(None)]
    assert sorted(path.name for path in out.iterdir()) == ["0_rasr.png", "1_rasr.png", "3_rasr.png", "report.jsonl"]
    assert read_header(out / "3_rasr.png").width == 16
    lines = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert [line["error"] is None for line in lines] == [True, True, False, True]
    assert lines[2]["output"] is None
    assert "2.png" in lines[2]["error"]
    assert all(line["settings_hash"] == lines[0]["settings_hash"] for line in lines)


def test_resume_redoes_what_failed_changed_or_was_made_otherwise(local: Make, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = plan_jobs([folder], out)

    def again(settings: Settings = TWICE, **save: Any) -> list[str]:
        outcomes = run_batch(jobs, Restorer("bicubic"), settings, SaveOptions(**save), journal_folder=out, resume=True)
        return ["failed" if outcome.error else "done" if outcome.result else "skipped" for outcome in outcomes]

    assert again() == ["done", "done", "failed", "done"]
    assert again() == ["skipped", "skipped", "failed", "skipped"]
    Image.new("RGB", (8, 6)).save(folder / "2.png")
    Image.new("RGB", (9, 9)).save(folder / "0.png")
    (out / "1_rasr.png").unlink()
    assert again(overwrite=True) == ["done", "done", "done", "skipped"]
    assert again(overwrite=True) == ["skipped"] * 4
    assert again(Settings(size=TargetSize(scale=3)), overwrite=True) == ["done"] * 4
    assert again(Settings(size=TargetSize(scale=3)), overwrite=True, quality=50) == ["done"] * 4


def test_results_that_exist_are_kept_unless_asked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = plan_jobs([folder / "0.png"], f"{out}/")
    list(run_batch(jobs, Restorer("bicubic"), TWICE))
    before = (out / "0_rasr.png").read_bytes()
    (refused,) = run_batch(jobs, Restorer("bicubic"), Settings(size=TargetSize(scale=3)))
    assert isinstance(refused.error, OutputExists)
    assert (out / "0_rasr.png").read_bytes() == before
    (done,) = run_batch(jobs, Restorer("bicubic"), Settings(size=TargetSize(scale=3)), SaveOptions(overwrite=True))
    assert done.error is None
    assert (out / "0_rasr.png").read_bytes() != before


def test_the_place_is_checked_before_the_work(local: Make, folder: Path, tmp_path: Path) -> None:
    generator = local()
    wide = Settings(size=TargetSize(width=70_000))
    (outcome,) = run_batch([Job(folder / "0.png", tmp_path / "new/deep/x.jpg")], Restorer(generator), wide)
    assert isinstance(outcome.error, OutputError)
    assert "65535" in str(outcome.error).replace(" ", "")
    (outcome,) = run_batch([Job(folder / "0.png", folder / "0.png")], Restorer(generator), TWICE)
    assert "input itself" in str(outcome.error)
    (outcome,) = run_batch([Job(folder / "0.png", folder / "1.png/x.png")], Restorer(generator), TWICE)
    assert "folder cannot be made" in str(outcome.error)
    assert generator.shapes == []
    assert not (tmp_path / "new").exists(), "folders made for nothing are taken away again"


@pytest.mark.parametrize("error", [WeightsMissing("none"), GalleryNotFound("none"), UsageError("no")])
def test_what_would_fail_every_picture_stops_at_once(
    local: Make, folder: Path, tmp_path: Path, error: Exception
) -> None:
    generator = local(fail=lambda *_: error)
    with pytest.raises(type(error)):
        list(run_batch(plan_jobs([folder], tmp_path / "out"), Restorer(generator), TWICE))
    assert len(generator.shapes) == 1
    assert not (tmp_path / "out").exists()


def test_an_interruption_leaves_whole_files_only(local: Make, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    generator = local(fail=lambda call, _: KeyboardInterrupt() if call == 1 else None)
    with pytest.raises(KeyboardInterrupt):
        list(run_batch(plan_jobs([folder], out), Restorer(generator), TWICE, journal_folder=out))
    assert sorted(path.name for path in out.iterdir()) == ["0_rasr.png", "report.jsonl"]
    assert read_header(out / "0_rasr.png").height == 12


def test_sizes_are_announced_before_the_work_and_progress_follows(folder: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    jobs = plan_jobs([folder / "0.png"], tmp_path / "out.png")
    list(run_batch(jobs, Restorer("bicubic"), TWICE, announce=lambda *what: told.append(what), progress=told.append))
    assert told[0] == (jobs[0], (8, 6), (16, 12))
    assert told[-1] == pytest.approx(1)


def test_a_full_journal_does_not_lose_the_picture(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "report.jsonl").mkdir(parents=True)
    (outcome,) = run_batch(plan_jobs([folder / "0.png"], f"{out}/"), Restorer("bicubic"), TWICE, journal_folder=out)
    assert outcome.result is not None
    assert any("Not recorded" in note for note in outcome.result.notes)
    assert (out / "0_rasr.png").is_file()
