"""An index: what it covers, exact scores by it, filters, what is added after it, and its parameters by size."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rasr.gallery import Gallery
from rasr.gallery.database import EncoderId
from rasr.gallery.indexed_search import IndexedSnapshot
from rasr.gallery.lance_index import Parameters
from rasr.gallery.photo import Reference
from rasr.gallery.retrieval import Calibration, accept
from rasr.gallery.search import Query
from rasr.gallery.stores import open_store
from tests.gallery.stores.test_contract import photo

pytest.importorskip("lancedb")

DIMENSION, PHOTOS = 32, 3000


class Given:
    """Stands for an encoder: queries are vectors."""

    name, version, dimension, input_size, fingerprint = "given", "1", DIMENSION, 8, "given/1"


def vectors(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((60, DIMENSION))
    drawn = centres[rng.integers(0, 60, count)] + 0.4 * rng.standard_normal((count, DIMENSION))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("rasr.gallery.lance_index.FEWEST", 1000)
    monkeypatch.setattr("rasr.gallery.lance_index.PARTITION", 1000)
    address = f"lance://{tmp_path}/gallery"
    add(address, range(PHOTOS), vectors(PHOTOS, 1))
    return address


def add(address: str, numbers: range, found: np.ndarray) -> None:
    photos = [
        photo(n, path=Path(f"/photos/{n:05d}.png"), category=f"c{n % 3}", tags=("even",) if n % 2 == 0 else ())
        for n in numbers
    ]
    with open_store(address).writing(EncoderId("given", "1", DIMENSION, "given/1")) as writer:
        writer.commit(list(zip(photos, found, strict=True)))


def test_answers_by_an_index_are_those_of_an_exact_search(place: str) -> None:
    gallery = Gallery(place, encoder=Given())  # type: ignore[arg-type]
    queries = list(vectors(40, 2))
    before = gallery.search_many(queries, 10)
    assert gallery.info().indexed == 0
    built = gallery.index()
    assert built == {"partitions": 3, "photos": PHOTOS}
    assert isinstance(gallery._snapshot(), IndexedSnapshot)
    info = gallery.info()
    assert (info.indexed, info.unindexed) == (PHOTOS, 0)
    assert gallery.prewarm() == "searched by an index, in memory, beside 3000 sampled"
    after = gallery.search_many(queries, 10)
    hits = [len({one.id for one in a} & {one.id for one in b}) for a, b in zip(before, after, strict=True)]
    assert np.mean(hits) >= 9.5
    assert np.mean([a[0].id == b[0].id for a, b in zip(before, after, strict=True)]) >= 0.95
    for exact, found in zip(before, after, strict=True):
        scores = {one.id: one.score for one in exact}
        for one in found:
            assert abs(one.score - scores.get(one.id, one.score)) <= 1e-6
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert [one.rank for one in found] == list(range(1, 11))


def test_filters_hold_also_where_they_leave_little(place: str) -> None:
    exact, indexed = Gallery(place, encoder=Given()), Gallery(place, encoder=Given())  # type: ignore[arg-type]
    query = vectors(1, 5)[0]
    options = [
        {"category": "c1"}, {"category": ["c0", "c2"], "tags": "even"}, {"min_score": 0.9}, {"category": "none"},
        {"exclude": [photo(n).id for n in range(0, PHOTOS, 2)]}, {"exclude": [Path("/photos/00001.png")]},
    ]  # fmt: skip
    expected = [exact.search(query, 5, **one) for one in options]  # type: ignore[arg-type]
    indexed.index()
    for one, wanted in zip(options, expected, strict=True):
        found = indexed.search(query, 5, **one)  # type: ignore[arg-type]
        assert len(found) == len(wanted)
        assert len({hit.id for hit in found} & {hit.id for hit in wanted}) >= 0.8 * len(wanted)
    near = Query(query, photo=expected[0][0].id, phash=2**63)
    ids = [hit.id for hit in indexed.search(near, 5, exclude_near_duplicates=True)]
    assert len(ids) == 5
    assert expected[0][0].id not in ids


def test_what_is_added_later_is_found_and_told(place: str) -> None:
    gallery = Gallery(place, encoder=Given())  # type: ignore[arg-type]
    gallery.index()
    new = vectors(50, 9)
    add(place, range(PHOTOS, PHOTOS + 50), new)
    assert gallery.search(new[7], 1)[0].id == photo(PHOTOS + 7).id
    info = gallery.info()
    assert (info.indexed, info.unindexed) == (PHOTOS, 50)
    gallery.optimize()
    info = gallery.info()
    assert (info.indexed, info.unindexed) == (PHOTOS + 50, 0)
    assert gallery.search(new[7], 1)[0].id == photo(PHOTOS + 7).id
    add(place, range(PHOTOS + 50), np.vstack([vectors(PHOTOS, 1), new]))
    assert len(gallery) == PHOTOS + 50, "photos stay single beside an index"
    assert gallery.remove([photo(PHOTOS + 7).id])
    assert gallery.search(new[7], 1)[0].id != photo(PHOTOS + 7).id


def test_anothers_commit_leaves_the_index_in_memory(place: str) -> None:
    """What memory holds of the index does not grow when the next version is searched: nothing of it was read again."""
    Gallery(place, encoder=Given()).index()  # type: ignore[arg-type]
    gallery = Gallery(place, encoder=Given())  # type: ignore[arg-type]
    queries = list(vectors(20, 5))
    assert gallery.prewarm()
    before = gallery.search_many(queries, 5)
    table = gallery._store._table  # type: ignore[attr-defined]
    session = table._session
    held = session.size_bytes
    codes = sum(one.stat().st_size for one in Path(place.removeprefix("lance://")).glob("photos.lance/_indices/*/*"))
    assert held >= 0.5 * codes
    add(place, range(PHOTOS, PHOTOS + 50), -vectors(50, 9))
    assert gallery.search_many(queries, 5) == before
    assert gallery.search(-vectors(50, 9)[7], 1)[0].id == photo(PHOTOS + 7).id
    assert table._session is session
    assert session.size_bytes - held < 0.2 * codes


def test_a_gallery_made_anew_is_not_searched_by_the_old_index(place: str) -> None:
    gallery = Gallery(place, encoder=Given())  # type: ignore[arg-type]
    gallery.index()
    query = vectors(1, 5)[0]
    gallery.search(query, 5)
    shutil.rmtree(place.removeprefix("lance://"))
    add(place, range(PHOTOS, 2 * PHOTOS), vectors(PHOTOS, 3))
    other = Gallery(place, encoder=Given())  # type: ignore[arg-type]
    exact = other.search(query, 5)
    other.index()
    add(place, range(2 * PHOTOS, 2 * PHOTOS + 10), -vectors(10, 4))  # a version that the first one never had
    found = gallery.search(query, 5)
    assert isinstance(gallery._snapshot(), IndexedSnapshot)
    assert all(int(one.id, 16) >= PHOTOS for one in found)
    assert len({one.id for one in exact} & {one.id for one in found}) >= 4


def test_building_an_index_merges_the_files_of_many_commits(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in range(PHOTOS, PHOTOS + 500, 100):
        add(place, range(start, start + 100), vectors(100, start))

    def files() -> int:
        table = open_store(place)._table.current()  # type: ignore[attr-defined]
        return int(table.stats()["fragment_stats"]["num_fragments"])

    assert files() == 6
    gallery = Gallery(place, encoder=Given())  # type: ignore[arg-type]
    monkeypatch.setattr("rasr.gallery.lance_index.FILE", 500)
    gallery.index()
    assert files() == 6, "few enough for so many photos"
    monkeypatch.undo()
    monkeypatch.setattr("rasr.gallery.lance_index.FEWEST", 1000)
    gallery.index()
    assert files() == 1
    assert len(gallery) == gallery.info().indexed == PHOTOS + 500
    assert gallery.search(vectors(100, PHOTOS + 400)[7], 1)[0].id == photo(PHOTOS + 407).id


def test_the_spread_of_scores_is_told_by_a_sample(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = Gallery(place, encoder=Given())  # type: ignore[arg-type]
    query = vectors(1, 5)[0]
    everything = gallery.scores(query)
    gallery.index()
    assert sorted(gallery.scores(query)) == pytest.approx(sorted(everything), abs=1e-6), "few enough for all"
    monkeypatch.setattr("rasr.gallery.lance_index.SAMPLE_ROWS", 32)
    sample = Gallery(place, encoder=Given()).scores(query)  # type: ignore[arg-type]
    assert 1000 <= len(sample) <= 1100
    assert abs(np.median(sample) - np.median(everything)) < 0.03


def test_a_sample_makes_no_threshold_lower() -> None:
    """How good a match must be depends on how many photos there are, not on how many were sampled."""
    reference = Reference(Path("a.png"), 0.6, 1)
    sample = np.linspace(0, 0.3, 100, dtype=np.float32)
    calibration = Calibration(((100, 0.5), (10_000, 0.7)), margin=0.1, sure=0.9)
    assert accept([reference], sample, "given", calibration=calibration)[0].accepted
    judged = accept([reference], sample, "given", calibration=calibration, photos=10_000)[0]
    assert not judged.accepted
    assert "in a gallery of 10000" in judged.why


def test_parameters_grow_with_the_gallery() -> None:
    assert Parameters.of(10) == Parameters(1)
    assert Parameters.of(1_000_000) == Parameters(61)
    assert Parameters.of(10_000_000) == Parameters(610)
    assert Parameters.of(10**9) == Parameters(4096)


def test_vectors_that_cannot_be_indexed_are_searched_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasr.gallery.lance_index.FEWEST", 10)
    address = f"lance://{tmp_path}/gallery"
    with open_store(address).writing(EncoderId("given", "1", 12, "given/1")) as writer:
        drawn = np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        writer.commit([(photo(n), one) for n, one in enumerate(drawn)])
    gallery = Gallery(address, encoder=Given())  # type: ignore[arg-type]
    assert gallery.index() == {}
    assert gallery.info().indexed == 0
    assert gallery.search(drawn[3], 1)[0].id == photo(3).id
