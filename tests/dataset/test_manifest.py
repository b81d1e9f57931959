"""Manifests: what is written reads back, whatever the names and titles of photos hold."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from rasr.dataset.manifest import Record, read_manifest, write_manifest


@pytest.mark.parametrize("word", ["a\u2028b", "a\x85b", "a\nb", "a\x1b[31mb", "a\u202eb", "Зебра 👩\u200d🔬"])
def test_any_name_is_one_line_and_reads_back(tmp_path: Path, word: str) -> None:
    numbers = {"bytes": 10, "width": 4, "height": 3, "deviation": 0.5}
    record = Record(**{field.name: numbers.get(field.name, word) for field in fields(Record)} | {"review": "keep"})
    write_manifest(tmp_path, [record, record])
    assert read_manifest(tmp_path) == [record, record]
    assert len((tmp_path / "manifest.jsonl").read_text("utf-8").splitlines()) == 2
