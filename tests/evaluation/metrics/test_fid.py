"""FID and KID against plain float64 re-computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from rasr.evaluation.metrics.fid import FID, KID
from rasr.evaluation.settings import MeasuringProtocol


@pytest.fixture(autouse=True)
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances need features only."""
    monkeypatch.setattr(FID, "prepare", lambda *_: None)
    monkeypatch.setattr(KID, "prepare", lambda *_: None)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    return FID(MeasuringProtocol()).distance(a, b)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    return KID(MeasuringProtocol()).distance(a, b)


def plain_fid(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    sigma_a, sigma_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(sigma_a @ sigma_b)
    return float(
        np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(sigma_a) + np.trace(sigma_b) - 2 * np.trace(np.real(root))
    )


@pytest.mark.parametrize(("n", "m", "dimension"), [(300, 200, 64), (200, 200, 128), (500, 90, 32)])
def test_fid_equals_a_plain_recomputation(n: int, m: int, dimension: int) -> None:
    rng = np.random.default_rng(n)
    mix = rng.normal(size=(dimension, dimension)) / np.sqrt(dimension)
    a = (rng.normal(size=(n, dimension)) @ mix).astype(np.float32)
    b = (rng.normal(0.3, 1.2, size=(m, dimension))).astype(np.float32)
    assert frechet_distance(a, b) == pytest.approx(plain_fid(a, b), rel=1e-6)


def test_fid_of_fewer_pictures_than_dimensions() -> None:
    """Singular covariances, where a matrix root is only reached through eigenvalues."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(20, 100)), rng.normal(0.5, 1, size=(15, 100))
    values, vectors = np.linalg.eigh(np.cov(a, rowvar=False))
    root = vectors @ np.diag(np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ np.cov(b, rowvar=False) @ root), 0, None)).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_fid_of_equal_sets_is_zero_and_of_shifted_sets_is_the_shift() -> None:
    a = np.random.default_rng(0).normal(size=(50, 16))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * 16, rel=1e-9)


def test_kid_equals_a_double_loop() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(9, 12)), rng.normal(0.4, 1, size=(7, 12))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 12 + 1) ** 3)

    within = sum(kernel(a[i], a[j]) for i in range(9) for j in range(9) if i != j) / 72
    within += sum(kernel(b[i], b[j]) for i in range(7) for j in range(7) if i != j) / 42
    between = sum(kernel(x, y) for x in a for y in b) / 63
    assert kernel_distance(a, b) == pytest.approx(within - 2 * between, rel=1e-12)


def test_kid_is_unbiased() -> None:
    rng = np.random.default_rng(2)
    values = [kernel_distance(rng.normal(size=(12, 8)), rng.normal(size=(12, 8))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(400)


def test_sets_must_fit() -> None:
    with pytest.raises(ValueError, match="features"):
        frechet_distance(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="at least two"):
        kernel_distance(np.zeros((1, 4)), np.zeros((3, 4)))
