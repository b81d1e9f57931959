"""Picture-by-picture comparison with the baseline, and intervals, as inline SVG."""

from __future__ import annotations

from html import escape

from rasr.evaluation.metrics import MetricInfo
from rasr.evaluation.rows import Gain, Row

__all__ = ["gain_bar", "scatter"]

_SIDE, _MARGIN = 240, 40


def scatter(row: Row, baseline: Row, metric: MetricInfo) -> str:
    """One point a picture: baseline's score across, the row's up; points on the better side of the line are green."""
    ours, theirs = row.scores.get(metric.name, {}), baseline.scores.get(metric.name, {})
    names = sorted(ours.keys() & theirs.keys())
    if not names:
        return ""
    values = [*(ours[name] for name in names), *(theirs[name] for name in names)]
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad

    def place(value: float) -> float:
        return (value - low) / (high - low) * _SIDE

    points, better = [], 0
    for name in names:
        gain = ours[name] - theirs[name]
        good = metric.improves(gain)
        better += good
        x, y = _MARGIN + place(theirs[name]), 10 + _SIDE - place(ours[name])
        figures = f"{theirs[name]:.{metric.decimals}f} → {ours[name]:.{metric.decimals}f}"
        kind = "good" if good else "bad" if gain else "same"
        hover = f"<title>{escape(name)}: {figures}</title>"
        points.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{hover}</circle>')
    left, bottom = _MARGIN, 10 + _SIDE
    ticks = "".join(
        f'<text x="{left + place(tick):.1f}" y="{bottom + 14}" class="tick mid">{_short(tick)}</text>'
        f'<text x="{left - 5}" y="{bottom - place(tick) + 4:.1f}" class="tick end">{_short(tick)}</text>'
        for tick in (low + (high - low) * part for part in (0.1, 0.5, 0.9))
    )
    caption = f"{escape(row.label)}: better on {better} of {len(names)}"
    return (
        f'<figure><svg viewBox="0 0 {_SIDE + _MARGIN + 10} {_SIDE + 44}" role="img" aria-label="{caption}">'
        f'<rect x="{left}" y="10" width="{_SIDE}" height="{_SIDE}" class="frame"/>'
        f'<line x1="{left}" y1="{bottom}" x2="{left + _SIDE}" y2="10" class="diagonal"/>{ticks}{"".join(points)}'
        f'<text x="{left + _SIDE / 2}" y="{bottom + 30}" class="tick mid">{metric.name} {metric.arrow} of '
        f"{escape(baseline.label)}</text></svg><figcaption>{caption}</figcaption></figure>"
    )


def gain_bar(gain: Gain, reach: float) -> str:
    """An interval as a bar around zero; ``reach`` is the largest absolute bound among those of one metric."""
    if reach <= 0:
        return ""
    width, middle = 200, 100.0

    def x(value: float) -> float:
        return middle + value / reach * (middle - 6)

    kind = {True: "good", False: "bad", None: "same"}[gain.helps]
    return (
        f'<svg viewBox="0 0 {width} 16" class="bar"><line x1="{middle}" y1="0" x2="{middle}" y2="16" class="zero"/>'
        f'<line x1="{x(gain.interval.low):.1f}" y1="8" x2="{x(gain.interval.high):.1f}" y2="8" class="span {kind}"/>'
        f'<circle cx="{x(gain.interval.mean):.1f}" cy="8" r="3.5" class="{kind}"/></svg>'
    )


def _short(value: float) -> str:
    return f"{value:.3g}"
