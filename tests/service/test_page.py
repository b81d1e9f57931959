"""The page's files: third-party ones as listed, small enough, nothing inline, nothing from elsewhere."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib
import io
import json
import re
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "src" / "rasr" / "service" / "page"
OURS = sorted(path for path in PAGE.iterdir() if path.suffix in {".html", ".js", ".css", ".svg"})
LISTED = json.loads((PAGE / "third_party.json").read_text("utf-8"))
LOCK = json.loads((ROOT / "page" / "package-lock.json").read_text("utf-8"))["packages"]
LIMIT = 120_000


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "page"))
    return importlib.import_module("place")


def test_the_list_names_what_the_lock_file_locks() -> None:
    for entry in LISTED:
        locked = LOCK[f"node_modules/{entry['package']}"]
        assert (entry["version"], entry["licence"]) == (locked["version"], locked["license"])
        assert locked["integrity"].startswith("sha512-")
        assert "resolved" not in locked
    shipped = {entry["package"] for entry in LISTED if not entry.get("tests")}
    assert shipped == set(LOCK[""]["dependencies"])
    licences = {entry["package"] for entry in LISTED if entry["file"].startswith("LICENSE-")}
    assert licences == {entry["package"] for entry in LISTED}
    notice = (ROOT / "NOTICE").read_text("utf-8").casefold()
    assert all(name in notice for name in shipped)


def test_what_is_placed_is_what_is_listed(place: ModuleType) -> None:
    if place.missing():
        pytest.skip("the page's third-party files are not placed: make page")
    for entry in LISTED:
        if not entry.get("tests"):
            assert hashlib.sha256((PAGE / "third_party" / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    placed = {path.name for path in (PAGE / "third_party").iterdir()}
    assert placed == {entry["file"] for entry in LISTED if not entry.get("tests")}


def test_the_page_is_at_most_120_kb_compressed(place: ModuleType) -> None:
    if place.missing():
        pytest.skip("the page's third-party files are not placed: make page")
    files = [*OURS, *(PAGE / "third_party").glob("*.js")]
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in files) <= LIMIT


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_is_inline_and_nothing_comes_from_elsewhere(path: Path) -> None:
    text = path.read_text("utf-8")
    outside = re.findall(r"""https?://(?!www\.w3\.org/)[^\s"']+""", text)
    assert outside == []
    assert "eval(" not in text
    assert "new Function" not in text
    if path.suffix == ".html":
        assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", text) == []


def test_modules_import_what_is_there() -> None:
    for path in OURS:
        for name in re.findall(r'from "(\./[^"]+)"', path.read_text("utf-8") if path.suffix == ".js" else ""):
            file = name.removeprefix("./")
            listed = {f"third_party/{entry['file']}" for entry in LISTED}
            assert file in listed or (PAGE / file).is_file(), f"{path.name} imports {name}"


class Registry:
    """A registry of one package, as urlopen reads it."""

    def __init__(self, place: ModuleType, tmp_path: Path, patch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(f"package/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        self.archive = buffer.getvalue()
        self.asked: list[str] = []
        self.tmp_path = tmp_path
        digest = base64.b64encode(hashlib.sha512(self.archive).digest()).decode()
        lock = {"packages": {"node_modules/one": {"version": "1.0.0", "integrity": f"sha512-{digest}"}}}
        (tmp_path / "package-lock.json").write_text(json.dumps(lock))
        patch.setattr(place, "HERE", tmp_path)
        patch.setattr(place, "LIST", tmp_path / "list.json")
        patch.setattr(place, "FOLDERS", {False: tmp_path / "placed", True: tmp_path / "tests"})
        patch.setenv("npm_config_registry", "https://registry.example/npm")
        patch.setattr(place.urllib.request, "urlopen", self.open)

    def open(self, address: str, timeout: float) -> Any:
        self.asked.append(address)
        return io.BytesIO(self.archive)

    def list(self, *entries: dict[str, Any]) -> None:
        (self.tmp_path / "list.json").write_text(json.dumps(entries))


def entry(data: bytes, **more: Any) -> dict[str, Any]:
    return {"package": "one", "from": "a.mjs", "file": "a.js", "sha256": hashlib.sha256(data).hexdigest()} | more


def test_files_are_fetched_once_and_their_bare_imports_rewritten(
    place: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(place, tmp_path, monkeypatch, {"a.mjs": b'import{h}from"preact";'})
    written = b'import{h}from"./preact.js";'
    registry.list(entry(written))
    assert place.place() == [tmp_path / "placed" / "a.js"]
    assert (tmp_path / "placed" / "a.js").read_bytes() == written
    assert registry.asked == ["https://registry.example/npm/one/-/one-1.0.0.tgz"]
    assert place.place() == []
    assert len(registry.asked) == 1
    (tmp_path / "placed" / "a.js").write_bytes(b"changed")
    assert place.place() == [tmp_path / "placed" / "a.js"]


def test_another_archive_or_another_file_is_not_placed(
    place: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(place, tmp_path, monkeypatch, {"a.mjs": b"one"})
    registry.list(entry(b"two"))
    with pytest.raises(place.NotPlaced, match="has sha256"):
        place.place()
    registry.list(entry(b"one"))
    registry.archive += b"\0"
    with pytest.raises(place.NotPlaced, match="not the file that package-lock"):
        place.place()
    assert not (tmp_path / "placed").exists()


def test_parts_are_left_out_by_name(place: ModuleType) -> None:
    script = b"head!function(a){a.One=function(){}}(OpenSeadragon);!function(b){b.Two=class{}}(OpenSeadragon);tail"
    assert place._without(script, "Two") == b"head!function(a){a.One=function(){}}(OpenSeadragon);tail"
    with pytest.raises(place.NotPlaced, match="0 parts of a script define Three"):
        place._without(script, "Three")


def test_without_a_registry_it_is_said(
    place: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(place, tmp_path, monkeypatch, {"a.mjs": b"one"})
    registry.list(entry(b"one"))

    def refuse(address: str, timeout: float) -> Any:
        raise OSError("no route")

    monkeypatch.setattr(place.urllib.request, "urlopen", refuse)
    for options, status in ([], 1), (["--optional"], 0):
        monkeypatch.setattr(sys, "argv", ["place.py", *options])
        assert place.main() == status
        assert "could not be fetched: no route" in capsys.readouterr().err
