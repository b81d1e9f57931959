"""Rows of the table: one method under one reference policy, and the differences between them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rasr.evaluation.bootstrap import Interval, paired_difference
from rasr.evaluation.method import MethodInfo
from rasr.evaluation.metrics import MetricInfo
from rasr.gallery import Reference

__all__ = ["Gain", "Row", "best_two", "reference_gains"]


@dataclass(slots=True)
class Row:
    """One method under one reference policy."""

    info: MethodInfo
    policy: str
    expected: int
    """Pictures of the benchmark."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metric → picture → value, for metrics of single pictures."""
    sets: dict[str, float] = field(default_factory=dict)
    """Metric → value, for distribution metrics."""
    problems: dict[str, str] = field(default_factory=dict)
    """Picture → what is wrong with its output."""
    failed: str = ""
    """Why the method could not be run at all."""
    seconds: dict[str, float] = field(default_factory=dict)
    memory: int = 0
    """Highest peak of resident bytes over the pictures."""
    references: dict[str, tuple[Reference, ...]] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    """Picture → hash of its output, for those that are there and of the right size."""

    @property
    def key(self) -> str:
        """``method`` or ``method:policy``; what ``--baseline`` takes."""
        return f"{self.info.name}:{self.policy}" if self.info.uses_reference else self.info.name

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.info.label}, {self.policy}" if self.info.uses_reference else self.info.label

    @property
    def complete(self) -> bool:
        """Whether every picture was restored at the right size; others are shown but never ranked."""
        return not self.failed and len(self.outputs) == self.expected

    @property
    def median_seconds(self) -> float | None:
        """Median time of one picture; the median because the first one also loads the weights."""
        return statistics.median(self.seconds.values()) if self.seconds else None

    @property
    def similarity(self) -> float | None:
        """Mean cosine similarity of the best reference shown, or None without references."""
        scores = [shown[0].score for shown in self.references.values() if shown]
        return statistics.fmean(scores) if scores else None

    def mean(self, metric: str) -> float | None:
        """The figure of the table: mean over pictures, or the set's value."""
        if metric in self.sets:
            return self.sets[metric]
        values = self.scores.get(metric)
        return statistics.fmean(values.values()) if values else None

    def difference(self, metric: str, other: Row) -> Interval | None:
        """Paired 95 % interval of self − other; None for distribution metrics and fewer than eight pictures."""
        if metric not in self.scores or metric not in other.scores:
            return None
        return paired_difference(self.scores[metric], other.scores[metric])


@dataclass(frozen=True, slots=True)
class Gain:
    """What the reference does to one method by one metric: retrieved minus a control, picture by picture."""

    method: str
    metric: str
    against: str
    """``random`` or ``none``."""
    interval: Interval
    helps: bool | None
    """True or False where the interval excludes zero, None where the pictures do not decide."""

    @property
    def verdict(self) -> str:
        """``helps``, ``harms``, ``undecided``; ``no effect`` where every picture scored the same."""
        if self.interval.low == self.interval.high == 0:
            return "no effect"
        return {True: "helps", False: "harms", None: "undecided"}[self.helps]


def reference_gains(rows: Sequence[Row], metrics: Sequence[MetricInfo]) -> list[Gain]:
    """Retrieved − random (the honest control: any photo) and retrieved − none, for every method that has both rows."""
    table = {(row.info.name, row.policy): row for row in rows if row.info.uses_reference}
    gains = []
    for (method, policy), row in table.items():
        if policy != "retrieved":
            continue
        for against in ("random", "none"):
            control = table.get((method, against))
            for metric in metrics if control is not None else ():
                interval = row.difference(metric.name, control) if control else None
                if interval is not None:
                    helps = metric.improves(interval.mean) if interval.decided else None
                    gains.append(Gain(method, metric.name, against, interval, helps))
    return gains


def best_two(rows: Sequence[Row], metric: MetricInfo) -> tuple[float | None, float | None]:
    """Best and second best printed figure among complete rows without remark; equal figures share a place."""
    figures = {
        round(value, metric.decimals)
        for row in rows
        if row.complete and not row.info.remark and (value := row.mean(metric.name)) is not None
    }
    ordered = sorted(figures, reverse=metric.better == "higher")
    return (ordered[0] if ordered else None, ordered[1] if len(ordered) > 1 else None)
