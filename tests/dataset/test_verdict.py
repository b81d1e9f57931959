"""Which photos are the same, which belong together, and who took them."""

from __future__ import annotations

import numpy as np
import pytest

from rasr.dataset import Candidate
from rasr.dataset.verdict import (
    _outliers,
    _same_by_embedding,
    _same_by_hash,
    photographers,
    related_hashes,
    related_pairs,
)


def test_pairs_of_hashes_with_their_distance() -> None:
    hashes = ["00" * 8, "07" + "00" * 7, "3f" + "00" * 7, "ff" * 8]
    assert list(related_hashes(hashes, 3)) == [(0, 1, 3), (1, 2, 3)]
    assert list(related_hashes(hashes, 2)) == list(related_hashes([], 64)) == list(related_hashes(["0"], 64)) == []


@pytest.mark.parametrize("author", ["", "Unknown", " anonymous ", "n/a"])
def test_nobody_is_no_photographer(author: str) -> None:
    assert photographers(Candidate("flickr", "1", "u", author=author, author_id="7@N01")) == ()


def test_a_photographer_is_an_account_and_a_name() -> None:
    here = photographers(Candidate("flickr", "1", "u", author="Ann  Lee", author_id="7@N01"))
    there = photographers(Candidate("commons", "1", "u", author="ANN LEE"))
    assert here[0] != there[0]
    assert here[1] == there[1]


def test_repeated_hashes_point_to_the_first_and_do_not_chain() -> None:
    hashes = np.array([0b0, 0b111, 0b111111, 0xFFFF << 40], np.uint64)
    assert _same_by_hash(hashes, 3) == {1: 0}
    assert _same_by_hash(hashes, 6) == {1: 0, 2: 0}
    assert _same_by_hash(np.array([], np.uint64), 3) == {}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_repeated_and_related_embeddings() -> None:
    vectors = _unit(np.array([[1, 0, 0], [1, 0.05, 0], [0, 1, 0], [1, 0.4, 0]]))
    assert _same_by_embedding(vectors, 0.99) == {1: 0}
    assert {pair[:2] for pair in related_pairs(vectors, 0.9)} == {(0, 1), (0, 3), (1, 3)}
    assert all(cosine == pytest.approx(vectors[i] @ vectors[j]) for i, j, cosine in related_pairs(vectors, -1.0))


def test_one_stranger_is_found_and_two_looks_of_one_subject_are_not() -> None:
    random = np.random.default_rng(0)
    herd = random.normal(0, 0.15, (15, 32)) + np.eye(32)[0]
    portrait = random.normal(0, 0.15, (15, 32)) + np.eye(32)[1]
    stranger = np.eye(32)[5:6]
    found = _outliers(_unit(np.concatenate([herd, portrait, stranger])), 5.0)
    assert set(found) == {30}
    assert found[30] > 5
    assert _outliers(_unit(herd[:8]), 0.1) == {}
    assert _outliers(np.repeat(_unit(herd[:1]), 20, axis=0), 4.0) == {}
