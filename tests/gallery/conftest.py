"""Small pictures, a fast encoder and galleries made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rasr.gallery import Gallery
from tests.gallery.standin import ColourLayout, make_picture


@pytest.fixture
def encoder() -> ColourLayout:
    return ColourLayout()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve pictures in three categories and one without."""
    root = tmp_path / "photos"
    for seed, folder in enumerate(
        ["cat", "cat", "dog", "dog", "bird/owl", "bird/owl", "bird", "", "", "cat", "dog", ""]
    ):
        make_picture(root / folder / f"{seed:02d}.png", seed)
    return root


@pytest.fixture
def gallery(tmp_path: Path, photos: Path, encoder: ColourLayout) -> Gallery:
    gallery = Gallery(tmp_path / "gallery", encoder=encoder)
    gallery.add(photos)
    return gallery


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[[], Gallery]:
    """The same gallery as another process would see it."""
    return lambda: Gallery(tmp_path / "gallery", encoder=ColourLayout())
