"""What every store of galleries promises: a folder's, a Lance table's in a folder, and one's on object storage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rasr.errors import EncoderMismatch, GalleryError, GalleryNotFound, UsageError
from rasr.gallery import Gallery, copy_gallery, is_gallery, open_gallery_or_folder
from rasr.gallery.database import EncoderId
from rasr.gallery.photo import Photo
from rasr.gallery.stores import open_store
from tests.gallery.standin import ColourLayout, make_picture

IDENTITY = EncoderId("colour-layout", "1", 4, "colour-layout/1")


def photo(number: int, **more: object) -> Photo:
    facts = {"path": Path(f"/photos/{number}.png"), "size": 10, "mtime_ns": 1, "width": 8, "height": 8, "phash": number}
    return Photo(id=f"{number:032x}", **{**facts, **more})  # type: ignore[arg-type]


def vector(number: int) -> np.ndarray:
    numbers = np.random.default_rng(number).standard_normal(4).astype(np.float32)
    return np.asarray(numbers / np.linalg.norm(numbers), np.float32)


def rows(*numbers: int) -> list[tuple[Photo, np.ndarray]]:
    return [(photo(number), vector(number)) for number in numbers]


def ids(place: str) -> list[str]:
    return sorted(one.id for one in open_store(place).read(vectors=False).photos())


def test_there_is_no_gallery_until_one_is_made(place: str) -> None:
    store = open_store(place)
    assert not store.exists()
    assert not is_gallery(place)
    with pytest.raises(GalleryNotFound, match=f"no gallery at {store.address}"):
        store.manifest()
    with pytest.raises(GalleryNotFound), store.writing():
        pass
    assert not store.exists()
    with store.writing(IDENTITY) as writer:
        assert writer.manifest.photos == 0
    assert is_gallery(place)
    made = open_store(place).manifest()
    assert (made.encoder, made.photos, made.calibration) == (IDENTITY, 0, "")
    assert made.created <= made.updated
    assert open_store(place).read(vectors=True).vectors.shape == (0, 4)  # type: ignore[union-attr]


def test_what_is_committed_is_read_whole_by_anybody(place: str) -> None:
    store = open_store(place)
    photos = [photo(1, category="cat", tags=("a", "ü"), near_duplicate_of="x" * 32, added="2026-11-28"), photo(2)]
    with store.writing(IDENTITY) as writer:
        writer.commit(list(zip(photos, [vector(1), vector(2)], strict=True)))
    table = open_store(place).read(vectors=True)
    found = dict(zip(table.photos(), table.vectors, strict=True))  # type: ignore[arg-type]
    assert {*found} == {*photos}
    for one, expected in zip(photos, [vector(1), vector(2)], strict=True):
        np.testing.assert_array_equal(found[one], expected)
    assert open_store(place).read(vectors=False).vectors is None


def test_every_commit_makes_another_version(place: str) -> None:
    store = open_store(place)
    versions = []
    with store.writing(IDENTITY) as writer:
        versions.append(writer.manifest.version)
        writer.commit(rows(1, 2))
        versions.append(writer.manifest.version)
        assert writer.manifest.version == store.manifest().version
        writer.commit(remove=[photo(1).id])
        versions.append(store.manifest().version)
        writer.calibrate('{"x": 1}')
        versions.append(store.manifest().version)
    assert len({*versions}) == 4
    assert store.manifest().calibration == open_store(place).manifest().calibration == '{"x": 1}'
    assert store.manifest().photos == 1


def test_removing_and_adding_are_one_commit(place: str) -> None:
    store = open_store(place)
    with store.writing(IDENTITY) as writer:
        writer.commit(rows(1, 2, 3))
        before = int(writer.manifest.version.partition(".")[0])
        changed = photo(2, category="dog")
        writer.commit([*rows(4), (changed, vector(2))], {photo(1).id, changed.id})
        assert int(writer.manifest.version.partition(".")[0]) == before + 1
    assert ids(place) == [photo(number).id for number in (2, 3, 4)]
    table = open_store(place).read(vectors=False)
    assert {one.category for one in table.photos() if one.id == changed.id} == {"dog"}


def test_vectors_are_found_by_id(place: str) -> None:
    with open_store(place).writing(IDENTITY) as writer:
        writer.commit(rows(*range(20)))
        found = writer.vectors([photo(3).id, photo(7).id])
        assert {*found} == {photo(3).id, photo(7).id}
        np.testing.assert_array_equal(found[photo(7).id], vector(7))
        assert writer.vectors([]) == {}
        with pytest.raises(GalleryError):
            writer.vectors([photo(3).id, photo(99).id])


def test_inspection_finds_nothing_wrong_and_usage_is_told(place: str) -> None:
    store = open_store(place)
    with store.writing(IDENTITY) as writer:
        writer.commit(rows(*range(50)))
    assert [what for _, what in store.inspect()] == [""] * 50
    usage = store.usage()
    assert usage.files >= 1
    assert usage.bytes > 50 * 16
    assert (usage.leftovers, usage.indexed, usage.unindexed) == ([], 0, 0)
    store.probe()
    assert store.nearest() is None
    assert store.build_index() == {}
    assert store.upgrade() is False


def test_tidying_keeps_every_photo(place: str) -> None:
    store = open_store(place)
    with store.writing(IDENTITY) as writer:
        for number in range(6):
            writer.commit(rows(number))
    done = store.tidy()
    assert not done or (done["files_before"], done["files_after"]) == (6, 1)
    assert ids(place) == [photo(number).id for number in range(6)]


def test_a_gallery_does_the_same_wherever_it_is_kept(place: str, photos: Path, tmp_path: Path) -> None:
    here, there = Gallery(tmp_path / "local", encoder=ColourLayout()), Gallery(place, encoder=ColourLayout())
    for gallery in (here, there):
        assert gallery.add(photos).added == 12
        again = gallery.add(photos)
        assert (again.added, again.unchanged, again.embedded) == (0, 12, 0)
    query = make_picture(tmp_path / "query.png", 3)
    for options in ({}, {"category": "bird"}, {"exclude": [photos / "cat" / "00.png"]}, {"min_score": 0.1}):
        ours, theirs = (gallery.search(query, 12, **options) for gallery in (here, there))  # type: ignore[arg-type]
        assert [one.path for one in ours] == [one.path for one in theirs]
        np.testing.assert_allclose([one.score for one in ours], [one.score for one in theirs], atol=1e-6, rtol=0)
    (photos / "cat" / "00.png").unlink()
    make_picture(photos / "cat" / "01.png", 77)
    (photos / "dog" / "02.png").rename(photos / "moved.png")
    reports = [gallery.add(photos) for gallery in (here, there)]
    assert [(len(one.updated), len(one.moved), one.added) for one in reports] == [(1, 1, 0)] * 2
    assert [replace(one, added="") for one in there.list()] == [replace(one, added="") for one in here.list()]
    assert len(there.remove(missing=True)) == len(here.remove(missing=True)) == 1
    assert len(there.remove([photos / "bird"])) == 3
    here.remove([photos / "bird"])
    ours, theirs = here.info().to_json(), there.info().to_json()
    assert {name for name in ours if ours[name] != theirs[name]} <= {
        "path", "bytes_on_disk", "version", "created", "updated",
    }  # fmt: skip
    report = there.verify(deep=True)
    assert report.ok, report.problems
    assert report.photos == 8


def test_a_near_duplicate_loses_its_mark_with_what_it_was_like(place: str, tmp_path: Path) -> None:
    make_picture(tmp_path / "photos" / "a.png", 1)
    make_picture(tmp_path / "photos" / "b.png", 1, compress_level=1)
    gallery = Gallery(place, encoder=ColourLayout())
    assert len(gallery.add(tmp_path / "photos").near_duplicates) == 1
    gallery.remove([tmp_path / "photos" / "a.png"])
    assert [one.near_duplicate_of for one in gallery.list()] == [""]


def test_another_encoder_is_refused(place: str, photos: Path) -> None:
    Gallery(place, encoder=ColourLayout()).add(photos)
    with pytest.raises(EncoderMismatch, match="colour-layout 1"):
        Gallery(place, encoder=ColourLayout("2")).add(photos)
    assert len(Gallery(place)) == 12


def test_two_objects_see_each_others_commits(place: str, photos: Path, tmp_path: Path) -> None:
    first, second = (Gallery(place, encoder=ColourLayout()) for _ in range(2))
    first.add(photos / "cat")
    query = make_picture(tmp_path / "query.png", 2)
    assert len(second.search(query, 20)) == 3
    first.add(photos / "dog")
    assert len(second.search(query, 20)) == 6
    second.remove(category="dog")  # nothing has it: these folders are the tops
    second.remove([photos / "dog"])
    assert len(first.search(query, 20)) == 3


def test_copies_go_both_ways_and_are_gone_on_with(place: str, photos: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    original = Gallery(start, encoder=ColourLayout())
    original.add(photos)
    original.calibration = '{"threshold": 1}'
    assert copy_gallery(start, place) == 12
    assert copy_gallery(start, place) == 0
    original.add(make_picture(tmp_path / "new.png", 50))
    assert copy_gallery(start, place) == 1
    assert copy_gallery(place, tmp_path / "back") == 13
    back = Gallery(tmp_path / "back", encoder=ColourLayout())
    assert back.list() == original.list() == Gallery(place).list()
    assert back.calibration == original.calibration == '{"threshold": 1}'
    assert sorted(map(tuple, back.embeddings()[1])) == sorted(map(tuple, original.embeddings()[1]))
    with pytest.raises(UsageError, match="onto itself"):
        copy_gallery(place, place)
    Gallery(tmp_path / "other", encoder=ColourLayout("2")).add(photos)
    with pytest.raises(EncoderMismatch, match="another place"):
        copy_gallery(place, tmp_path / "other")


def test_a_gallery_at_an_address_is_opened_wherever_a_gallery_is(place: str, photos: Path) -> None:
    Gallery(place, encoder=ColourLayout()).add(photos)
    opened = open_gallery_or_folder(place, encoder=ColourLayout())
    assert opened.address == open_store(place).address
    assert opened.path.is_dir()
    assert len(opened) == 12


def test_photos_are_found_by_their_ids(place: str) -> None:
    with open_store(place).writing(IDENTITY) as writer:
        writer.commit(rows(1, 2, 3))
    gallery = Gallery(place)
    assert sorted(one.id for one in gallery.find([photo(3).id, photo(1).id, photo(9).id, "it's none"])) == [
        photo(1).id,
        photo(3).id,
    ]
    assert gallery.find([]) == []
    assert gallery.find([photo(2).id]) == [one for one in gallery.list() if one.id == photo(2).id]
    assert (gallery.manifest.photos, gallery.manifest.encoder) == (3, IDENTITY)
