"""Searching: exact order, filters, exclusion and the leak guard."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from rasr.errors import GalleryNotFound, PictureError, UsageError
from rasr.files import home
from rasr.gallery import Gallery, database
from rasr.gallery.database import EncoderId, Manifest, Row, Table
from rasr.gallery.photo import Photo
from rasr.gallery.search import Query, Snapshot
from rasr.images import read_picture
from tests.gallery.standin import ColourLayout, make_picture


def test_a_photo_finds_itself_first_whatever_form_the_query_has(gallery: Gallery, photos: Path) -> None:
    path = photos / "dog" / "02.png"
    for query in (path, str(path), read_picture(path), gallery.embedding_of(path)):
        best, *rest = gallery.search(query, 3)
        assert best.path == path
        assert best.score == pytest.approx(1.0, abs=1e-6)
        assert (best.rank, best.category, best.accepted) == (1, "dog", True)
        assert [one.rank for one in rest] == [2, 3]
        assert best.score > rest[0].score >= rest[1].score


def test_equals_brute_force(gallery: Gallery, photos: Path, encoder: ColourLayout) -> None:
    paths = sorted(photos.rglob("*.png"))
    vectors = encoder.embed(np.stack([encoder.preprocess(read_picture(path).pixels) for path in paths]))
    for query in vectors:
        expected = sorted(
            range(len(paths)), key=lambda i: (-float(vectors[i].astype(float) @ query.astype(float)), paths[i])
        )
        assert [one.path for one in gallery.search(query, 12)] == [paths[i] for i in expected]


def test_many_queries_at_once_answer_as_one_by_one(gallery: Gallery, photos: Path) -> None:
    queries = sorted(photos.rglob("*.png"))
    mixed = [*queries[:6], *(gallery.embedding_of(query) for query in queries[6:])]
    assert gallery.search_many(mixed, 4) == [gallery.search(query, 4) for query in queries]
    assert gallery.search_many([], 4) == []


def test_category_covers_sub_categories_and_not_name_prefixes(gallery: Gallery, photos: Path) -> None:
    make_picture(photos / "birdcage" / "x.png", 77)
    gallery.add(photos)
    names = {one.path.name for one in gallery.search(photos / "07.png", 20, category="bird")}
    assert names == {"04.png", "05.png", "06.png"}
    assert {one.category for one in gallery.search(photos / "07.png", 20, category=["cat", "bird/owl"])} == {
        "cat",
        "bird/owl",
    }
    assert gallery.search(photos / "07.png", category="fish") == []


def test_tags_must_all_be_present(gallery: Gallery, photos: Path) -> None:
    gallery.add(photos / "cat", tags=["zoo"])
    gallery.add(photos / "cat" / "00.png", tags=["best"])
    query = photos / "07.png"
    assert len(gallery.search(query, 20, tags="zoo")) == 3
    assert [one.path.name for one in gallery.search(query, 20, tags=["zoo", "best"])] == ["00.png"]
    assert gallery.search(query, 20, tags=["zoo", "none"]) == []


def test_exclusion_by_path_and_by_hash(gallery: Gallery, photos: Path) -> None:
    path = photos / "cat" / "00.png"
    photo = next(photo for photo in gallery.list() if photo.path == path)
    for exclude in ([path], [str(path)], [photo.id], [path, photo.id, "/nowhere.png"]):
        found = gallery.search(path, 20, exclude=exclude)
        assert len(found) == 11
        assert path not in {one.path for one in found}


def test_the_leak_guard_leaves_out_the_same_picture_in_any_guise(
    gallery: Gallery, photos: Path, tmp_path: Path
) -> None:
    path = photos / "cat" / "00.png"
    with Image.open(path) as image:
        image.resize((24, 16)).save(tmp_path / "small.jpg", quality=60)
    shutil.copy(path, tmp_path / "copy.png")
    for query in (path, tmp_path / "copy.png", tmp_path / "small.jpg", gallery.embedding_of(path)):
        assert gallery.search(query, 1)[0].path == path
        guarded = gallery.search(query, 20, exclude_near_duplicates=True)
        assert path not in {one.path for one in guarded}
        assert len(guarded) == 11


def test_min_score_and_scores_agree(gallery: Gallery, photos: Path) -> None:
    query = photos / "07.png"
    scores = gallery.scores(query)
    assert scores.shape == (12,)
    bound = float(np.sort(scores)[-4]) - 1e-4
    assert len(gallery.search(query, 12, min_score=bound)) == 4


def test_a_missing_photo_file_is_said_in_the_answer(gallery: Gallery, photos: Path) -> None:
    query = gallery.embedding_of(photos / "cat" / "00.png")
    (photos / "cat" / "00.png").unlink()
    best = gallery.search(query, 1)[0]
    assert not best.accepted
    assert "missing" in best.why


def test_a_photo_changed_since_it_was_indexed_is_not_used_until_it_is_added_again(
    gallery: Gallery, photos: Path
) -> None:
    path = photos / "cat" / "00.png"
    query = gallery.prepare([path])[0]
    status = path.stat()
    make_picture(path, 500)
    changed = gallery.search(query, 1)[0]
    assert changed.path == path
    assert not changed.accepted
    assert "changed since it was indexed" in changed.why
    gallery.add(photos)
    assert gallery.search(path, 1)[0].accepted
    make_picture(path, 0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    gallery.add(photos)
    os.utime(path, (1, 1))
    touched = gallery.search(path, 1)[0]
    assert touched.accepted, "another time and the same content is the same photo"


def test_wrong_questions(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        gallery.search(photos / "07.png", 0)
    for bad in (np.ones(3, np.float32), np.zeros(64, np.float32), np.full(64, np.nan, np.float32)):
        with pytest.raises(UsageError):
            gallery.search(bad)
    (tmp_path / "text.png").write_text("no picture")
    for query in (tmp_path / "text.png", tmp_path / "missing.png"):
        with pytest.raises(PictureError):
            gallery.search(query)
    with pytest.raises(GalleryNotFound):
        Gallery(tmp_path / "other", encoder=ColourLayout()).search(photos / "07.png")


def test_an_open_gallery_sees_what_others_add_and_remove(gallery: Gallery, photos: Path) -> None:
    other = Gallery(gallery.path, encoder=ColourLayout())
    assert len(other.search(photos / "07.png", 50)) == 12
    gallery.add(make_picture(photos / "late.png", 300))
    assert len(other.search(photos / "07.png", 50)) == 13
    gallery.remove(category="cat")
    assert len(other.search(photos / "07.png", 50)) == 10


def test_vectors_of_a_large_gallery_are_mapped_from_a_file_and_answer_the_same(
    gallery: Gallery, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = photos / "dog" / "02.png"
    expected = gallery.search(query, 12)
    monkeypatch.setattr(database, "IN_MEMORY", 11)
    large = Gallery(gallery.path, encoder=ColourLayout())
    assert large.search(query, 12) == expected
    assert isinstance(large._snapshot().table.vectors, np.memmap)
    np.testing.assert_array_equal(np.sort(large.scores(query)), np.sort(gallery.scores(query)))
    assert list(home().iterdir()) == [], "the file has no name"


def snapshot_of(vectors: np.ndarray) -> Snapshot:
    photos = [
        Photo(f"{i:032x}", Path(f"/p/{i:04d}.jpg"), 1, 1, 1, 1, i * 0x0101010101010101, "even" if i % 2 == 0 else "odd")
        for i in range(len(vectors))
    ]
    root = Path("/p")
    entries = [Row.of(photo, vector, root).entry for photo, vector in zip(photos, vectors, strict=True)]
    return Snapshot(Table(root, Manifest(EncoderId("x", "1", vectors.shape[1], "x"), len(vectors)), entries, vectors))


@settings(max_examples=150, deadline=None)
@example(seed=12, count=12, k=5, copies=12, category="odd")  # a matrix product tells these equal rows apart
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    k=st.integers(1, 70),
    copies=st.integers(0, 20),
    category=st.sampled_from([None, "even", "odd"]),
)
def test_selection_equals_sorting_everything(seed: int, count: int, k: int, copies: int, category: str | None) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, 8)).astype(np.float32)
    for _ in range(copies):  # exact ties
        vectors[rng.integers(count)] = vectors[rng.integers(count)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[rng.integers(count)]
    snapshot = snapshot_of(vectors)
    rows = [i for i in range(count) if category is None or (i % 2 == 0) == (category == "even")]
    exact = [math.fsum(float(a) * float(b) for a, b in zip(row, query, strict=True)) for row in vectors]
    expected = sorted(rows, key=lambda i: (-exact[i], i))[:k]
    found = snapshot.search([Query(query)], k, {"category": category})[0]
    assert [row for row, _ in found] == expected
    assert all(score == pytest.approx(exact[row], abs=1e-12) or score in {-1.0, 1.0} for row, score in found)
