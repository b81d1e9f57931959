"""Metrics by the protocol of record; each one says what it measures, how, and what it needs."""

from __future__ import annotations

from rasr.evaluation.metrics.metric import (
    Features,
    ImageMetric,
    MeasuringProtocol,
    Metric,
    MetricInfo,
    SetMetric,
)
from rasr.evaluation.metrics.table import (
    DEFAULT_METRICS,
    METRICS,
    Unavailable,
    load_metric,
    load_metrics,
    parse_metrics,
)
from rasr.evaluation.metrics.weights import WEIGHT_FILES, MetricWeights, WeightFile

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "WEIGHT_FILES",
    "Features",
    "ImageMetric",
    "MeasuringProtocol",
    "Metric",
    "MetricInfo",
    "MetricWeights",
    "SetMetric",
    "Unavailable",
    "WeightFile",
    "load_metric",
    "load_metrics",
    "parse_metrics",
]
