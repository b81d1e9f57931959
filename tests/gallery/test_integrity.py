"""Damage is reported, never answered."""

from __future__ import annotations

import os
import random
import resource
import shutil
from pathlib import Path

import pytest

from rasr.errors import GalleryCorrupt, GalleryError, UsageError
from rasr.gallery import Gallery, store
from rasr.gallery import writer as writer_module
from rasr.gallery.pointer import NAME, read_pointer
from rasr.gallery.table import HINT
from tests.gallery.standin import ColourLayout, make_picture


@pytest.fixture
def rich(gallery: Gallery, photos: Path) -> Gallery:
    """A gallery with several commits, a deletion and a superseded table."""
    gallery.add(make_picture(photos / "second.png", 50))
    with gallery._store.writing() as writer:
        writer.compact()
    gallery.add(make_picture(photos / "third.png", 51))
    gallery.remove(category="dog")
    gallery.add([make_picture(photos / "cat" / "fourth.png", 52), photos / "cat"], category="felidae")
    return gallery


def current_files(gallery: Gallery) -> list[Path]:
    return [gallery.path / NAME, *(gallery.path / name for name in read_pointer(gallery.path).files)]


def damage(path: Path, rng: random.Random, others: list[Path]) -> None:
    content = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "flip", "flip", "truncate", "zero", "grow", "remove", "swap"])
    if kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del content[rng.randrange(len(content)) :]
    elif kind == "zero":
        start = rng.randrange(len(content))
        if not any(content[start : start + 64]):
            content[start] ^= 1
        content[start : start + 64] = (
            bytes(len(content[start : start + 64])) if any(content[start : start + 64]) else b"x"
        )
    elif kind == "grow":
        content += rng.randbytes(rng.randint(1, 100))
    elif kind == "swap":
        other = next(one for one in rng.sample(others, len(others)) if one.read_bytes() != content)
        content = bytearray(other.read_bytes())
    if kind == "remove":
        path.unlink()
    else:
        status = path.stat()
        path.write_bytes(content)
        if rng.random() < 0.5:  # what a failing disk does: content changes, time stamps do not
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_hundreds_of_random_damages_are_never_silent(rich: Gallery, photos: Path) -> None:
    query = photos / "07.png"
    expected = rich.search(query, 50)
    assert rich.verify().ok
    files = current_files(rich)
    assert len(files) > 8
    rng = random.Random(3)
    for number in range(400):
        path = rng.choice(files)
        whole = path.read_bytes()
        damage(path, rng, files)
        report = Gallery(rich.path, encoder=ColourLayout()).verify()
        assert not report.ok, f"damage {number} to {path.name} was not reported"
        assert path in {problem.path for problem in report.problems}
        with pytest.raises(GalleryCorrupt) as caught:
            Gallery(rich.path, encoder=ColourLayout()).search(query)
        assert str(rich.path) in str(caught.value)
        assert "rasr gallery" in str(caught.value)
        path.write_bytes(whole)
    assert Gallery(rich.path, encoder=ColourLayout()).search(query, 50) == expected


def test_every_byte_of_the_pointer_counts(gallery: Gallery, photos: Path) -> None:
    path = gallery.path / NAME
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        for bit in (position % 8, (position + 5) % 8):
            content = bytearray(whole)
            content[position] ^= 1 << bit
            path.write_bytes(content)
            with pytest.raises(GalleryCorrupt):
                read_pointer(gallery.path)
    path.write_bytes(whole)
    assert gallery.verify().ok


def test_nothing_is_added_to_a_damaged_gallery(gallery: Gallery, photos: Path, encoder: ColourLayout) -> None:
    victim = next(path for path in current_files(gallery) if "data" in path.parts)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    victim.write_bytes(content)
    make_picture(photos / "late.png", 60)
    with pytest.raises(GalleryCorrupt, match="rasr gallery verify"):
        Gallery(gallery.path, encoder=encoder).add(photos)


def test_a_lost_pointer_is_damage_and_not_an_empty_gallery(gallery: Gallery, photos: Path) -> None:
    (gallery.path / NAME).unlink()
    fresh = Gallery(gallery.path, encoder=ColourLayout())
    assert [problem.kind for problem in fresh.verify().problems] == ["pointer"]
    with pytest.raises(GalleryCorrupt):
        fresh.add(photos)


def test_verify_reports_missing_and_changed_photos(gallery: Gallery, photos: Path) -> None:
    (photos / "cat" / "00.png").unlink()
    make_picture(photos / "cat" / "01.png", 99, (60, 40))
    same_size = photos / "dog" / "02.png"
    content = bytearray(same_size.read_bytes())
    content[-20] ^= 1
    same_size.write_bytes(content)
    kinds = {problem.path.name: problem.kind for problem in gallery.verify().problems}
    assert kinds == {"00.png": "photo-missing", "01.png": "photo-changed"}
    kinds = {problem.path.name: problem.kind for problem in gallery.verify(deep=True).problems}
    assert kinds == {"00.png": "photo-missing", "01.png": "photo-changed", "02.png": "photo-changed"}


def test_rows_that_no_longer_match_their_checksum_are_named(gallery: Gallery) -> None:
    # A fault below the file checksums: the table was rewritten by something else, and sealed.
    with gallery._store.writing() as writer:
        rows = gallery._store.read(vectors=True)[1]
        paths = rows.column("path").to_pylist()
        swapped = rows.set_column(1, "path", [[paths[1], paths[0], *paths[2:]]])
        writer.commit(swapped, rows.column("id").to_pylist())
    report = Gallery(gallery.path, encoder=ColourLayout()).verify()
    assert {str(problem.path) for problem in report.problems if problem.kind == "row"} == set(paths[:2])


def test_leftovers_are_reported_harmless_and_swept(gallery: Gallery, photos: Path) -> None:
    table = gallery.path / f"{read_pointer(gallery.path).table}.lance"
    (table / "data" / "abandoned.lance").write_bytes(b"half a file")
    shutil.copytree(table, gallery.path / "photos-000009.lance")
    report = gallery.verify()
    assert report.ok
    assert f"{table.name}/data/abandoned.lance" in report.leftovers
    gallery.add(make_picture(photos / "late.png", 61))
    assert gallery.verify().leftovers == []
    assert not (gallery.path / "photos-000009.lance").exists()


def test_superseded_tables_go_after_the_grace(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Gallery(gallery.path, encoder=ColourLayout())
    with gallery._store.writing() as writer:
        old = writer.pointer
        writer.compact()
    assert reader._store._rows(old, vectors=True).num_rows == 12  # a reader of the old table is not disturbed
    with gallery._store.writing():
        assert (gallery.path / f"{old.table}.lance").exists()
    monkeypatch.setattr(store, "GRACE_S", 0.0)
    with gallery._store.writing():
        assert not (gallery.path / f"{old.table}.lance").exists()
    assert gallery.verify().ok


def test_lance_keeps_no_mutable_hint_behind(rich: Gallery) -> None:
    assert list(rich.path.rglob(HINT)) == []


def test_a_newer_format_is_refused_with_the_reason(gallery: Gallery) -> None:
    path = gallery.path / NAME
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(GalleryCorrupt, match="Upgrade rasr"):
        gallery.info()


def test_a_full_disk_changes_nothing(gallery: Gallery, photos: Path) -> None:
    before = {photo.id for photo in gallery.list()}
    for number in range(40):
        make_picture(photos / "more" / f"{number}.png", 2000 + number)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))  # no file may grow beyond: what a full disk looks like
    try:
        with pytest.raises(GalleryError, match="as it was before"):
            gallery.add(photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    fresh = Gallery(gallery.path, encoder=ColourLayout())
    assert {photo.id for photo in fresh.list()} == before
    assert fresh.verify().ok
    assert fresh.add(photos).added == 40
    assert fresh.verify().leftovers == []


def test_a_rewrite_that_does_not_fit_costs_nothing(
    gallery: Gallery, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_space(*arguments: object) -> None:
        (gallery.path / "photos-000002.lance").mkdir()
        raise OSError("No space left on device")

    monkeypatch.setattr(writer_module, "COMPACT_COMMITS", 0)
    monkeypatch.setattr(writer_module, "create_table", no_space)
    assert gallery.add(make_picture(photos / "late.png", 61)).added == 1
    assert "No space left" in caplog.text
    assert not (gallery.path / "photos-000002.lance").exists()
    assert len(Gallery(gallery.path, encoder=ColourLayout()).list()) == 13
    assert gallery.verify().ok


def test_a_gallery_that_cannot_be_created(tmp_path: Path, photos: Path, encoder: ColourLayout) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(GalleryError, match="cannot be created"):
        Gallery(tmp_path / "file" / "gallery", encoder=encoder).add(photos)


def test_what_a_user_writes_finds_the_photos_meant(gallery: Gallery, photos: Path) -> None:
    def left() -> set[str]:
        return {photo.path.name for photo in gallery.list()}

    photo = next(photo for photo in gallery.list() if photo.path.name == "00.png")
    assert [one.path.name for one in gallery.remove([photo.id[:10]])] == ["00.png"]
    assert [one.path.name for one in gallery.remove([photos / "dog" / "02.png"])] == ["02.png"]
    assert [one.path.name for one in gallery.remove([photos / "bird"])] == ["06.png", "04.png", "05.png"]
    assert [one.path.name for one in gallery.remove(["0[78].*"])] == ["07.png", "08.png"]
    assert [one.path.name for one in gallery.remove([f"{photos}/*/01.png"])] == ["01.png"]
    (photos / "cat" / "09.png").unlink()
    assert [one.path.name for one in gallery.remove(missing=True)] == ["09.png"]
    assert [one.path.name for one in gallery.remove(category="dog")] == ["03.png", "10.png"]
    assert gallery.remove(["nothing.png"]) == []
    assert left() == {"11.png"}
    gallery.remove(["*"])
    assert left() == set()
    assert gallery.search(photos / "11.png") == []
    with pytest.raises(UsageError):
        gallery.remove()
    assert gallery.verify().ok
    assert gallery.add(photos).added == 11
