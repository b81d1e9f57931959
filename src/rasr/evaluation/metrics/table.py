"""The metrics by name, and what happens when one cannot be had: it stays in the table and says why."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from rasr.errors import ExtraMissing, UsageError, WeightsError
from rasr.evaluation.metrics.metric import ImageMetric, MeasuringProtocol, SetMetric
from rasr.evaluation.metrics.weights import MetricWeights

__all__ = ["DEFAULT_METRICS", "METRICS", "Unavailable", "load_metric", "load_metrics", "parse_metrics"]

METRICS: dict[str, str] = {
    "PSNR": "fidelity",
    "SSIM": "fidelity",
    "LPIPS": "lpips",
    "DISTS": "dists",
    "FID": "distribution",
    "KID": "distribution",
    "NIQE": "niqe",
    "MUSIQ": "musiq",
    "CLIPIQA": "clipiqa",
    "EPD": "epd",
}
"""Name → module with a class of that name, in the order of the paper's Table I, then what is ours."""

DEFAULT_METRICS = tuple(METRICS)

_WITHOUT_WEIGHTS = {"PSNR", "SSIM", "NIQE"}
_PACKAGED_WEIGHTS = {"EPD"}


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A column that cannot be filled, and what to do about it."""

    name: str
    reason: str


def parse_metrics(text: str) -> list[str]:
    """``"psnr,ssim,all"`` → names as in the table, each once. Raises UsageError for an unknown one."""
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
    """Build one metric. Raises WeightsMissing, WeightsCorrupt or ExtraMissing when it cannot be had."""
    build = getattr(importlib.import_module(f"rasr.evaluation.metrics.{METRICS[name]}"), name)
    metric: ImageMetric | SetMetric
    if name in _WITHOUT_WEIGHTS:
        metric = build(protocol)
    elif name in _PACKAGED_WEIGHTS:
        metric = build(protocol, device)
    else:
        metric = build(protocol, weights or MetricWeights(), device)
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
