"""What a metric is: a description, and a number for a picture, a pair or two sets of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage

__all__ = ["Features", "ImageMetric", "Kind", "MeasuringProtocol", "Metric", "MetricInfo", "SetMetric", "crop"]

Kind = Literal["full-reference", "no-reference", "distribution"]

Features = NDArray[np.float32]
"""One picture as a distribution metric sees it: (D,) float32."""


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a metric says about itself; printed with every table so that figures can be compared."""

    name: str
    """Name in tables, ``PSNR``; the command line takes it in any case."""
    better: Literal["higher", "lower"]
    kind: Kind
    low: float
    """Smallest possible value."""
    high: float
    """Largest possible value; ``inf`` when there is none."""
    decimals: int
    """Digits after the point in tables, as papers print them."""
    protocol: str
    """The exact options, in words."""
    source: str
    """Paper, and where the options were read."""
    weights: tuple[str, ...] = ()
    """Names of the weight files needed, keys of ``weights.WEIGHT_FILES``."""

    @property
    def arrow(self) -> str:
        """``↑`` or ``↓``, as in table headings."""
        return "↑" if self.better == "higher" else "↓"

    def improves(self, difference: float) -> bool:
        """Whether a change by ``difference`` is for the better."""
        return difference > 0 if self.better == "higher" else difference < 0


@dataclass(frozen=True, slots=True)
class MeasuringProtocol:
    """Options that apply to a whole table.

    The defaults are the protocol of record (OSEDiff and TSD-SR ``test_metrics.py``): no border is cropped, PSNR and
    SSIM on the luma of BT.601. ReFIR and AdaRefSR crop 4 pixels off every side before all metrics but FID.
    """

    crop_border: int = 0
    """Pixels taken off every side before every metric of single pictures; never before FID and KID."""
    space: Literal["y", "rgb"] = "y"
    """Channel PSNR and SSIM look at: luma of BT.601, or the three colour channels."""


class Metric(Protocol):
    """What both kinds share."""

    @property
    def info(self) -> MetricInfo:
        """Description of this metric as configured."""
        ...


@runtime_checkable
class ImageMetric(Metric, Protocol):
    """Full-reference and no-reference metrics: one number a picture."""

    def measure(self, restored: FloatImage, truth: FloatImage | None) -> float:
        """Score one picture; ``truth`` has the same shape and is ignored by no-reference metrics.

        Raises ValueError when the shapes differ or the picture is too small for the metric.
        """
        ...


@runtime_checkable
class SetMetric(Metric, Protocol):
    """Distribution metrics: one number for two sets of pictures."""

    def features(self, picture: FloatImage) -> Features:
        """The picture's feature vector, (D,) float32."""
        ...

    def distance(self, restored: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
        """Distance of two sets of features, (N, D) and (M, D)."""
        ...


def crop(pixels: FloatImage, border: int) -> FloatImage:
    """``pixels`` without ``border`` pixels on every side; ValueError when nothing would be left."""
    height, width = pixels.shape[:2]
    if min(height, width) <= 2 * border:
        raise ValueError(f"cropping {border} pixels off every side leaves nothing of {width}×{height}")
    return pixels[border : height - border, border : width - border]
