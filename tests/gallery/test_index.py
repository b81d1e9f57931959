"""A gallery with an approximate index answers like the exact one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rasr.errors import GalleryCorrupt
from rasr.gallery import Gallery, index
from rasr.gallery.index import IndexedSnapshot
from rasr.gallery.photo import Photo, to_table
from rasr.gallery.pointer import EncoderId, read_pointer
from rasr.gallery.snapshot import Snapshot
from rasr.gallery.store import Store
from tests.gallery.standin import ColourLayout, make_picture

COUNT = 1500


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    themes = rng.standard_normal((40, 64))
    vectors = themes[rng.integers(0, 40, COUNT)] + 0.6 * rng.standard_normal((COUNT, 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> Gallery:
    encoder = ColourLayout()
    folder = tmp_path_factory.mktemp("indexed") / "gallery"
    photos = [
        Photo(f"{i:032x}", Path(f"/p/{i:04d}.jpg"), 1, 1, 1, 1, i, "rare" if i % 500 == 0 else "common")
        for i in range(COUNT)
    ]
    identity = EncoderId(encoder.name, encoder.version, encoder.dimension, encoder.fingerprint)
    with Store(folder).writing(identity) as writer:
        writer.commit(to_table(photos[:1400], vectors[:1400], None))
        writer.compact(force_index=True)
        writer.commit(to_table(photos[1400:], vectors[1400:], None))  # rows the index does not cover
    return Gallery(folder, encoder=encoder)


def exact(gallery: Gallery) -> Snapshot:
    return Snapshot(*gallery._store.read(vectors=True), gallery._store.root)


def test_the_index_is_used_and_verified(indexed: Gallery) -> None:
    assert indexed.info().indexed == 1400
    assert isinstance(indexed._snapshot(), IndexedSnapshot)
    assert any("_indices" in name for name in read_pointer(indexed.path).files)
    kinds = {problem.kind for problem in indexed.verify().problems}
    assert kinds == {"photo-missing"}


def test_recall_and_scores_against_exact_search(indexed: Gallery, vectors: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    queries = vectors[rng.integers(0, COUNT, 100)] + 0.05 * rng.standard_normal((100, 64)).astype(np.float32)
    right = 0
    for query in queries:
        unit = query / np.linalg.norm(query)
        found = indexed.search(unit, 5)
        row = int(found[0].path.stem)
        right += row == int(np.argmax(vectors @ unit))
        for one in found:  # whatever is found, its score is the stored vector's own
            assert one.score == pytest.approx(float(vectors[int(one.path.stem)] @ unit), abs=1e-5)
    assert right >= 99


def test_all_scores_equal_the_exact_ones(indexed: Gallery, vectors: np.ndarray) -> None:
    query = vectors[3]
    np.testing.assert_allclose(np.sort(indexed.scores(query)), np.sort(exact(indexed).scores(query)), atol=1e-6)


def test_a_filter_the_proposals_miss_is_still_answered_in_full(indexed: Gallery, vectors: np.ndarray) -> None:
    found = indexed.search(vectors[7], 3, category="rare")
    assert sorted(int(one.path.stem) for one in found) == [0, 500, 1000]
    assert len(indexed.search(vectors[7], 2000)) == COUNT


def test_a_damaged_index_is_not_searched(indexed: Gallery, vectors: np.ndarray) -> None:
    path = next(indexed.path / name for name in read_pointer(indexed.path).files if "_indices" in name)
    whole = path.read_bytes()
    content = bytearray(whole)
    content[len(content) // 3] ^= 16
    path.write_bytes(content)
    with pytest.raises(GalleryCorrupt):
        Gallery(indexed.path, encoder=ColourLayout()).search(vectors[0])
    path.write_bytes(whole)


def test_a_gallery_that_grows_large_gets_an_index(
    tmp_path: Path, encoder: ColourLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "INDEX_FROM", 260)
    root = tmp_path / "photos"
    for seed in range(270):
        make_picture(root / f"{seed:03d}.png", seed)
    gallery = Gallery(tmp_path / "g", encoder=encoder)
    gallery.add(root)
    assert gallery.info().indexed == 270
    best = gallery.search(root / "123.png", 1)[0]
    assert best.path == root / "123.png"
    assert gallery.verify(deep=True).ok
    gallery.add(make_picture(root / "late.png", 999))
    assert gallery.search(root / "late.png", 1)[0].path == root / "late.png"
