"""Galleries written by earlier versions open, and answer as they did."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rasr.gallery import Gallery
from rasr.gallery.pointer import FORMAT
from tests.gallery.standin import ColourLayout, make_picture

FORMATS = sorted((Path(__file__).parent / "formats").glob("format-*"))


def test_the_current_format_is_kept() -> None:
    assert FORMATS[-1].name == f"format-{FORMAT}"


@pytest.mark.parametrize("kept", FORMATS, ids=lambda path: path.name)
def test_a_kept_gallery_opens_and_grows(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "gallery")
    gallery = Gallery(tmp_path / "gallery", encoder=ColourLayout())
    assert gallery.verify(deep=True).ok
    pictures = tmp_path / "gallery" / "pictures"
    assert [(photo.path, photo.category, photo.tags) for photo in gallery.list()] == [
        (pictures / "cat" / "a.png", "cat", ("kept",)),
        (pictures / "cat" / "b.png", "cat", ("kept",)),
        (pictures / "dog" / "c.png", "dog", ("kept",)),
    ]
    best = gallery.search(pictures / "dog" / "c.png", 1)[0]
    assert best.path == pictures / "dog" / "c.png"
    assert best.score == pytest.approx(1.0, abs=1e-5)
    make_picture(pictures / "new.png", 9)
    report = gallery.add(pictures)
    assert (report.added, report.unchanged) == (1, 3)
    assert gallery.verify(deep=True).ok
