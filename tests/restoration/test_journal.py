"""report.jsonl: what is finished is known after a crash, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rasr.errors import OutputError
from rasr.restoration.journal import NAME, Journal, hash_file, hash_settings


@pytest.fixture
def done(tmp_path: Path) -> dict[str, Any]:
    output = tmp_path / "a_rasr.png"
    output.write_bytes(b"picture")
    return {"input": "a.png", "output": str(output), "error": None}


def test_finished_means_same_input_same_settings_and_a_whole_output(tmp_path: Path, done: dict[str, Any]) -> None:
    output = Path(done["output"])
    Journal(tmp_path, "S").record(done, "I")
    assert Journal(tmp_path, "S").is_finished(output, "I")
    assert not Journal(tmp_path, "S").is_finished(output, "other input")
    assert not Journal(tmp_path, "other settings").is_finished(output, "I")
    assert not Journal(tmp_path, "S").is_finished(tmp_path / "b.png", "I")
    output.write_bytes(b"cut")
    assert not Journal(tmp_path, "S").is_finished(output, "I")
    output.unlink()
    assert not Journal(tmp_path, "S").is_finished(output, "I")


def test_failures_are_recorded_and_not_finished(tmp_path: Path, done: dict[str, Any]) -> None:
    Journal(tmp_path, "S").record(done | {"output": None, "error": "damaged"}, None)
    assert json.loads((tmp_path / NAME).read_text())["error"] == "damaged"
    assert not Journal(tmp_path, "S").is_finished(Path(done["output"]), "I")


def test_a_torn_line_is_ignored_and_does_not_spoil_the_next(tmp_path: Path, done: dict[str, Any]) -> None:
    journal = Journal(tmp_path, "S")
    journal.record(done, "I")
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'not json\n[1]\n{"input": "b.png", "outp\xff')
    after = Journal(tmp_path, "S")
    assert after.is_finished(Path(done["output"]), "I")
    other = tmp_path / "c.png"
    other.write_bytes(b"c")
    after.record(done | {"output": str(other)}, "J")
    assert Journal(tmp_path, "S").is_finished(other, "J")


def test_a_journal_that_cannot_be_written_is_an_output_error(tmp_path: Path, done: dict[str, Any]) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path, "S").record(done, "I")


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 3_000_000)
    (tmp_path / "b").write_bytes(b"a" * 2_999_999 + b"b")
    assert hash_file(tmp_path / "a") != hash_file(tmp_path / "b")
    assert hash_settings({"a": 1, "b": 2}) == hash_settings({"b": 2, "a": 1}) != hash_settings({"a": 1, "b": 3})
