"""The pictures on which the references, or the methods, did best and worst: looked at, not averaged away."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from rasr.evaluation.metrics import MetricInfo
from rasr.evaluation.report.crops import (
    as_data_url,
    cut,
    enlarged_input,
    reference_picture,
    shown_rows,
    telling_window,
)
from rasr.evaluation.rows import Row
from rasr.evaluation.runner import Evaluation
from rasr.images import read_picture

__all__ = ["case_section", "cases", "deciding_metric"]


def deciding_metric(evaluation: Evaluation) -> MetricInfo | None:
    """The full-reference metric closest to the eye that could be measured."""
    by_name = {metric.name: metric for metric in evaluation.metrics}
    return next((by_name[name] for name in ("LPIPS", "DISTS", "EPD", "SSIM", "PSNR") if name in by_name), None)


def cases(evaluation: Evaluation, count: int = 3) -> tuple[Row, Row, list[str], list[str]] | None:
    """(the row looked at, what it is compared with, its best pictures, its worst), or None with nothing to compare.

    A reference method is compared with itself under a random reference, or none; other tables with their baseline.
    """
    metric = deciding_metric(evaluation)
    if metric is None:
        return None
    focus, other = _focus(evaluation)
    if focus is None or other is None:
        return None
    ours, theirs = focus.scores.get(metric.name, {}), other.scores.get(metric.name, {})
    sign = 1.0 if metric.better == "higher" else -1.0
    names = sorted(ours.keys() & theirs.keys(), key=lambda name: (-sign * (ours[name] - theirs[name]), name))
    count = min(count, len(names) // 2 or len(names))
    return focus, other, names[:count], names[::-1][:count]


def _focus(evaluation: Evaluation) -> tuple[Row | None, Row | None]:
    rows = [row for row in evaluation.rows if row.outputs]
    retrieved = [row for row in rows if row.info.uses_reference and row.policy in {"retrieved", "paired"}]
    for row in reversed(retrieved):
        for policy in ("random", "none"):
            control = next((r for r in rows if r.info.name == row.info.name and r.policy == policy), None)
            if control is not None and control.outputs != row.outputs:
                return row, control
    baseline = evaluation.baseline
    others = [row for row in rows if row is not baseline and not row.info.remark]
    return (others[-1], baseline) if others and baseline is not None and baseline.outputs else (None, None)


def case_section(evaluation: Evaluation) -> Iterator[str]:
    """Worst and best cases, cropped where the two rows differ most, with the reference used."""
    found, metric = cases(evaluation), deciding_metric(evaluation)
    if found is None or metric is None:
        return
    focus, other, best, worst = found
    yield f"<h2>Where {escape(focus.label)} gains and loses most against {escape(other.label)}</h2>"
    for title, names in (("Best", best), ("Worst", worst)):
        yield f"<h3>{title}, by {metric.name} {metric.arrow}</h3>"
        for name in names:
            yield from _case(evaluation, focus, other, name, metric)


def _case(evaluation: Evaluation, focus: Row, other: Row, name: str, metric: MetricInfo) -> Iterator[str]:
    item = next(item for item in evaluation.inputs if item.name == name)
    pictures = {row.key: read_picture(evaluation.output(row, name)).pixels for row in (focus, other)}
    window = telling_window(pictures[focus.key], pictures[other.key])
    figures = [(enlarged_input(item), "input (bicubic)")]
    for row in [other, *(r for r in shown_rows(evaluation) if r not in (focus, other)), focus]:
        if name in row.outputs:
            pixels = pictures.get(row.key)
            pixels = read_picture(evaluation.output(row, name)).pixels if pixels is None else pixels
            value = row.scores.get(metric.name, {}).get(name)
            score = "" if value is None else f", {metric.name} {value:.{metric.decimals}f}"
            figures.append((pixels, f"{row.label}{score}"))
    figures.append((read_picture(item.truth).pixels, "ground truth"))
    yield f'<h4>{escape(name)}</h4><div class="case">'
    for pixels, caption in figures:
        yield _figure(as_data_url(cut(pixels, window)), caption)
    used: dict[Path, str] = {}
    for row in (focus, other, *shown_rows(evaluation)):
        for choice in row.references.get(name, ())[:1]:
            used.setdefault(choice.path, f"reference, {row.policy}: {choice.path.name}, similarity {choice.score:.3f}")
    for path, caption in used.items():
        yield _figure(as_data_url(reference_picture(path, 200)), caption)
    yield "</div>"


def _figure(url: str, caption: str) -> str:
    return f'<figure><img src="{url}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
