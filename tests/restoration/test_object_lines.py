"""A journal at an address: its lines are kept, in order, by several writers at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rasr.files import JsonLines
from rasr.object_path import place
from rasr.restoration.object_lines import ObjectLines, open_lines
from tests.objects.servers import s3, s3_server

__all__ = ["s3", "s3_server"]


def test_a_file_keeps_its_own_journal(tmp_path: Path) -> None:
    assert type(open_lines(tmp_path / "report.jsonl")) is JsonLines


def test_lines_are_kept_in_order(s3: str) -> None:
    path = place(f"{s3}/out/report.jsonl")
    lines = open_lines(path)
    assert isinstance(lines, ObjectLines)
    assert list(lines.read()) == []
    for number in range(20):
        lines.append({"number": number, "name": "ü\n"})
    again = open_lines(path)
    places = list(again.places())
    assert [entry["number"] for _, entry in places] == list(range(20))
    assert again.at(places[7][0]) == {"number": 7, "name": "ü\n"}


def test_writers_are_in_no_others_way(s3: str) -> None:
    path = place(f"{s3}/out/report.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: open_lines(path).append({"number": number}), range(40)))
    assert sorted(entry["number"] for entry in open_lines(path).read()) == list(range(40))
