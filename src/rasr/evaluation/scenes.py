"""Same scene or not: how often references were verified, and what results gained by verdict and by coverage."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import betaincinv

from rasr.evaluation.inputs import TestInput
from rasr.evaluation.metrics import MetricInfo
from rasr.evaluation.references import shows_scene
from rasr.evaluation.rows import Interval, Row
from rasr.gallery import Reference

SAME = "same scene"


@dataclass(frozen=True, slots=True)
class Rate:
    """A count out of a total."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the share (Clopper and Pearson 1934); (0, 1) of nothing."""
        k, n = self.count, self.total
        low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
        high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
        return low, high

    @property
    def text(self) -> str:
        """``9 of 12 (75 %, 43–95 %)``; ``–`` of nothing."""
        if not self.total:
            return "–"
        low, high = (f"{100 * bound:.3g}" for bound in self.interval)
        return f"{self.count} of {self.total} ({100 * self.count / self.total:.3g} %, {low}–{high} %)"


@dataclass(frozen=True, slots=True)
class Compared:
    """What some pictures of a row scored, beside the same pictures without a reference."""

    value: float
    without: float | None
    """Mean of the row of policy ``none``; None where there is no such row."""
    interval: Interval | None
    """Paired interval of the difference; None below eight pictures."""

    def text(self, metric: MetricInfo) -> str:
        """``0.1234 (-0.0310)``, the difference to no reference in brackets."""
        figure = f"{self.value:.{metric.decimals}f}"
        return figure if self.without is None else f"{figure} ({self.value - self.without:+.{metric.decimals}f})"


@dataclass(frozen=True, slots=True)
class Group:
    """The pictures of a row with one verdict or one coverage."""

    name: str
    pictures: tuple[str, ...]
    share: float
    """Mean share of the result, 0 to 1, that is detail of photos."""
    scores: Mapping[str, Compared]
    """One for each metric of single pictures that has values here."""


@dataclass(frozen=True, slots=True)
class SceneRow:
    """What a method made of the references it was shown under one policy."""

    row: Row
    verified: Rate
    """Pictures of which at least one photo shown was taken for the same scene."""
    false_accepts: Rate
    """Photos of other places taken for the same scene, of all such photos shown; layout ``pairs`` only."""
    wrong: tuple[tuple[str, Reference], ...]
    """Those: picture and photo."""
    groups: tuple[Group, ...]


_SHARES = ((0.0, 0.25), (0.25, 0.5), (0.5, 1.01))
"""Bounds of coverage, half-open."""


def judge_scenes(rows: Sequence[Row], inputs: Sequence[TestInput], metrics: Sequence[MetricInfo]) -> list[SceneRow]:
    """Collect the verdicts of all rows whose methods tell them, in the order of ``rows``."""
    table = {row.key: row for row in rows}
    return [
        _scene_row(row, table.get(f"{row.info.name}:none"), inputs, metrics)
        for row in rows
        if any(one.verdict for shown in row.references.values() for one in shown)
    ]


def is_same(references: Sequence[Reference]) -> bool:
    """True when one of a picture's references was taken for the same scene."""
    return any(one.verdict == SAME for one in references)


def share_of(references: Sequence[Reference]) -> float:
    """Share of a result, 0 to 1, that is detail of its references; layers do not overlap."""
    return min(1.0, sum(one.share or 0.0 for one in references))


def _scene_row(row: Row, without: Row | None, inputs: Sequence[TestInput], metrics: Sequence[MetricInfo]) -> SceneRow:
    judged = {name: shown for name, shown in row.references.items() if any(one.verdict for one in shown)}
    foreign = [
        (item.name, one)
        for item in inputs
        if item.paired and row.policy != "truth"
        for one in judged.get(item.name, ())
        if not shows_scene(item, category=one.category, identity=one.id)
    ]
    wrong = tuple((name, one) for name, one in foreign if one.verdict == SAME)
    same = [name for name, shown in judged.items() if is_same(shown)]
    return SceneRow(
        row,
        Rate(len(same), len(judged)),
        Rate(len(wrong), len(foreign)),
        wrong,
        tuple(_groups(row, without, judged, metrics)),
    )


def _groups(
    row: Row,
    without: Row | None,
    judged: Mapping[str, Sequence[Reference]],
    metrics: Sequence[MetricInfo],
) -> Iterator[Group]:
    """Yield all pictures, those of each verdict, and those of the same scene by coverage; empty groups are left out."""

    def group(name: str, member: Callable[[Sequence[Reference]], bool]) -> Iterator[Group]:
        names = tuple(sorted(one for one, shown in judged.items() if member(shown) and one in row.outputs))
        if names:
            share = statistics.fmean(share_of(judged[one]) for one in names)
            compared = {metric.name: _compare(row, without, metric, names) for metric in metrics}
            yield Group(name, names, share, {key: one for key, one in compared.items() if one is not None})

    yield from group("all", lambda _: True)
    yield from group(SAME, is_same)
    yield from group("not the same scene", lambda shown: not is_same(shown))
    for low, high in _SHARES:
        told = f"below {high:.0%}" if low == 0 else f"{low:.0%} and above" if high > 1 else f"{low:.0%} to {high:.0%}"
        yield from group(
            f"{SAME}, covered {told}",
            lambda shown, low=low, high=high: is_same(shown) and low <= share_of(shown) < high,  # type: ignore[misc]
        )


def _compare(row: Row, without: Row | None, metric: MetricInfo, names: Sequence[str]) -> Compared | None:
    ours = row.scores.get(metric.name, {})
    theirs = without.scores.get(metric.name, {}) if without else {}
    shared = [name for name in names if name in ours and (name in theirs or not theirs)]
    if not shared:
        return None
    base = statistics.fmean(theirs[name] for name in shared) if theirs else None
    interval = row.difference(metric.name, without, shared) if without else None
    return Compared(statistics.fmean(ours[name] for name in shared), base, interval)
