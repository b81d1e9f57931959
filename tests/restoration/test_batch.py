"""Batches: one bad file never stops the rest, finished work is not redone, nothing half-made is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from PIL import Image

import rasr.restoration.batch as module
from rasr.errors import (
    GalleryNotFound,
    OutOfMemory,
    OutputError,
    OutputExists,
    PictureError,
    UsageError,
    WeightsMissing,
)
from rasr.images import decode, read_header
from rasr.restoration import Job, Restorer, SaveOptions, Settings, TargetSize, plan_jobs, run_batch
from rasr.restoration.batch import check_job, measure_jobs

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
    jobs = measure_jobs(plan_jobs([folder / "0.png"], tmp_path / "out.png"))
    assert jobs[0].size == (8, 6)

    def hear(*what: Any) -> None:
        told.append(what)

    list(run_batch(jobs, Restorer("bicubic"), TWICE, announce=hear, progress=hear))
    assert told[0] == (jobs[0], (16, 12))
    assert told[-1] == ("restore", 1.0, 1.0)


def test_headers_are_read_once_and_checks_leave_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "2.png").write_text("no picture")
    read: list[Path] = []
    monkeypatch.setattr(module, "read_header", lambda path, limits: [read.append(path), read_header(path)][1])
    jobs = measure_jobs(plan_jobs([folder], tmp_path / "new/out"))
    assert [job.size for job in jobs] == [(8, 6), (8, 6), None, (8, 6)]
    assert isinstance(jobs[2].error, PictureError)
    check_job(jobs[0], TWICE, SaveOptions())
    with pytest.raises(PictureError):
        check_job(jobs[2], TWICE, SaveOptions())
    with pytest.raises(OutputError, match="65535"):
        check_job(jobs[0], Settings(size=TargetSize(width=70_000)), SaveOptions(format="jpg"))
    assert not (tmp_path / "new").exists()
    list(run_batch(jobs, Restorer("bicubic"), TWICE))
    assert read == [job.input for job in jobs]


def test_a_full_journal_does_not_lose_the_picture(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "report.jsonl").mkdir(parents=True)
    (outcome,) = run_batch(plan_jobs([folder / "0.png"], f"{out}/"), Restorer("bicubic"), TWICE, journal_folder=out)
    assert outcome.result is not None
    assert any("Not recorded" in note for note in outcome.result.notes)
    assert (out / "0_rasr.png").is_file()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("in/b.png", "in/a.jpg", "in/sub/deep/c.tif", "in/.hidden.png", "in/Thumbs.db", "in/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(jobs: list[Job], below: Path) -> dict[str, str]:
    return {str(job.input.relative_to(below)): str(job.output.relative_to(below)) for job in jobs}


def test_a_folder_is_mirrored_and_system_files_ignored(tree: Path) -> None:
    assert names(plan_jobs([tree / "in"], tree / "out"), tree) == {
        "in/a.jpg": "out/a_rasr.jpg",
        "in/b.png": "out/b_rasr.png",
        "in/sub/deep/c.tif": "out/sub/deep/c_rasr.tif",
    }


def test_one_picture_into_a_file_or_a_folder(tree: Path) -> None:
    one = [tree / "in/b.png"]
    assert plan_jobs(one, tree / "x.webp") == [Job(one[0], tree / "x.webp")]
    assert plan_jobs(one, tree / "new")[0].output == tree / "new/b_rasr.png"
    assert plan_jobs(one, f"{tree}/odd.name/")[0].output == tree / "odd.name/b_rasr.png"
    (tree / "exists.d").mkdir()
    assert plan_jobs(one, tree / "exists.d")[0].output == tree / "exists.d/b_rasr.png"


def test_names_and_formats(tree: Path) -> None:
    jobs = plan_jobs([tree / "in"], tree / "out", name="{stem}@2x{ext}", format="webp")
    assert sorted(job.output.name for job in jobs) == ["a@2x.webp", "b@2x.webp", "c@2x.webp"]
    (tree / "in/d.HEIC").write_bytes(b"x")
    assert plan_jobs([tree / "in/d.HEIC"], tree / "out")[0].output.name == "d_rasr.jpg"
    assert plan_jobs([tree / "in/a.jpg"], tree / "out", name="{name}.out{ext}")[0].output.name == "a.jpg.out.jpg"


@pytest.mark.parametrize("name", ["{stem}/{ext}", "{unknown}", "{stem", "{}", "..", "", "{stem.__class__}/x"])
def test_impossible_names_are_usage_errors(tree: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        plan_jobs([tree / "in"], tree / "out", name=name)


def test_earlier_results_are_not_restored_again(tree: Path) -> None:
    out = tree / "in/results"
    out.mkdir()
    (out / "a_rasr.jpg").write_bytes(b"x")
    assert len(plan_jobs([tree / "in"], out)) == 3
    only = tree / "only"
    (only / "out").mkdir(parents=True)
    (only / "out/a.png").write_bytes(b"x")
    (job,) = plan_jobs([only], only / "out")
    assert "no pictures found" in str(job.error)


def test_results_beside_their_inputs(tree: Path) -> None:
    jobs = plan_jobs([tree / "in"], tree / "in")
    assert names(jobs, tree)["in/a.jpg"] == "in/a_rasr.jpg"


def test_two_pictures_of_one_name_are_refused_with_a_way_out(tree: Path) -> None:
    (tree / "in/a.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"would both become .*a_rasr\.png.*\{name\}"):
        plan_jobs([tree / "in"], tree / "out", format="png")
    assert len(plan_jobs([tree / "in"], tree / "out", format="png", name="{name}_rasr{ext}")) == 4
    assert len(plan_jobs([tree / "in", tree / "in/a.jpg"], tree / "out", name="{stem}{ext}")) == 4


def test_several_pictures_do_not_go_into_one_file(tree: Path) -> None:
    with pytest.raises(UsageError, match="named like a file"):
        plan_jobs([tree / "in"], tree / "out.png")


def test_an_empty_folder_is_one_failed_job_among_others(tree: Path) -> None:
    (tree / "empty").mkdir()
    jobs = plan_jobs([tree / "empty", tree / "in"], tree / "out")
    assert [job.error is None for job in jobs] == [False, True, True, True]
    assert "no pictures found" in str(jobs[0].error)
    Image.new("RGB", (1, 1)).save(tree / "empty/x.png")
    assert plan_jobs([tree / "empty"], tree / "out")[0].error is None


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "report.jsonl").read_bytes().splitlines() if line.endswith(b"}")]


def resumed(folder: Path, out: Path, settings: Settings = TWICE) -> str:
    jobs = plan_jobs([folder / "0.png"], f"{out}/")
    save = SaveOptions(overwrite=True)
    (outcome,) = run_batch(jobs, Restorer("bicubic"), settings, save, journal_folder=out, resume=True)
    return "failed" if outcome.error else "done" if outcome.result else "skipped"


def test_finished_means_same_input_same_settings_and_a_whole_output(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert [resumed(folder, out) for _ in range(2)] == ["done", "skipped"]
    assert [resumed(folder, out, Settings()) for _ in range(2)] == ["done", "skipped"]
    assert resumed(folder, out) == "done"
    (out / "0_rasr.png").write_bytes(b"cut")
    assert [resumed(folder, out) for _ in range(2)] == ["done", "skipped"]
    (out / "0_rasr.png").unlink()
    assert [resumed(folder, out) for _ in range(2)] == ["done", "skipped"]
    (folder / "0.png").write_bytes((folder / "1.png").read_bytes())
    assert [resumed(folder, out) for _ in range(2)] == ["done", "skipped"]


def test_a_journal_of_an_earlier_version_is_resumed(folder: Path, tmp_path: Path) -> None:
    """The hashes of settings and input, as 0.1.0 wrote them."""
    out = tmp_path / "out"
    assert resumed(folder, out) == "done"
    (entry,) = lines(out)
    assert entry["settings_hash"] == "dc448261aa2844b1401f1eddf050c3ec"
    assert entry["input_hash"] == xxhash.xxh3_128_hexdigest((folder / "0.png").read_bytes())
    assert entry["output_bytes"] == (out / "0_rasr.png").stat().st_size
    kept = {key: entry[key] for key in ("output", "error", "input_hash", "settings_hash", "output_bytes")}
    (out / "report.jsonl").write_text(json.dumps(kept) + "\n")
    assert resumed(folder, out) == "skipped"


def test_failures_are_recorded_and_not_finished(folder: Path, tmp_path: Path) -> None:
    (folder / "0.png").write_bytes(b"damaged")
    out = tmp_path / "out"
    assert [resumed(folder, out) for _ in range(2)] == ["failed", "failed"]
    assert ["not a picture" in entry["error"] for entry in lines(out)] == [True, True]


def test_a_torn_line_is_ignored_and_does_not_spoil_the_next(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert resumed(folder, out) == "done"
    with (out / "report.jsonl").open("ab") as file:
        file.write(b'not json\n[1]\n{"error": null}\n{"input": "b.png", "outp\xff')
    assert resumed(folder, out) == "skipped"
    assert resumed(folder, out, Settings()) == "done"
    assert resumed(folder, out, Settings()) == "skipped"


def test_running_out_of_memory_on_one_picture_does_not_stop_the_rest(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decode._to_working

    def greedy(*args: Any) -> Any:
        if int(args[0].colour.max()) == 40:  # 1.png
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(decode, "_to_working", greedy)
    outcomes = list(run_batch(plan_jobs([folder], tmp_path / "out"), Restorer("bicubic"), TWICE))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), OutOfMemory, PictureError, type(None)]
    assert str(outcomes[1].error) == f"{folder / '1.png'}: not enough memory to decode 8×6 pixels."
