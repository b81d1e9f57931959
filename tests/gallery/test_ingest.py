"""Adding photos: what is new, known, moved, changed, doubled or broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from rasr.errors import EncoderMismatch, GalleryNotFound, PictureError
from rasr.gallery import Gallery
from rasr.gallery import ingest as ingest_module
from rasr.gallery.store import LocalStore
from tests.gallery.standin import ColourLayout, make_picture


def paths_of(gallery: Gallery) -> set[Path]:
    return {photo.path for photo in gallery.list()}


def test_adds_every_picture_with_its_folder_as_category(gallery: Gallery, photos: Path) -> None:
    listed = gallery.list()
    assert [photo.path for photo in listed] == sorted(photos.rglob("*.png"))
    assert {photo.path.name: photo.category for photo in listed} == {
        "00.png": "cat", "01.png": "cat", "02.png": "dog", "03.png": "dog", "04.png": "bird/owl", "05.png": "bird/owl",
        "06.png": "bird", "07.png": "", "08.png": "", "09.png": "cat", "10.png": "dog", "11.png": "",
    }  # fmt: skip
    assert {(photo.width, photo.height) for photo in listed} == {(48, 32)}
    assert len({photo.id for photo in listed}) == len(gallery) == 12


def test_adding_again_embeds_nothing(gallery: Gallery, photos: Path, encoder: ColourLayout) -> None:
    before = encoder.embedded
    report = gallery.add(photos)
    assert (report.added, report.unchanged, report.embedded) == (0, 12, 0)
    assert encoder.embedded == before


def test_only_new_photos_are_embedded(gallery: Gallery, photos: Path, encoder: ColourLayout) -> None:
    make_picture(photos / "cat" / "new.png", 100)
    before = encoder.embedded
    report = gallery.add(photos)
    assert (report.added, report.unchanged) == (1, 12)
    assert encoder.embedded == before + 1


def test_a_renamed_photo_is_recognised_by_content(gallery: Gallery, photos: Path, encoder: ColourLayout) -> None:
    old, new = photos / "cat" / "00.png", photos / "dog" / "renamed.png"
    old.rename(new)
    before = encoder.embedded
    report = gallery.add(photos)
    assert report.moved == [(new, old)]
    assert encoder.embedded == before
    assert old not in paths_of(gallery)
    assert next(photo for photo in gallery.list() if photo.path == new).category == "dog"
    assert len(gallery) == 12
    assert gallery.verify().ok


def test_a_touched_photo_is_not_embedded_and_then_known(gallery: Gallery, photos: Path, encoder: ColourLayout) -> None:
    os.utime(photos / "00.png" if (photos / "00.png").exists() else photos / "cat" / "00.png", (1, 1))
    before = encoder.embedded
    assert gallery.add(photos).unchanged == 12
    assert encoder.embedded == before
    assert any(photo.mtime_ns == 10**9 for photo in gallery.list())


def test_a_changed_photo_replaces_its_old_entry(gallery: Gallery, photos: Path) -> None:
    path = photos / "cat" / "00.png"
    old = next(photo.id for photo in gallery.list() if photo.path == path)
    make_picture(path, 500, (60, 40))
    report = gallery.add(photos)
    assert report.updated == [path]
    assert (report.added, report.unchanged) == (0, 11)
    assert old not in {photo.id for photo in gallery.list()}
    assert len(gallery) == 12
    assert gallery.search(path, 1)[0].path == path


def test_a_photo_that_became_a_copy_of_another_leaves_no_stale_entry(gallery: Gallery, photos: Path) -> None:
    path, other = photos / "cat" / "00.png", photos / "dog" / "02.png"
    shutil.copyfile(other, path)
    report = gallery.add(photos)
    assert report.duplicates == [(path, other)]
    assert path not in paths_of(gallery)
    assert len(gallery) == 11
    assert gallery.verify(deep=True).ok
    assert gallery.search(other, 1)[0].path == other
    make_picture(path, 0)
    assert gallery.add(photos).added == 1, "and comes back with its own content"


def test_two_photos_swapping_names_keep_both_embeddings(gallery: Gallery, photos: Path) -> None:
    first, second = photos / "cat" / "00.png", photos / "dog" / "02.png"
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    os.utime(first, (5, 5))
    os.utime(second, (6, 6))
    gallery.add(photos)
    assert len(gallery) == 12
    assert gallery.verify(deep=True).ok


def test_a_photo_edited_while_its_old_version_was_kept_elsewhere(gallery: Gallery, photos: Path) -> None:
    path, kept = photos / "cat" / "00.png", photos / "cat" / "zz_original.png"
    shutil.copy(path, kept)
    make_picture(path, 501, (50, 30))
    report = gallery.add(photos)
    assert report.moved == [(kept, path)]
    assert report.updated == [path]
    assert len(gallery) == 13
    assert gallery.verify(deep=True).ok


def test_exact_duplicates_are_left_out_and_named(gallery: Gallery, photos: Path) -> None:
    copy = photos / "zzz.png"
    shutil.copy(photos / "cat" / "00.png", copy)
    report = gallery.add(photos)
    assert report.duplicates == [(copy, photos / "cat" / "00.png")]
    assert len(gallery) == 12


def test_duplicates_within_one_run_are_left_out(tmp_path: Path, encoder: ColourLayout) -> None:
    first = make_picture(tmp_path / "in" / "a.png", 1)
    for name in ("b.png", "c.png"):
        shutil.copy(first, tmp_path / "in" / name)
    report = Gallery(tmp_path / "g", encoder=encoder).add(tmp_path / "in")
    assert report.added == 1
    assert report.duplicates == [(tmp_path / "in" / "b.png", first), (tmp_path / "in" / "c.png", first)]


def test_near_duplicates_are_kept_and_flagged(gallery: Gallery, photos: Path) -> None:
    original = photos / "cat" / "00.png"
    similar = photos / "cat" / "smaller.jpg"
    with Image.open(original) as image:
        ImageEnhance.Brightness(image.resize((40, 27))).enhance(1.05).save(similar, quality=80)
    report = gallery.add(photos)
    assert report.near_duplicates == [(similar, original)]
    flagged = {photo.path: photo.near_duplicate_of for photo in gallery.list() if photo.near_duplicate_of}
    assert flagged == {similar: next(photo.id for photo in gallery.list() if photo.path == original)}
    assert gallery.info().near_duplicates == 1
    gallery.remove([original])
    assert [photo.near_duplicate_of for photo in gallery.list() if photo.path == similar] == [""]
    assert gallery.info().near_duplicates == 0
    assert gallery.verify().ok


def test_unreadable_files_are_named_and_skipped(tmp_path: Path, photos: Path, encoder: ColourLayout) -> None:
    (photos / "empty.jpg").touch()
    (photos / "text.png").write_text("no picture")
    whole = (photos / "cat" / "00.png").read_bytes()
    (photos / "half.png").write_bytes(whole[: len(whole) // 2])
    report = Gallery(tmp_path / "gallery", encoder=encoder).add(photos)
    assert report.added == 12
    assert [path.name for path, _ in report.failed] == ["empty.jpg", "half.png", "text.png"]
    assert all(reason for _, reason in report.failed)


def test_a_file_name_that_is_not_unicode_is_reported(tmp_path: Path, photos: Path, encoder: ColourLayout) -> None:
    odd = os.fsencode(photos) + b"/caf\xe9.png"
    shutil.copy(photos / "cat" / "00.png", odd)
    report = Gallery(tmp_path / "gallery", encoder=encoder).add(photos)
    assert report.added == 12
    assert [reason for _, reason in report.failed] == ["the file name is not valid UTF-8; rename the file"]


def test_explicit_category_and_tags_win_and_relabel(gallery: Gallery, photos: Path, encoder: ColourLayout) -> None:
    before = encoder.embedded
    report = gallery.add(photos / "cat", category="felidae", tags=["zoo", "2026", "zoo"])
    assert len(report.updated) == 3
    assert encoder.embedded == before
    photo = next(photo for photo in gallery.list() if photo.path.name == "00.png")
    assert (photo.category, photo.tags) == ("felidae", ("zoo", "2026"))
    assert gallery.add(photos / "cat").unchanged == 3
    assert gallery.verify().ok


def test_nothing_is_created_when_there_is_nothing_to_add(tmp_path: Path, encoder: ColourLayout) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.jpg").write_text("no picture")
    gallery = Gallery(tmp_path / "gallery", encoder=encoder)
    for paths in (tmp_path / "none", tmp_path / "missing"):
        with pytest.raises(PictureError):
            gallery.add(paths)
    assert len(gallery.add(tmp_path / "bad").failed) == 1
    assert not (tmp_path / "gallery").exists()
    with pytest.raises(GalleryNotFound):
        gallery.list()


def test_another_encoder_is_refused_with_the_way_out(gallery: Gallery, photos: Path) -> None:
    other = Gallery(gallery.path, encoder=ColourLayout(version="2"))
    for use in (lambda: other.add(photos), lambda: other.search(photos / "07.png")):
        with pytest.raises(EncoderMismatch, match=r"colour-layout 1 .*colour-layout 2.*rasr gallery add"):
            use()


def test_an_encoder_that_fails_on_a_photo_costs_that_photo_only(tmp_path: Path, photos: Path) -> None:
    class Broken(ColourLayout):
        def embed(self, batch: np.ndarray) -> np.ndarray:
            vectors = super().embed(batch)
            vectors[0] = np.nan
            return vectors

    gallery = Gallery(tmp_path / "gallery", encoder=Broken())
    report = gallery.add(photos)
    assert report.added == 11
    assert "no valid embedding" in report.failed[0][1]
    assert gallery.verify().ok


def test_progress_ends_at_the_total(tmp_path: Path, photos: Path, encoder: ColourLayout) -> None:
    seen: list[tuple[int, int]] = []
    Gallery(tmp_path / "g", encoder=encoder).add(photos, progress=lambda stage, done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)


def test_an_interrupted_run_continues_where_it_was(
    tmp_path: Path, photos: Path, encoder: ColourLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "BATCH", 2)
    monkeypatch.setattr(LocalStore, "commit_photos", 4)
    gallery = Gallery(tmp_path / "g", encoder=encoder)

    def stop(stage: str, done: float, total: float) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.add(photos, progress=stop)
    assert len(gallery) == 4
    before = encoder.embedded
    report = gallery.add(photos)
    assert (report.added, report.unchanged) == (8, 4)
    assert encoder.embedded == before + 8


def test_photos_inside_the_gallery_folder_survive_moving_it(tmp_path: Path, encoder: ColourLayout) -> None:
    make_picture(tmp_path / "g" / "pictures" / "a.png", 1)
    make_picture(tmp_path / "elsewhere.png", 2)
    gallery = Gallery(tmp_path / "g", encoder=encoder)
    gallery.add([tmp_path / "g" / "pictures", tmp_path / "elsewhere.png"])
    (tmp_path / "g").rename(tmp_path / "moved")
    moved = Gallery(tmp_path / "moved", encoder=encoder)
    assert paths_of(moved) == {tmp_path / "moved" / "pictures" / "a.png", tmp_path / "elsewhere.png"}
    assert moved.verify(deep=True).ok
    assert moved.add(tmp_path / "moved" / "pictures").unchanged == 1


def test_a_photo_removed_by_another_process_while_known_is_embedded_after_all(
    gallery: Gallery, photos: Path, encoder: ColourLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photos / "cat" / "00.png"
    os.utime(path, (3, 3))
    original = ingest_module.load_photo

    def remove_meanwhile(source: object, *arguments: object, **options: object) -> object:
        prepared = original(source, *arguments, **options)
        if prepared.photo is not None and prepared.tensor is None:
            Gallery(gallery.path, encoder=encoder).remove([path])
        return prepared

    monkeypatch.setattr(ingest_module, "load_photo", remove_meanwhile)
    monkeypatch.setattr(LocalStore, "commit_seconds", -1.0)  # commit after every batch, this one included
    assert gallery.add(path).added == 1
    assert len(gallery) == 12


def test_a_pipe_or_a_device_is_named_and_never_opened(tmp_path: Path, photos: Path, encoder: ColourLayout) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    given = [tmp_path / "pipe.jpg", Path("/dev/zero"), photos / "cat" / "00.png"]
    report = Gallery(tmp_path / "gallery", encoder=encoder).add(given)
    assert report.added == 1
    assert report.failed == [(tmp_path / "pipe.jpg", "not a regular file."), (Path("/dev/zero"), "not a regular file.")]


def test_a_file_is_looked_at_before_it_is_read(
    tmp_path: Path, photos: Path, encoder: ColourLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte of nothing called .jpg, and more than the limit on bytes: neither is hashed."""
    for name, size in (("hole.jpg", 2**30), ("huge.png", 5 * 2**30)):
        shutil.copy(photos / "cat" / "00.png", photos / name)
        if name == "hole.jpg":
            (photos / name).write_bytes(b"")
        os.truncate(photos / name, size)
    hashed: list[str] = []
    real = ingest_module.xxh3_file
    monkeypatch.setattr(ingest_module, "xxh3_file", lambda path: hashed.append(path.name) or real(path))
    report = Gallery(tmp_path / "gallery", encoder=encoder).add(photos)
    assert report.added == 12
    assert len(hashed) == 12
    assert [(path.name, reason[:40]) for path, reason in report.failed] == [
        ("hole.jpg", "this is not a picture; JPEG, PNG, WebP, "),
        ("huge.png", "not read, the file has 5.0 GiB and the l"),
    ]


def test_what_follows_a_picture_in_its_file_costs_no_memory(tmp_path: Path, photos: Path) -> None:
    """Three hundred megabytes behind a JPEG, in a process of its own: hashed in blocks, never held."""
    with Image.open(photos / "cat" / "00.png") as image:
        image.save(tmp_path / "tail.jpg")
    os.truncate(tmp_path / "tail.jpg", 300 * 2**20)
    code = f"""
from pathlib import Path
from tests.gallery.standin import ColourLayout
from rasr.gallery import Gallery
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
gallery = Gallery({str(tmp_path / "gallery")!r}, encoder=ColourLayout())
gallery.add({str(photos)!r})
before = peak()
assert gallery.add({str(tmp_path / "tail.jpg")!r}).added == 1
print(peak() - before)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 100


def test_a_photo_that_changes_while_it_is_read_is_named(
    tmp_path: Path, photos: Path, encoder: ColourLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ingest_module.read_picture

    def changing(path: Path) -> object:
        picture = real(path)
        if path.name == "00.png":
            os.utime(path, ns=(1, 1))
        return picture

    monkeypatch.setattr(ingest_module, "read_picture", changing)
    gallery = Gallery(tmp_path / "gallery", encoder=encoder)
    report = gallery.add(photos)
    assert [(path.name, reason) for path, reason in report.failed] == [
        ("00.png", "it was changed while it was read; add it again")
    ]
    monkeypatch.undo()
    assert gallery.add(photos).added == 1


def test_running_out_of_memory_on_a_photo_costs_that_photo_only(
    tmp_path: Path, photos: Path, encoder: ColourLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ColourLayout.preprocess

    def greedy(self: ColourLayout, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[:2] == (64, 64):
            raise MemoryError
        return real(self, pixels)

    monkeypatch.setattr(ColourLayout, "preprocess", greedy)
    make_picture(photos / "big.png", 99, (64, 64))
    report = Gallery(tmp_path / "gallery", encoder=encoder).add(photos)
    assert report.added == 12
    assert report.failed == [(photos / "big.png", "not enough memory to prepare it")]
