"""Metrics by the protocol of record: their table, their base classes, their weights.

A metric is a file with a class and a line in :data:`METRICS`. The class derives from :class:`ImageMetric` or
:class:`SetMetric`, states its ``facts`` and is named as they name it; what it needs to compute it makes in ``prepare``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rasr.errors import ExtraMissing, UsageError, WeightsError
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import FloatImage
from rasr.progress import Progress
from rasr.weights import fill_model, find, plan_download, read_weights, require

if TYPE_CHECKING:
    import torch

    _Network = TypeVar("_Network", bound=torch.nn.Module)

__all__ = [
    "METRICS",
    "ImageMetric",
    "MetricInfo",
    "MetricWeights",
    "SetMetric",
    "Unavailable",
    "load_metric",
    "load_metrics",
    "parse_metrics",
]

METRICS: dict[str, str] = {
    "PSNR": ".classical",
    "SSIM": ".classical",
    "LPIPS": ".perceptual",
    "DISTS": ".perceptual",
    "FID": ".fid",
    "KID": ".fid",
    "NIQE": ".classical",
    "MUSIQ": ".musiq_clipiqa",
    "CLIPIQA": ".musiq_clipiqa",
    "EPD": ".perceptual",
    "ETD": ".perceptual",
    "ETD_TEXTURE": ".perceptual",
    "ETD_STRUCTURE": ".perceptual",
    "EKD": ".fid",
}
"""Name → module with a class of that name (a dot in front: of this package). The order is that of the columns: as in
the paper's Table I, then what is ours."""


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """Description of a metric, printed with every table so that figures can be compared."""

    name: str
    """Name in tables, ``PSNR``; the command line takes it in any case."""
    better: Literal["higher", "lower"]
    kind: Literal["full-reference", "no-reference", "distribution"]
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
    """Names in the catalogue of weights of what it needs besides its package."""

    @property
    def arrow(self) -> str:
        """``↑`` or ``↓``."""
        return "↑" if self.better == "higher" else "↓"

    @property
    def heading(self) -> str:
        """Heading of its column, ``PSNR ↑``."""
        return f"{self.name} {self.arrow}"

    def improves(self, difference: float) -> bool:
        """True when a change by ``difference`` is for the better."""
        return difference > 0 if self.better == "higher" else difference < 0


class MetricWeights:
    """Weights of metrics, from ``folder`` or the usual places; ``download`` fetches the rest."""

    def __init__(self, folder: Path | None = None, *, download: bool = False, progress: Progress | None = None) -> None:
        self._folder, self._download, self._progress = folder, download, progress

    def find(self, name: str) -> Path:
        """Return the file called ``name`` in the catalogue. Raises WeightsMissing."""
        if self._download and find(name, folder=self._folder) is None:
            return plan_download(name).run(self._progress)
        return require(name, folder=self._folder)

    def load(self, name: str) -> dict[str, torch.Tensor]:
        """Return the file's tensors, on the CPU. Raises WeightsMissing or WeightsCorrupt."""
        return read_weights(self.find(name))

    def build(self, network: Callable[[], _Network], name: str) -> _Network:
        """Build a frozen network on the CPU; tensors that it has no use for are passed over."""
        import torch

        with torch.device("meta"):  # nothing is initialised only to be overwritten
            model = network()
        return fill_model(model, dict(self.load(name)), self.find(name), ignore_extra=True)


class _Metric:
    """A metric ready to measure, configured for one table."""

    facts: ClassVar[MetricInfo]
    """The description; ``{border}``, ``{crop}`` and ``{space}`` in its protocol stand for the table's options."""
    spaces: ClassVar[Mapping[str, str]] = {}
    """Words that ``{space}`` stands for, for each of :class:`MeasuringProtocol`'s."""

    def __init__(self, protocol: MeasuringProtocol, weights: MetricWeights | None = None, device: str = "cpu") -> None:
        self.border, self.space, self.device = protocol.crop_border, protocol.space, device
        crop = f"{self.border} px border cropped" if self.border else "no border cropped"
        words = {"border": str(self.border), "crop": crop, "space": self.spaces.get(self.space, "")}
        self.info = replace(self.facts, protocol=self.facts.protocol.format(**words))
        self.prepare(weights or MetricWeights())

    def prepare(self, weights: MetricWeights) -> None:
        """Build networks. Raises WeightsMissing, WeightsCorrupt or ExtraMissing."""


class ImageMetric(_Metric):
    """A full-reference or no-reference metric: one number a picture."""

    smallest: ClassVar[int] = 1
    """Shortest side it can measure, in pixels, after cropping."""

    def measure(self, restored: FloatImage, truth: FloatImage | None) -> float:
        """Score one picture; ``truth`` has the same shape and is ignored by no-reference metrics.

        Raises ValueError when the shapes differ or the picture is too small for the metric.
        """
        if self.info.kind == "no-reference":
            truth = None
        elif truth is None or restored.shape != truth.shape:
            raise ValueError(f"{self.info.name} needs a ground truth of the same size")
        restored = _crop(restored, self.border)
        if min(restored.shape[:2]) < self.smallest:
            raise ValueError(f"{self.info.name} needs at least {self.smallest}×{self.smallest} pixels")
        return self.score(restored, restored if truth is None else _crop(truth, self.border))

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """Score a cropped picture; ``truth`` is for full-reference metrics only."""
        raise NotImplementedError

    def batch(self, *pictures: FloatImage) -> torch.Tensor:
        """Stack pictures of one size to (N, 3, H, W) on the metric's device."""
        import torch

        return torch.stack([torch.from_numpy(picture.copy()).permute(2, 0, 1) for picture in pictures]).to(self.device)


class SetMetric(_Metric):
    """A distribution metric: one number for two sets of pictures."""

    def features(self, picture: FloatImage) -> NDArray[np.float32]:
        """Return the picture's feature vector, (D,)."""
        raise NotImplementedError

    def distance(self, restored: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
        """Return the distance of two sets of features, (N, D) and (M, D). Raises ValueError."""
        if restored.ndim != 2 or truth.ndim != 2 or restored.shape[1] != truth.shape[1]:
            raise ValueError(f"features must be (N, D) and (M, D), not {restored.shape} and {truth.shape}")
        if min(len(restored), len(truth)) < 2:
            raise ValueError("a distribution needs at least two pictures on each side")
        return self.compare(restored.astype(np.float64), truth.astype(np.float64))

    def compare(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        """Compute the distance of two sets that fit, each of at least two."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A column that cannot be filled, and what to do about it."""

    name: str
    reason: str

    @property
    def heading(self) -> str:
        """Heading of the column."""
        return self.name


def parse_metrics(text: str) -> list[str]:
    """Parse ``"psnr,ssim,all"`` to names of the table, each once. Raises UsageError."""
    chosen: list[str] = []
    for word in (part.strip().upper() for part in text.split(",") if part.strip()):
        names = list(METRICS) if word == "ALL" else [word]
        if names[0] not in METRICS:
            raise UsageError(f"Unknown metric '{word.lower()}'. Choose from: all, {', '.join(METRICS).lower()}.")
        chosen += [name for name in names if name not in chosen]
    if not chosen:
        raise UsageError("--metrics names no metric.")
    return chosen


def load_metric(
    name: str, protocol: MeasuringProtocol, weights: MetricWeights | None = None, *, device: str = "cpu"
) -> ImageMetric | SetMetric:
    """Build one metric. Raises WeightsMissing, WeightsCorrupt or ExtraMissing."""
    metric: ImageMetric | SetMetric = getattr(importlib.import_module(METRICS[name], __name__), name)(
        protocol, weights, device
    )
    return metric


def load_metrics(
    names: Sequence[str], protocol: MeasuringProtocol, weights: MetricWeights | None = None, *, device: str = "cpu"
) -> tuple[list[ImageMetric | SetMetric], list[Unavailable]]:
    """Build every metric that can be had; the others come back with the reason."""
    metrics: list[ImageMetric | SetMetric] = []
    unavailable: list[Unavailable] = []
    for name in names:
        try:
            metrics.append(load_metric(name, protocol, weights, device=device))
        except (WeightsError, ExtraMissing) as error:
            unavailable.append(Unavailable(name, str(error)))
    return metrics, unavailable


def _crop(pixels: FloatImage, border: int) -> FloatImage:
    """Take ``border`` pixels off every side; ValueError when nothing would be left."""
    height, width = pixels.shape[:2]
    if min(height, width) <= 2 * border:
        raise ValueError(f"cropping {border} pixels off every side leaves nothing of {width}×{height}")
    return pixels[border : height - border, border : width - border]
