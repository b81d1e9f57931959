"""The first look at what is finished: by size and time, by content where those are others, over all journals."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import rasr.restoration.journal as module
from rasr.files import xxh3_file
from rasr.restoration import BatchOptions, Outcome, Restorer, Settings, Shard, TargetSize, plan_jobs, run_batch
from rasr.restoration.journal import Journal, is_journal, journal_name, stamp_facts

TWICE = Settings(size=TargetSize(scale=2))
LONG_AGO = 1_600_000_000_123_456_789


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures that nobody has touched for a while."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        path = tmp_path / f"in/{number}.png"
        Image.new("RGB", (8, 6), (40 * number, 0, 0)).save(path)
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return tmp_path / "in"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that the look reads."""
    names: list[str] = []

    def reading(path: Path) -> str:
        names.append(path.name)
        return xxh3_file(path)

    monkeypatch.setattr(module, "xxh3_file", reading)
    return names


def restored(photos: Path, **options: Any) -> str:
    """What a run does: d for done, s for skipped, f for failed, in order."""
    out = photos.parent / "out"
    jobs = plan_jobs([photos], out)
    outcomes = run_batch(jobs, Restorer("bicubic"), TWICE, options=BatchOptions(**options), journal_folder=out)
    return "".join(map(kind, outcomes))


def kind(outcome: Outcome) -> str:
    return "f" if outcome.error else "s" if outcome.earlier else "d"


def entries(photos: Path) -> list[dict[str, Any]]:
    lines = (photos.parent / "out/report.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_what_nobody_touched_is_not_read_again(photos: Path, read: list[str]) -> None:
    assert restored(photos) == "ddd"
    assert restored(photos) == "sss"
    assert read == []
    assert len(entries(photos)) == 3
    assert restored(photos, verify=True) == "sss"
    assert sorted(read) == ["0.png", "0_rasr.png", "1.png", "1_rasr.png", "2.png", "2_rasr.png"]
    assert len(entries(photos)) == 3, "nothing new to note"


def test_another_time_with_the_same_content_is_read_once_and_nothing_is_redone(photos: Path, read: list[str]) -> None:
    assert restored(photos) == "ddd"
    os.utime(photos / "1.png", ns=(LONG_AGO + 5, LONG_AGO + 5))
    os.utime(photos.parent / "out/2_rasr.png", ns=(LONG_AGO, LONG_AGO))
    assert restored(photos) == "sss"
    assert read == ["1.png", "1_rasr.png", "2.png", "2_rasr.png"]
    assert [entry["output"] for entry in entries(photos)[3:]] == ["1_rasr.png", "2_rasr.png"]
    read.clear()
    assert restored(photos) == "sss"
    assert read == [], "it was noted"


def test_a_change_of_the_same_size_is_noticed(photos: Path) -> None:
    assert restored(photos) == "ddd"
    size = (photos / "1.png").stat().st_size
    Image.new("RGB", (8, 6), (41, 0, 0)).save(photos / "1.png")
    assert (photos / "1.png").stat().st_size == size
    assert restored(photos) == "sfs", "the result of another picture is in its place"


def test_a_file_changed_just_now_is_not_known_by_its_time(photos: Path, read: list[str]) -> None:
    """A second change in the same tick of the clock would leave size and time as they are."""
    now = time.time_ns()
    assert stamp_facts((10, now)) == {}
    assert stamp_facts((10, now - 3 * 10**9)) == {"input_bytes": 10, "input_mtime_ns": now - 3 * 10**9}
    (photos / "0.png").touch()
    assert restored(photos) == "ddd"
    assert "input_mtime_ns" not in entries(photos)[0]
    assert restored(photos) == "sss"
    assert read == ["0.png", "0_rasr.png"]


def test_a_result_carries_the_time_that_its_line_tells(photos: Path) -> None:
    assert restored(photos) == "ddd"
    for entry in entries(photos):
        assert (photos.parent / "out" / entry["output"]).stat().st_mtime_ns == entry["output_mtime_ns"]
        assert entry["input_mtime_ns"] == LONG_AGO


def test_all_journals_of_a_folder_are_read_and_one_is_written(photos: Path) -> None:
    assert restored(photos, shard="1/2") + restored(photos, shard="2/2") == "ddd"
    out = photos.parent / "out"
    assert sorted(path.name for path in out.glob("*.jsonl")) == ["report-1-of-2.jsonl", "report-2-of-2.jsonl"]
    assert restored(photos) == "sss"
    assert restored(photos, shard="1/3") + restored(photos, shard="2/3") + restored(photos, shard="3/3") == "sss"
    assert len(list(out.glob("*.jsonl"))) == 2


def test_names_of_journals_are_no_names_of_results() -> None:
    for name in ("report.jsonl", "REPORT.JSONL", "report-2-of-4.jsonl", journal_name(Shard(17, 128))):
        assert is_journal(name), name
    for name in ("report.json", "report-2.jsonl", "myreport.jsonl", "report-0-of-4.jsonl"):
        assert not is_journal(name), name


def test_a_line_for_the_same_bytes_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """What is held in memory does not grow with the number of runs."""
    line = {"output": "a.png", "input_hash": "a", "settings_hash": "b", "output_bytes": 1, "output_hash": "c"}
    other = {**line, "output_hash": "d"}
    lines = [json.dumps({**one, "output_mtime_ns": time}) for time in range(50) for one in (line, other)]
    (tmp_path / "report.jsonl").write_text("\n".join(lines) + "\n")
    journal = Journal(tmp_path)
    assert list(journal.results()) == [tmp_path / "a.png"]
    (held,) = journal._made.values()
    assert [(one.output_hash, one.output_changed) for one in held] == [("c", 49), ("d", 49)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry | {"input_bytes": "8", "input_mtime_ns": None},
        lambda entry: entry | {"output_mtime_ns": "now"},
        lambda entry: entry | {"output_mtime_ns": 0, "input_mtime_ns": 1.5},
        lambda entry: {name: entry[name] for name in entry if "mtime" not in name},
    ],
)
def test_lines_without_sound_times_are_judged_by_content(
    photos: Path, read: list[str], damage: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    assert restored(photos) == "ddd"
    lines = [json.dumps(damage(entry)) for entry in entries(photos)]
    (photos.parent / "out/report.jsonl").write_text("\n".join(lines) + "\n")
    assert restored(photos) == "sss"
    assert len(read) == 6
