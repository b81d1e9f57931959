"""A plain folder of photos used as a gallery."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasr.errors import GalleryNotFound, UsageError
from rasr.files import home
from rasr.gallery import Gallery, is_gallery, open_gallery_or_folder
from tests.gallery.standin import ColourLayout, make_picture


def test_a_folder_is_indexed_once_and_kept_fresh(photos: Path) -> None:
    before = sorted(photos.rglob("*"))
    encoder = ColourLayout()
    first = open_gallery_or_folder(photos, encoder=encoder)
    assert first.refreshed is not None
    assert first.refreshed.added == encoder.embedded == 12
    assert first.path.is_relative_to(home())
    assert sorted(photos.rglob("*")) == before
    assert first.search(photos / "07.png", 1)[0].path == photos / "07.png"

    second = open_gallery_or_folder(photos, encoder=encoder)
    assert second.refreshed is not None
    assert (second.refreshed.added, second.refreshed.unchanged, encoder.embedded) == (0, 12, 13)  # 1: the query

    make_picture(photos / "cat" / "new.png", 70)
    make_picture(photos / "cat" / "00.png", 71, (60, 40))
    (photos / "dog" / "02.png").unlink()
    third = open_gallery_or_folder(photos, encoder=encoder)
    assert third.refreshed is not None
    assert (third.refreshed.added, third.refreshed.removed) == (1, 1)
    assert [path.name for path in third.refreshed.updated] == ["00.png"]
    assert {photo.path for photo in third.list()} == set(photos.rglob("*.png"))
    assert third.verify(deep=True).ok


def test_encoders_do_not_share_an_index(photos: Path) -> None:
    first = open_gallery_or_folder(photos, encoder=ColourLayout())
    second = open_gallery_or_folder(photos, encoder=ColourLayout(version="2"))
    assert first.path != second.path


def test_a_gallery_is_opened_as_it_is(gallery: Gallery) -> None:
    opened = open_gallery_or_folder(gallery.path, encoder=ColourLayout())
    assert opened.refreshed is None
    assert len(opened) == 12
    assert is_gallery(gallery.path)


def test_what_is_neither_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    assert not is_gallery(tmp_path / "empty")
    for path in ("empty", "missing", "file.txt"):
        with pytest.raises(GalleryNotFound, match=path):
            open_gallery_or_folder(tmp_path / path, encoder=ColourLayout())


def test_an_index_in_memory_leaves_nothing_behind(photos: Path) -> None:
    gallery = Gallery(":memory:", encoder=ColourLayout())
    gallery.add(photos)
    folder = gallery.path
    assert gallery.search(photos / "07.png", 1)[0].path == photos / "07.png"
    gallery.close()
    assert not folder.exists()


def test_addresses_are_not_taken_for_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Gallery("s3://bucket/zoo/").address == "s3://bucket/zoo"
    for address, match in (("https://host/zoo", "gs://"), ("s3://", "BUCKET"), ("s3://key:secret@host/zoo", "without")):
        with pytest.raises(UsageError, match=match) as caught:
            Gallery(address)
        assert "secret" not in str(caught.value)
        with pytest.raises(UsageError, match=match):
            open_gallery_or_folder(address)
    assert list(tmp_path.iterdir()) == []
