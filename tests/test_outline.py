"""The package's outline: files of a readable size, data flowing one way, no two files that import each other."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def outline(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("outline")


@pytest.fixture
def files(outline: ModuleType) -> dict[Path, Any]:
    return outline.read_tree(ROOT / "src" / "rasr")  # type: ignore[no-any-return]


def test_no_room_imports_from_downstream(outline: ModuleType, files: dict[Path, Any]) -> None:
    assert outline.arrows_up(files) == []


def test_no_files_import_each_other_in_a_circle(outline: ModuleType, files: dict[Path, Any]) -> None:
    assert outline.cycles(files) == []


def test_files_are_neither_long_nor_scraps(outline: ModuleType, files: dict[Path, Any]) -> None:
    assert [file.path for file in files.values() if file.lines > outline.LARGEST] == []
    assert sum(file.small for file in files.values()) <= outline.BARS["files of ≤ 60 lines, without __init__"]


def test_arrows_and_circles_are_found_wherever_an_import_stands(outline: ModuleType, tmp_path: Path) -> None:
    sources = {
        "__init__.py": "",
        "images/__init__.py": "",
        "images/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rasr.images.b import b\n",
        "images/b.py": "def b():\n    import rasr.images.a\n    from rasr.gallery import store\n",
        "gallery/__init__.py": "from rasr.gallery.store import Store\n",
        "gallery/store.py": "from rasr.images import a\n",
    }
    for name, text in sources.items():
        (tmp_path / "rasr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rasr" / name).write_text(text)
    files = outline.read_tree(tmp_path / "rasr")
    images, store = Path("rasr/images"), Path("rasr/gallery/store.py")
    assert outline.arrows_up(files) == [(images / "b.py", store)]
    assert outline.cycles(files) == [[store, images / "a.py", images / "b.py"]]
