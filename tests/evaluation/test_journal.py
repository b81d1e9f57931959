"""The journal survives what interrupts it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasr.errors import OutputError
from rasr.evaluation.journal import Journal


def test_records_survive_and_the_last_one_wins(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.put("a", value=1)
    journal.put("a", value=2)
    assert Journal(tmp_path / "j").get("a") == {"key": "a", "value": 2}
    assert journal.get("b") is None


@given(st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_torn_last_line_costs_only_itself(tmp_path_factory: pytest.TempPathFactory, lost: int) -> None:
    path = tmp_path_factory.mktemp("j") / "j"
    journal = Journal(path)
    journal.put("a", value="ä" * 5)
    journal.put("b", value="b" * 40)
    path.write_bytes(path.read_bytes()[:-lost])
    resumed = Journal(path)
    assert resumed.get("a") is not None
    resumed.put("c", value=3)
    again = Journal(path)
    assert again.get("a") is not None
    assert again.get("c") == {"key": "c", "value": 3}


def test_keys_depend_on_every_part_and_on_nothing_else() -> None:
    key_of = Journal.key_of
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1})
    assert (
        len(
            {
                key_of("a"),
                key_of("b"),
                key_of("a", 1),
                key_of("a", "1"),
                key_of(["a"]),
            }
        )
        == 5
    )


def test_an_unwritable_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path / "missing" / "j").put("a", value=1)
