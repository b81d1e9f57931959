"""RASR's own folder, atomic writes, hashes, and journals that survive whatever stops the writer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from rasr.errors import ConfigError, OutputError, OutputExists, shown
from rasr.files import (
    JsonLines,
    atomic_write,
    cache_dir,
    check_writable,
    hash_json,
    home,
    json_text,
    offline,
    sha256_file,
    write_bytes,
    xxh3_file,
)
from rasr.object_path import expand


def test_rasr_home_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert home() == tmp_path / "mine"
    assert not home().exists()
    assert cache_dir("models") == tmp_path / "mine" / "models"
    assert cache_dir("models").is_dir()


def test_xdg_then_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RASR_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "rasr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert home() == Path.home() / ".cache" / "rasr"


def test_a_user_without_a_home_folder_is_told_where_to_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RASR_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it does for such a user
    with pytest.raises(ConfigError, match="RASR_HOME"):
        home()


def test_a_tilde_without_a_user_is_a_name(tmp_path: Path) -> None:
    assert expand(Path("~nobody-of-this-name/photo.jpg")) == Path("~nobody-of-this-name/photo.jpg")
    assert expand(Path("~/photo.jpg")) == Path.home() / "photo.jpg"
    assert expand(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["RASR_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(("value", "expected"), [("1", True), ("TRUE", True), ("0", False), ("", False)])
def test_offline(monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: bool) -> None:
    monkeypatch.delenv("RASR_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(name, value)
    assert offline() is expected


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = write_bytes(b"old", tmp_path / "a.bin")

    def fail_halfway() -> None:
        with atomic_write(path, overwrite=True) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"

    def be_overtaken() -> None:
        with atomic_write(path) as file:
            file.write(b"ours")
            path.write_bytes(b"theirs")

    with pytest.raises(OutputExists, match="exists already"):
        be_overtaken()
    assert path.read_bytes() == b"theirs"


def test_checking_an_output_opens_nothing_for_good(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        check_writable(tmp_path / "a.png")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_system_name_the_file_and_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x\.bin: cannot be written"):
        write_bytes(b"", tmp_path / "missing" / "x.bin")
    with pytest.raises(OutputError, match="does not exist"):
        check_writable(tmp_path / "missing" / "x.bin")


@given(st.binary(max_size=300))
def test_hashes_are_those_of_the_content(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("hash") / "f"
    path.write_bytes(content)
    assert sha256_file(path) == hashlib.sha256(content).hexdigest()
    assert xxh3_file(path) == xxhash.xxh3_128_hexdigest(content)


def test_the_order_of_keys_does_not_change_a_hash() -> None:
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1, "b": [3]})


_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
_NUMBERS = st.integers(-(2**63), 2**64 - 1)


@given(st.lists(st.dictionaries(_TEXTS, _NUMBERS | _TEXTS), max_size=5), st.data())
def test_a_journal_cut_anywhere_reads_what_was_whole_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, int | str]], data: st.DataObject
) -> None:
    journal = JsonLines(tmp_path_factory.mktemp("journal") / "j.jsonl")
    for entry in entries:
        journal.append(entry)
    assert list(journal.read()) == entries
    content = journal.path.read_bytes() if entries else b""
    cut = data.draw(st.integers(0, len(content)))
    journal.path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    kept = list(journal.read())
    assert kept in (entries[:whole], entries[: whole + 1])  # a line that lacks only its line feed is whole
    journal.append({"last": 1})
    assert list(journal.read()) == [*kept, {"last": 1}]


def test_a_journal_leaves_out_what_is_not_its_own(tmp_path: Path) -> None:
    journal = JsonLines(tmp_path / "j.jsonl")
    journal.path.write_bytes(b'[1]\n"x"\n{"a": 1}\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"b": 2}\n')
    assert list(journal.read()) == [{"a": 1}, {"b": 2}]


VALUES = st.recursive(
    st.none() | st.text(st.characters(exclude_categories=[])) | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_text_reads_back_and_is_one_printable_line(value: object) -> None:
    line = json_text(value)
    assert json.loads(line.encode()) == value
    assert shown(line) == line
    assert json.loads(json_text(value, indent=1).encode()) == value


def test_a_missing_journal_is_empty(tmp_path: Path) -> None:
    assert list(JsonLines(tmp_path / "none.jsonl").read()) == []
