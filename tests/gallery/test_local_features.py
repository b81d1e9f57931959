"""The cache of local features: what is kept, what is made again, and what a fault of its file costs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import rasr.gallery.local_features as module
from rasr.gallery.local_features import FeatureStore
from rasr.memory import LruCache


class Maker:
    """Makes features, and counts how often."""

    def __init__(self, content: bytes = b"features") -> None:
        self.content, self.calls = content, 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.content


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Begin as a new process would, with nothing in memory."""

    def empty() -> None:
        monkeypatch.setattr(module, "_memory", LruCache[bytes](module.MEMORY_BYTES, len))

    empty()
    return empty


def rows(folder: Path) -> list[tuple[str, str, bytes]]:
    with closing(sqlite3.connect(folder / "features.db")) as database:
        return database.execute("SELECT photo, made_by, content FROM features ORDER BY photo, made_by").fetchall()


def test_features_are_made_once_and_found_by_the_next_process(tmp_path: Path, forget: Callable[[], None]) -> None:
    make = Maker()
    assert FeatureStore(tmp_path).get("photo", "xfeat 1", make) == b"features"
    assert FeatureStore(tmp_path).get("photo", "xfeat 1", make) == b"features"
    forget()
    assert FeatureStore(tmp_path).get("photo", "xfeat 1", make) == b"features"
    assert make.calls == 1
    assert rows(tmp_path) == [("photo", "xfeat 1", b"features")]


def test_another_photo_and_another_maker_have_their_own(tmp_path: Path, forget: Callable[[], None]) -> None:
    forget()
    store = FeatureStore(tmp_path)
    for photo, made_by, content in (("a", "1", b"a1"), ("b", "1", b"b1"), ("a", "2", b"a2")):
        assert store.get(photo, made_by, Maker(content)) == content
    assert rows(tmp_path) == [("a", "1", b"a1"), ("a", "2", b"a2"), ("b", "1", b"b1")]


@pytest.mark.parametrize("damage", ["noise", "empty", "another table", "content", "type"])
def test_a_damaged_file_costs_only_time(damage: str, tmp_path: Path, forget: Callable[[], None]) -> None:
    store, make, file = FeatureStore(tmp_path), Maker(), tmp_path / "features.db"
    store.get("photo", "1", make)
    if damage == "noise":
        file.write_bytes(os.urandom(9000))
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink() if damage == "another table" else None
        change = {
            "another table": "CREATE TABLE features (something INTEGER)",
            "content": "UPDATE features SET content = x'00'",
            "type": "UPDATE features SET content = 'text'",
        }[damage]
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(change)
    forget()
    assert store.get("photo", "1", make) == b"features"
    assert make.calls == 2
    forget()
    assert store.get("photo", "1", make) == b"features", "whether or not it could be kept"


def test_after_noise_the_file_is_begun_anew(tmp_path: Path, forget: Callable[[], None]) -> None:
    (tmp_path / "features.db").write_bytes(os.urandom(9000))
    store, make = FeatureStore(tmp_path), Maker()
    for photo in ("a", "b", "c"):
        store.get(photo, "1", make)
        forget()
    store.get("c", "1", make)
    assert make.calls == 3
    assert [row[0] for row in rows(tmp_path)][-1] == "c"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A features.db that another process writes to."""
    FeatureStore(tmp_path).get("first", "1", Maker())
    with closing(sqlite3.connect(tmp_path / "features.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield tmp_path


def test_a_file_that_another_process_writes_is_not_waited_for_long(
    locked: Path, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    forget()
    make = Maker()
    assert FeatureStore(locked).get("second", "1", make) == b"features"
    assert make.calls == 1


def test_a_folder_that_cannot_be_written_to_costs_only_time(
    tmp_path: Path, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, make = FeatureStore(tmp_path), Maker()
    store.get("first", "1", make)
    connect = sqlite3.connect
    monkeypatch.setattr(
        module.sqlite3, "connect", lambda file, **more: connect(f"file:{file}?mode=ro", uri=True, **more)
    )  # as on a read-only disk: root may write anywhere
    forget()
    assert store.get("first", "1", make) == b"features"
    assert make.calls == 1, "what is there is read"
    assert store.get("second", "1", make) == b"features"
    assert make.calls == 2
    forget()
    store.get("second", "1", make)
    assert make.calls == 3


def test_without_a_folder_features_are_held_in_memory(
    tmp_path: Path, forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    forget()
    make = Maker()
    for folder in (None, None, tmp_path / "gone"):
        FeatureStore(folder).get("photo", "1", make)
    assert make.calls == 1
    assert list(tmp_path.iterdir()) == []
