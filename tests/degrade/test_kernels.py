"""Kernels against the formulas written out point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import jv

from rasr.degrade.kernels import kernel_array, usm_kernel
from rasr.degrade.presets import KERNEL_KINDS
from rasr.degrade.recipe import GaussianKernel, SincKernel


@pytest.mark.parametrize("kind", KERNEL_KINDS)
def test_gaussian_families_match_the_matrix_form(kind: str) -> None:
    kernel = GaussianKernel(kind=kind, size=9, sigma_x=2.0, sigma_y=0.7, angle=0.6, beta=1.7)
    rotation = np.array([[math.cos(0.6), -math.sin(0.6)], [math.sin(0.6), math.cos(0.6)]])
    inverse = np.linalg.inv(rotation @ np.diag([4.0, 0.49]) @ rotation.T)
    expected = np.zeros((9, 9))
    for row in range(9):
        for column in range(9):
            point = np.array([column - 4, row - 4])
            q = point @ inverse @ point
            expected[row, column] = 1 / (1 + q**1.7) if "plateau" in kind else math.exp(-0.5 * q**1.7)
    np.testing.assert_allclose(kernel_array(kernel), expected / expected.sum(), rtol=1e-10)


def test_beta_one_is_the_ordinary_gaussian() -> None:
    plain = GaussianKernel(kind="iso", size=21, sigma_x=1.3, sigma_y=1.3)
    axis = np.exp(-0.5 * (np.arange(-10, 11) / 1.3) ** 2)
    np.testing.assert_allclose(kernel_array(plain), np.outer(axis, axis) / axis.sum() ** 2, rtol=1e-12)


def test_sinc_matches_the_formula_and_passes_low_frequencies_only() -> None:
    cutoff = math.pi / 3
    weights = kernel_array(SincKernel(size=21, cutoff=cutoff))
    expected = np.zeros((21, 21))
    for row in range(21):
        for column in range(21):
            r = math.hypot(row - 10, column - 10)
            expected[row, column] = (
                cutoff**2 / (4 * math.pi) if r == 0 else cutoff * jv(1, cutoff * r) / (2 * math.pi * r)
            )
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-9, atol=1e-15)
    response = np.abs(np.fft.fft2(weights, (128, 128)))
    assert abs(response[0, 4] - 1) < 0.1
    assert response[0, 40] < 0.1


@pytest.mark.parametrize("size", [7, 21])
@pytest.mark.parametrize("sigma", [0.2, 3.0])
def test_every_kernel_sums_to_one_and_is_symmetric(size: int, sigma: float) -> None:
    for kind in KERNEL_KINDS:
        weights = kernel_array(
            GaussianKernel(kind=kind, size=size, sigma_x=sigma, sigma_y=3.2 - sigma, angle=1, beta=0.5)
        )
        assert np.isfinite(weights).all()
        assert math.isclose(weights.sum(), 1, rel_tol=1e-12)
        np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-15)


def test_the_unsharp_mask_is_51_pixels_wide() -> None:
    assert usm_kernel().shape == (51, 51)
    assert math.isclose(usm_kernel()[25, 25] / usm_kernel()[25, 33], math.exp(0.5))
