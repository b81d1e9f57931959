"""Finished folders: taken by name, and refused when the names are another benchmark's."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasr.errors import BenchmarkError, UsageError
from rasr.evaluation import Job, load_method
from tests.evaluation.conftest import photo


def jobs(tmp_path: Path) -> list[Job]:
    (tmp_path / "out").mkdir(exist_ok=True)
    return [Job(name, tmp_path / "x", tmp_path / "out" / f"{name}.png", 16, 16, 4) for name in ("a", "b", "c")]


def fill(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        photo("coffee.png", (0, 0, 16, 16)).save(folder / name)


def test_pictures_are_taken_by_name_whatever_their_format(tmp_path: Path) -> None:
    fill(tmp_path / "done", "a.png", "b.webp", "c.jpg", "unrelated.png")
    method = load_method(f"mine=outputs:{tmp_path / 'done'}")
    assert method.info.name == "mine"
    assert [outcome.error for outcome in method.run(jobs(tmp_path), tmp_path)] == ["", "", ""]
    assert all(job.output.is_file() for job in jobs(tmp_path))


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "done", "a.png", "c.png")
    outcomes = list(load_method(f"outputs:{tmp_path / 'done'}").run(jobs(tmp_path), tmp_path))
    assert [(o.name, bool(o.error)) for o in outcomes] == [("a", False), ("b", True), ("c", False)]


def test_a_planted_sort_order_mismatch_is_refused(tmp_path: Path) -> None:
    """As many pictures as the benchmark has, in the same order, under other names."""
    fill(tmp_path / "done", "0001.png", "0002.png", "0003.png")
    with pytest.raises(BenchmarkError, match=r"'a' is missing and '0001' is there.*never by order"):
        list(load_method(f"outputs:{tmp_path / 'done'}").run(jobs(tmp_path), tmp_path))
    fill(tmp_path / "shifted", "b.png", "c.png", "d.png")
    with pytest.raises(BenchmarkError, match="'a' is missing and 'd' is there"):
        list(load_method(f"outputs:{tmp_path / 'shifted'}").run(jobs(tmp_path), tmp_path))


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "done", "a.png", "c.png")
    (tmp_path / "done" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    outcomes = list(load_method(f"outputs:{tmp_path / 'done'}").run(jobs(tmp_path), tmp_path))
    assert "cannot be read" in outcomes[1].error


def test_settings_change_with_the_files(tmp_path: Path) -> None:
    fill(tmp_path / "done", "a.png")
    before = load_method(f"outputs:{tmp_path / 'done'}").info.settings
    fill(tmp_path / "done", "b.png")
    assert load_method(f"outputs:{tmp_path / 'done'}").info.settings != before


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_method(f"outputs:{tmp_path / 'nowhere'}")
