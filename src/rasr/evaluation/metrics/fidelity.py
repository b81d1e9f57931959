"""PSNR and SSIM, in float64, by the protocol of record."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from rasr.evaluation.metrics.luma import bt601_limited, bt601_limited_8bit
from rasr.evaluation.metrics.metric import MeasuringProtocol, MetricInfo, crop
from rasr.images import FloatImage

__all__ = ["PSNR", "SSIM", "gaussian_window"]

_PLACE = "options of OSEDiff's test_metrics.py as pyiqa resolves them"


class PSNR:
    """Peak signal-to-noise ratio in dB: 10·log10(1 / (MSE + 1e-8)) on values in [0, 1]; identical pictures give 80."""

    def __init__(self, protocol: MeasuringProtocol) -> None:
        self._protocol = protocol
        where = "Y of BT.601, not rounded" if protocol.space == "y" else "RGB"
        self.info = MetricInfo(
            "PSNR", "higher", "full-reference", 0.0, 80.0, 2, f"{where}, {_crop_words(protocol)}, float64", _PLACE
        )

    def measure(self, restored: FloatImage, truth: FloatImage | None) -> float:
        """PSNR of one pair, dB."""
        restored, reference = _pair(restored, truth, self._protocol.crop_border)
        if self._protocol.space == "y":
            difference = bt601_limited(restored) - bt601_limited(reference)
        else:
            difference = restored.astype(np.float64) - reference.astype(np.float64)
        return float(10.0 * np.log10(1.0 / (np.mean(difference**2) + 1e-8)))


class SSIM:
    """Structural similarity (Wang et al. 2004): Gaussian 11×11 window with σ 1.5, no padding, data range 255.

    Negative contrast-structure terms are clipped to zero, as in the protocol of record.
    """

    def __init__(self, protocol: MeasuringProtocol) -> None:
        self._protocol = protocol
        where = "Y of BT.601, rounded to 8 bit" if protocol.space == "y" else "mean of R, G and B"
        self.info = MetricInfo(
            "SSIM", "higher", "full-reference", 0.0, 1.0, 4, f"{where}, {_crop_words(protocol)}, float64", _PLACE
        )

    def measure(self, restored: FloatImage, truth: FloatImage | None) -> float:
        """SSIM of one pair."""
        restored, reference = _pair(restored, truth, self._protocol.crop_border)
        if min(reference.shape[:2]) < 11:
            raise ValueError("SSIM needs at least 11×11 pixels")
        if self._protocol.space == "y":
            return _ssim(bt601_limited_8bit(restored), bt601_limited_8bit(reference))
        channels = ((restored[..., c] * 255.0, reference[..., c] * 255.0) for c in range(3))
        return float(np.mean([_ssim(a.astype(np.float64), b.astype(np.float64)) for a, b in channels]))


def gaussian_window(size: int, sigma: float) -> NDArray[np.float64]:
    """One axis of a normalised Gaussian window, (size,)."""
    x = np.arange(size) - (size - 1) / 2
    window = np.exp(-(x**2) / (2 * sigma**2))
    return np.asarray(window / window.sum())


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    structure = np.maximum((2 * covariance + c2) / (variance_a + variance_b + c2), 0.0)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float(np.mean(luminance * structure))


def _blur(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    window = gaussian_window(11, 1.5)
    blurred = correlate1d(correlate1d(plane, window, axis=0), window, axis=1)
    return np.asarray(blurred[5:-5, 5:-5])


def _pair(restored: FloatImage, truth: FloatImage | None, border: int) -> tuple[FloatImage, FloatImage]:
    if truth is None:
        raise ValueError("a full-reference metric needs the ground truth")
    if restored.shape != truth.shape:
        raise ValueError(f"restored is {restored.shape[:2]}, ground truth {truth.shape[:2]}")
    return crop(restored, border), crop(truth, border)


def _crop_words(protocol: MeasuringProtocol) -> str:
    return f"{protocol.crop_border} px border cropped" if protocol.crop_border else "no border cropped"
