"""Galleries written by earlier versions open, answer as they did, and are brought over to the current format."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest

from rasr.errors import GalleryCorrupt, GalleryError, install_command
from rasr.gallery import Gallery, is_gallery
from rasr.gallery.database import Database
from rasr.gallery.store import MARKER
from tests.gallery.standin import ColourLayout, make_picture
from tests.gallery.test_crash import killed_at

FORMATS = sorted((Path(__file__).parent / "formats").glob("format-*"))


def opened(folder: Path) -> Gallery:
    return Gallery(folder, encoder=ColourLayout())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A gallery of format 1, made with LanceDB by the version that wrote it."""
    pytest.importorskip("lancedb")
    shutil.copytree(FORMATS[0], tmp_path / "gallery")
    return tmp_path / "gallery"


def test_the_current_format_is_kept() -> None:
    assert FORMATS[-1].name == f"format-{Database.FORMAT}"


@pytest.mark.parametrize("kept", FORMATS, ids=lambda path: path.name)
def test_a_kept_gallery_opens_and_grows(kept: Path, tmp_path: Path) -> None:
    if kept.name == "format-1":
        pytest.importorskip("lancedb")
    shutil.copytree(kept, tmp_path / "gallery")
    gallery = opened(tmp_path / "gallery")
    assert is_gallery(tmp_path / "gallery")
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
    assert gallery.info().photos == len(gallery) == 3
    make_picture(pictures / "new.png", 9)
    assert gallery.upgrade() == (kept.name == "format-1")
    report = gallery.add(pictures)
    assert (report.added, report.unchanged) == (1, 3)
    assert gallery.verify(deep=True).ok
    assert gallery.upgrade() is False


def test_upgrading_changes_neither_photos_nor_scores_and_embeds_nothing(old: Path) -> None:
    gallery, query = opened(old), old / "pictures" / "cat" / "a.png"
    vector = gallery.embedding_of(query)
    before = gallery.list(), gallery.search(vector, 5), gallery.info()
    encoder = ColourLayout()
    assert Gallery(old, encoder=encoder).upgrade()
    assert encoder.embedded == 0
    after = opened(old)
    assert (after.list(), after.search(vector, 5)) == before[:2]
    assert (after.info().created, after.info().fingerprint) == (before[2].created, before[2].fingerprint)
    assert after.info().version != before[2].version
    assert sorted(path.name for path in old.iterdir()) == [Database.NAME, MARKER, "gallery.lock", "pictures"]
    assert json.loads((old / MARKER).read_text()) == {"format": 2, "database": Database.NAME}
    assert after.verify(deep=True).ok
    assert gallery.search(vector, 5) == before[1], "an object that was open before"


def test_a_gallery_of_format_1_is_read_and_not_changed(old: Path) -> None:
    make_picture(old / "pictures" / "new.png", 9)
    before = sorted(path for path in old.rglob("*") if path.is_file())
    for change in (lambda: opened(old).add(old / "pictures"), lambda: opened(old).remove(["*"])):
        with pytest.raises(GalleryError, match=r"format 1.*rasr gallery upgrade"):
            change()
    after = sorted(path for path in old.rglob("*") if path.is_file() and path.name != "gallery.lock")
    assert after == before


def test_without_lancedb_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FORMATS[0], tmp_path / "gallery")
    monkeypatch.setitem(sys.modules, "lancedb", None)
    gallery = opened(tmp_path / "gallery")
    assert len(gallery) == 3
    for use in (gallery.list, gallery.info, gallery.upgrade, lambda: gallery.search(FORMATS[0] / "pictures/cat/a.png")):
        with pytest.raises(GalleryError) as caught:
            use()
        assert install_command("lance") in str(caught.value)
        assert f"rasr gallery upgrade {tmp_path / 'gallery'}" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "gallery" / Database.NAME).exists()


@pytest.mark.parametrize(
    ("function", "moment", "done"),
    [
        ("rasr.gallery.database:Database.create", "before", False),
        ("rasr.gallery.database:Database.create", "after", False),
        ("pathlib:Path.rename", "before", False),
        ("pathlib:Path.rename", "after", True),
        ("rasr.gallery.store:write_bytes", "after", True),
        ("shutil:rmtree", "before", True),
        ("shutil:rmtree", "after", True),
    ],
)
def test_killed_while_upgrading(function: str, moment: str, done: bool, old: Path) -> None:
    expected = opened(old).list()
    killed_at(old, "upgrade", function, moment)
    assert opened(old).list() == expected
    assert opened(old).upgrade() is not done
    assert opened(old).list() == expected
    assert opened(old).verify(deep=True).ok
    assert sorted(path.name for path in old.iterdir()) == [Database.NAME, MARKER, "gallery.lock", "pictures"]


def test_a_damaged_gallery_of_format_1_is_neither_read_nor_brought_over(old: Path) -> None:
    files = [path for path in old.rglob("*") if path.is_file() and "pictures" not in path.parts]
    assert len(files) > 5
    rng = random.Random(1)
    for number in range(60):
        path = rng.choice(files) if number % 3 else old / MARKER
        whole = path.read_bytes()
        content = bytearray(whole)
        if number % 4:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        assert not opened(old).verify().ok
        for use in (opened(old).list, opened(old).upgrade):
            with pytest.raises(GalleryCorrupt) as caught:
                use()
            assert len(str(caught.value).splitlines()) == 1
        path.write_bytes(whole)
    (old / MARKER).unlink()
    with pytest.raises(GalleryCorrupt):
        opened(old).upgrade()


def test_an_empty_gallery_of_format_1_is_brought_over(old: Path) -> None:
    """Made, and never added to: there is no table yet."""
    values = json.loads((old / MARKER).read_text())
    del values["checksum"]
    values |= {"generation": 0, "version": 0, "photos": 0, "files": {}}
    from rasr.gallery.lance_format import xxhash

    values["checksum"] = xxhash.xxh3_64_hexdigest(json.dumps(values, ensure_ascii=False).encode())
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in values.items())
    (old / MARKER).write_text(f"{{\n{lines}\n}}\n")
    shutil.rmtree(old / "photos-000001.lance")
    assert opened(old).list() == []
    assert opened(old).upgrade()
    assert opened(old).add(old / "pictures").added == 3
