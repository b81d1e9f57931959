"""Batches: one bad file never stops the rest, finished work is not redone, nothing half-made is left."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from PIL import Image

import rasr.restoration.batch as batch
import rasr.restoration.plan as module
from rasr.errors import (
    GalleryNotFound,
    OutOfMemory,
    OutputError,
    OutputExists,
    PictureError,
    UsageError,
    WeightsMissing,
)
from rasr.files import atomic_write
from rasr.images import decode, read_header
from rasr.restoration import Job, Outcome, Restorer, SaveOptions, Settings, TargetSize, plan_jobs, run_batch
from rasr.restoration.plan import check_places, measure_jobs
from rasr.restoration.work import check_job
from rasr.restoration.work_key import _determining

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


def test_no_picture_enters_names_into_pythons_table_of_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every new path does, and the table, 3 MB in a batch of ten thousand, never becomes smaller."""
    entered: list[str] = []
    intern = sys.intern

    def spy(name: str) -> str:
        entered.append(name)
        return intern(name)

    out = tmp_path / "out"
    jobs = plan_jobs([folder], out)
    outcomes = run_batch(jobs, Restorer("bicubic"), TWICE, journal_folder=out)
    next(outcomes)
    monkeypatch.setattr(sys, "intern", spy)
    assert len(list(outcomes)) == 3
    assert Path("seen").parts[0] in entered, "paths are made by way of what is watched"
    assert set(entered) <= {"seen", *out.parts}, "the journal's folder is known there all the time"


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


def test_the_same_command_goes_on_and_overwrite_redoes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = plan_jobs([folder], out)

    def again(settings: Settings = TWICE, **save: Any) -> list[str]:
        return [kind(outcome) for outcome in run(jobs, settings, SaveOptions(**save), journal_folder=out)]

    assert again() == ["done", "done", "failed", "done"]
    assert again() == ["skipped", "skipped", "failed", "skipped"]
    Image.new("RGB", (8, 6)).save(folder / "2.png")
    (out / "1_rasr.png").unlink()
    assert again() == ["skipped", "done", "done", "skipped"]
    assert again(overwrite=True) == ["done"] * 4
    Image.new("RGB", (9, 9)).save(folder / "0.png")
    assert again() == ["failed", "skipped", "skipped", "skipped"], "a result of another content is not replaced unasked"
    assert again(Settings(size=TargetSize(scale=3))) == ["failed"] * 4
    assert again(Settings(size=TargetSize(scale=3)), overwrite=True) == ["done"] * 4
    assert again(Settings(size=TargetSize(scale=3))) == ["skipped"] * 4
    assert again(Settings(size=TargetSize(scale=3)), quality=50) == ["failed"] * 4


def test_a_result_that_was_edited_is_named_and_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = plan_jobs([folder / "0.png", folder / "1.png"], out)
    assert [kind(one) for one in run(jobs, journal_folder=out)] == ["done"] * 2
    edited = bytearray((out / "0_rasr.png").read_bytes())
    edited[-20] ^= 1
    (out / "0_rasr.png").write_bytes(edited)
    kept, skipped = run(jobs, journal_folder=out)
    assert isinstance(kept.error, OutputExists)
    assert "0_rasr.png: exists already and was changed after it was made" in str(kept.error)
    assert (out / "0_rasr.png").read_bytes() == edited
    assert kind(skipped) == "skipped"
    other = run(jobs, Settings(), journal_folder=out)
    assert "made from another input or with other settings" in str(other[1].error)
    assert [kind(one) for one in run(jobs, save=SaveOptions(overwrite=True), journal_folder=out)] == ["done"] * 2


def test_finished_is_finished_wherever_the_folders_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [kind(one) for one in run(plan_jobs([Path("in")], "out"), journal_folder=Path("out"))].count("done") == 3
    monkeypatch.chdir(folder)
    for inputs, out in (
        (Path(), Path("../out")),
        (folder, tmp_path / "out"),
        (Path("../in/../in"), Path("../in/../out")),
    ):
        assert [kind(one) for one in run(plan_jobs([inputs], out), journal_folder=out)].count("skipped") == 3
    (tmp_path / "out").rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    (tmp_path / "same").symlink_to(folder)
    for out in (tmp_path / "moved", tmp_path / "link"):
        jobs = plan_jobs([tmp_path / "same"], out)
        assert [kind(one) for one in run(jobs, journal_folder=out)].count("skipped") == 3


def test_killed_before_and_after_a_result_was_placed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the journal says is synced first, so the file itself decides whether the picture is finished."""
    out = tmp_path / "out"
    jobs = plan_jobs([folder / "0.png", folder / "1.png"], out)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rasr.images.output.write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            run(jobs, journal_folder=out)
    assert [path.name for path in out.iterdir()] == ["report.jsonl"]
    assert [kind(one) for one in run(jobs[:1], journal_folder=out)] == ["done"]
    whole = (out / "0_rasr.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("rasr.files.sync_folder", killed)  # the file is in its place, and nothing after it is done
        with pytest.raises(KeyboardInterrupt):
            run(jobs, journal_folder=out)
    assert [kind(one) for one in run(jobs, journal_folder=out)] == ["skipped", "skipped"]
    assert (out / "0_rasr.png").read_bytes() == whole


def test_earlier_results_tell_what_they_were_made_from(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = plan_jobs([folder / "0.png", folder / "1.png"], out)
    first = run(jobs, journal_folder=out)[0].to_json()
    second = run(jobs, journal_folder=out)[0].to_json()
    assert second["notes"] == [*first["notes"], "Finished in an earlier run."]
    for key in ("input", "output", "references", "settings", "error"):
        assert second[key] == first[key]
    assert second["timings"].keys() == first["timings"].keys()


def test_an_input_that_vanishes_changes_or_cannot_be_read_is_named_and_the_rest_goes_on(
    local: Make, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 6)).save(folder / "2.png")
    jobs = measure_jobs(plan_jobs([folder], tmp_path / "out"))

    def fail(call: int, tiles: Any) -> BaseException | None:
        if call == 0:
            Image.new("RGB", (8, 6), "red").save(folder / "0.png")  # while it is being restored
            (folder / "1.png").unlink()  # before it is begun
        return OSError(5, "Input/output error") if call == 1 else None

    outcomes = run(jobs, restorer=Restorer(local(fail=fail)), journal_folder=tmp_path / "out")
    assert [kind(one) for one in outcomes] == ["failed", "failed", "failed", "done"]
    assert "0.png: changed while it was restored" in str(outcomes[0].error)
    assert "1.png" in str(outcomes[1].error)
    assert "2.png: Input/output error" in str(outcomes[2].error)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["3_rasr.png", "report.jsonl"]
    left = plan_jobs([folder], tmp_path / "out")
    again = run(left, restorer=Restorer(local()), journal_folder=tmp_path / "out")
    assert [kind(one) for one in again] == ["done", "done", "skipped"]


def test_a_reference_that_cannot_be_read_fails_its_picture_by_name(local: Make, folder: Path, tmp_path: Path) -> None:
    reference = folder / "reference.png"
    Image.new("RGB", (8, 6)).save(reference)
    settings = Settings(size=TargetSize(scale=2), reference=(reference,), candidates=0)
    generator = local(uses_reference=True, fail=lambda *_: reference.write_bytes(b"") or None)
    jobs = plan_jobs([folder / "0.png", folder / "1.png"], tmp_path / "out")
    first, second = run(jobs, settings, restorer=Restorer(generator))
    assert first.error is None
    assert isinstance(second.error, PictureError)
    assert "1.png" in str(second.error)
    assert "reference.png" in str(second.error)


def test_leftovers_of_killed_runs_go_and_those_of_living_ones_stay(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".rasr-0123456789abcdef.tmp").write_bytes(b"half")
    with atomic_write(out / "other.bin") as file:
        file.write(b"x")
        (held,) = {path.name for path in out.iterdir()} - {".rasr-0123456789abcdef.tmp"}
        run(plan_jobs([folder / "0.png", folder / "1.png"], out), journal_folder=out)
        assert held in {path.name for path in out.iterdir()}
    assert sorted(path.name for path in out.iterdir()) == ["0_rasr.png", "1_rasr.png", "other.bin", "report.jsonl"]


def kind(outcome: Outcome) -> str:
    return "failed" if outcome.error else "done" if outcome.result else "skipped"


def run(
    jobs: list[Job],
    settings: Settings = TWICE,
    save: SaveOptions | None = None,
    *,
    restorer: Restorer | None = None,
    **more: Any,
) -> list[Outcome]:
    return list(run_batch(jobs, restorer or Restorer("bicubic"), settings, save, **more))


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

    def announce(*what: Any) -> Any:
        hear(*what)
        return hear

    list(run_batch(jobs, Restorer("bicubic"), TWICE, announce=announce))
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


def test_results_beside_their_inputs_are_never_inputs(folder: Path) -> None:
    (folder / "2.png").unlink()
    assert [kind(one) for one in run(plan_jobs([folder], folder), journal_folder=folder)] == ["done"] * 3
    assert [kind(one) for one in run(plan_jobs([folder], folder), journal_folder=folder)] == ["skipped"] * 3
    given = sorted(folder.glob("*.png"))  # as a shell gives them
    assert len(given) == 6
    assert [kind(one) for one in run(plan_jobs(given, folder), journal_folder=folder)] == ["skipped"] * 3
    (folder / "0.png").unlink()
    assert [job.input.name for job in plan_jobs([folder], folder)] == ["1.png", "3.png"]
    with pytest.raises(UsageError, match="results of earlier runs"):
        plan_jobs(sorted(folder.glob("*_rasr.png")), folder)
    (folder / "report.jsonl").unlink()
    with pytest.raises(UsageError, match=r"1\.png would become .*1_rasr\.png, which is .*1_rasr\.png"):
        plan_jobs([folder], folder)


@pytest.mark.parametrize("link", ["same", "symbolic", "hard", "case"])
def test_no_result_takes_the_place_of_another_input(tmp_path: Path, link: str) -> None:
    photos, out = tmp_path / "photos", tmp_path / "photos"
    photos.mkdir()
    (photos / "x.jpg").write_bytes(b"x")
    (photos / ("X_RASR.jpg" if link == "case" else "x_rasr.jpg")).write_bytes(b"mine")
    if link in {"symbolic", "hard"}:
        out = tmp_path / "out"
        out.mkdir()
        if link == "hard":
            (out / "x_rasr.jpg").hardlink_to(photos / "x_rasr.jpg")
        else:
            (out / "x_rasr.jpg").symlink_to(photos / "x_rasr.jpg")
    with pytest.raises(UsageError, match=r"(?i)x\.jpg would become .*x_rasr\.jpg, which is .*x_rasr\.jpg"):
        plan_jobs([photos], out)
    assert len(plan_jobs([photos], out, name="{stem}_new{ext}")) == 2
    (tmp_path / "ref").mkdir()
    (tmp_path / "ref/a_2.jpg").write_bytes(b"reference")
    job = Job(tmp_path / "a.jpg", tmp_path / "ref/a_2.jpg")
    with pytest.raises(UsageError, match=r"a_2\.jpg, which is .*ref/a_2\.jpg"):
        check_places([job], [tmp_path / "ref/a_2.jpg"])


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
    return kind(run(jobs, settings, journal_folder=out)[0])


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
    (out / "0_rasr.png").unlink()
    assert [resumed(folder, out, Settings()) for _ in range(2)] == ["done", "skipped"]


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


def test_options_that_are_new_leave_earlier_journals_good_where_they_are_not_used() -> None:
    restorer = Restorer("mini", device="cpu")
    usual = _determining(restorer, Settings(), SaveOptions())
    assert not {"candidates", "detail", "reduce"} & usual.keys()
    assert _determining(restorer, Settings(detail=0.7), SaveOptions())["detail"] == 0.7
    assert _determining(restorer, Settings(reduce=False), SaveOptions())["reduce"] is False


class Content:
    """Stands for what was read of a file."""


def broken(kept: list[weakref.ref[Any]]) -> PictureError:
    """An error with a cause, in whose frames a file's content is."""
    content = Content()
    kept.append(weakref.ref(content))
    try:
        _parse(content)
    except PictureError as error:
        return error
    raise AssertionError


def _parse(content: Content) -> None:
    try:
        int(f"{content}")
    except ValueError as error:
        raise PictureError("a.png: broken") from error


@pytest.mark.parametrize("fails", ["picture", "map"])
def test_failures_of_a_batch_keep_no_pictures(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (12, 9)).save(tmp_path / name)
    kept: list[weakref.ref[Any]] = []

    def fail(*_: object, **__: object) -> PictureError:
        error = broken(kept)
        if fails == "picture":
            raise error
        return error

    monkeypatch.setattr(batch, "do_job" if fails == "picture" else "draw_map", fail)
    jobs = plan_jobs([tmp_path], tmp_path / "out")
    outcomes = list(batch.Run(jobs, Restorer("bicubic"), Settings()).go())
    gc.collect()
    errors = [one.error if fails == "picture" else one.map_error for one in outcomes]
    assert [str(error).endswith("a.png: broken") for error in errors] == [True, True]
    assert [content() for content in kept] == [None, None]
