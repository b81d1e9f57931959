"""Names of results: mirrored trees, no surprises, no two pictures in one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rasr.errors import UsageError
from rasr.restoration import Job, plan_jobs


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
