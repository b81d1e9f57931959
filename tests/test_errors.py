"""Names and messages are fit to be printed, and nothing that reads well is changed."""

from __future__ import annotations

import os
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from rasr.errors import shown


def test_what_would_not_print_is_escaped() -> None:
    assert shown("a\x1b[31m\x07b") == r"a\x1b[31m\x07b"
    assert shown("one\ntwo\tthree\r") == r"one\ntwo\tthree\r"
    assert shown("a\u2028b\u2029c\x85d\x9be\x7f") == r"a\u2028b\u2029c\x85d\x9be\x7f"
    assert shown("photo\u202egpj.exe") == r"photo\u202egpj.exe", "a mark that turns the direction of writing"
    assert shown(os.fsdecode(b"caf\xe9.png")) == r"caf\xe9.png"
    assert shown("\ud83d") == r"\ud83d"


def test_letters_of_all_scripts_stay() -> None:
    name = "Зебра 斑马 café 👩\u200d🔬 a\u202fm [red].png"
    assert shown(name) == name


@given(st.text())
def test_a_shown_text_is_one_line_of_utf8_without_control_characters(text: str) -> None:
    line = shown(text)
    assert line.encode().decode() == line
    assert len(line.splitlines()) <= 1
    assert not any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in line)
    assert shown(line) == line
