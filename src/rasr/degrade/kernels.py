"""Blur kernels of Real-ESRGAN (arXiv 2107.10833, section 3.1 and 3.3): generalized Gaussian families and sinc."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1

from rasr.degrade.recipe import GaussianKernel, SincKernel

__all__ = ["kernel_array", "usm_kernel"]

Array = NDArray[np.float64]


def kernel_array(kernel: GaussianKernel | SincKernel) -> Array:
    """The kernel as a (size, size) float64 array that sums to 1."""
    weights = _sinc(kernel) if isinstance(kernel, SincKernel) else _gaussian(kernel)
    normalised: Array = weights / weights.sum()
    return normalised


def _offsets(size: int) -> tuple[Array, Array]:
    axis = np.arange(size, dtype=np.float64) - (size - 1) / 2
    return axis[None, :], axis[:, None]


def _gaussian(kernel: GaussianKernel) -> Array:
    """With q = xᵀΣ⁻¹x: exp(−q/2), exp(−q^β/2) or 1/(1 + q^β)."""
    x, y = _offsets(kernel.size)
    cos, sin = np.cos(kernel.angle), np.sin(kernel.angle)
    along = (cos * x + sin * y) / kernel.sigma_x
    across = (-sin * x + cos * y) / kernel.sigma_y
    q = along**2 + across**2
    if kernel.kind.startswith("plateau"):
        return np.asarray(1.0 / (1.0 + q**kernel.beta))
    return np.asarray(np.exp(-0.5 * q**kernel.beta))


def _sinc(kernel: SincKernel) -> Array:
    """The jinc filter ω·J₁(ω r) / (2π r), with its limit ω²/4π at r = 0."""
    x, y = _offsets(kernel.size)
    r = np.hypot(x, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = kernel.cutoff * j1(kernel.cutoff * r) / (2 * np.pi * r)
    return np.where(r == 0, kernel.cutoff**2 / (4 * np.pi), weights)


@lru_cache(maxsize=1)
def usm_kernel() -> Array:
    """The 51-pixel Gaussian (sigma 8) of Real-ESRGAN's unsharp mask."""
    return kernel_array(GaussianKernel(kind="iso", size=51, sigma_x=8.0, sigma_y=8.0))
