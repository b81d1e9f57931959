"""The table as Markdown, CSV and JSON, and everything needed to judge it: protocol, intervals, gains, problems."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rasr.evaluation.bootstrap import Interval
from rasr.evaluation.environment import environment
from rasr.evaluation.method import FAMILIES
from rasr.evaluation.metrics import MetricInfo
from rasr.evaluation.metrics.fid import small_set_warning
from rasr.evaluation.rows import Gain, Row, best_two, reference_gains
from rasr.evaluation.runner import Evaluation
from rasr.files import write_bytes

__all__ = ["as_json", "as_markdown", "figure", "notes", "ordered", "signed", "write_tables"]


def write_tables(evaluation: Evaluation) -> list[Path]:
    """Write results.json, results.md, results.csv and scores.csv (one line a picture); returns their paths."""
    out = evaluation.settings.out
    contents = {
        "results.json": json.dumps(as_json(evaluation), indent=1, ensure_ascii=False) + "\n",
        "results.md": as_markdown(evaluation),
        "results.csv": _rows_csv(evaluation),
        "scores.csv": _scores_csv(evaluation),
    }
    return [write_bytes(text.encode(), out / name, overwrite=True) for name, text in contents.items()]


def ordered(evaluation: Evaluation) -> list[Row]:
    """Rows grouped by family, in the order of the paper's Table I, and within a family as asked for."""
    return sorted(evaluation.rows, key=lambda row: FAMILIES.index(row.info.family))


def figure(value: float | None, metric: MetricInfo) -> str:
    """A figure as printed."""
    return "–" if value is None else f"{value:.{metric.decimals}f}"


def signed(interval: Interval, metric: MetricInfo) -> str:
    """``+0.38 [+0.12, +0.61]``."""
    low, high = (f"{bound:+.{metric.decimals}f}" for bound in (interval.low, interval.high))
    return f"{interval.mean:+.{metric.decimals}f} [{low}, {high}]"


def notes(evaluation: Evaluation) -> Iterator[str]:
    """What a reader must know before believing the table, one sentence each."""
    count = len(evaluation.inputs)
    yield f"{count} pictures of '{evaluation.benchmark.name}' ({evaluation.benchmark.layout})."
    if evaluation.gallery:
        yield f"References: {evaluation.gallery}."
        shown = "always" if evaluation.settings.accept == "always" else "when the retrieval policy accepts it"
        yield f"The best match is shown {shown}, k = {evaluation.settings.k}."
        if not evaluation.leaks:
            yield "Checked: no test picture, nor a near-duplicate of one, is among the references."
    kept = (
        "Excluded from the references" if evaluation.settings.exclude_leaks else "Among the benchmark's own references"
    )
    for leak in evaluation.leaks:
        yield f"{kept}: {leak.photo} {leak.why} '{leak.name}'."
    if any(metric.kind == "distribution" for metric in evaluation.metrics):
        warning = small_set_warning(count)
        if warning:
            yield warning
    for column in evaluation.unavailable:
        yield f"{column.name} is unavailable: {column.reason}"
    remarks = {row.info.name: row.info.remark for row in evaluation.rows if row.info.remark}
    for name, remark in remarks.items():
        yield f"{name}: {remark}. Its rows are shown and never ranked."
    for row in evaluation.rows:
        if row.failed:
            yield f"{row.label} could not be run: {row.failed}"
        elif not row.complete:
            yield f"{row.label} is incomplete ({len(row.outputs)} of {row.expected}) and not ranked."
        for name, problem in row.problems.items():
            yield f"{row.label}, picture '{name}': {problem}."


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything; ``rows`` has one object for each method and policy."""
    baseline = evaluation.baseline
    settings = asdict(evaluation.settings)
    return {
        "benchmark": {
            "name": evaluation.benchmark.name,
            "layout": evaluation.benchmark.layout,
            "root": str(evaluation.benchmark.root),
            "pictures": [item.name for item in evaluation.inputs],
        },
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
        "environment": environment(),
        "metrics": [
            {**asdict(metric), "low": _finite(metric.low), "high": _finite(metric.high)}
            for metric in evaluation.metrics
        ],
        "unavailable": [asdict(column) for column in evaluation.unavailable],
        "baseline": baseline.key if baseline else None,
        "rows": [_row_json(evaluation, row) for row in ordered(evaluation)],
        "gains": [_gain_json(gain) for gain in reference_gains(evaluation.rows, evaluation.metrics)],
        "notes": list(notes(evaluation)),
    }


def _row_json(evaluation: Evaluation, row: Row) -> dict[str, Any]:
    baseline = evaluation.baseline
    differences = {
        metric.name: _interval_json(interval)
        for metric in evaluation.metrics
        if baseline is not None and baseline is not row and (interval := row.difference(metric.name, baseline))
    }
    return {
        "method": row.info.name,
        "label": row.label,
        "family": row.info.family,
        "policy": row.policy if row.info.uses_reference else None,
        "remark": row.info.remark,
        "licence": row.info.licence,
        "pictures": len(row.outputs),
        "expected": row.expected,
        "complete": row.complete,
        "failed": row.failed or None,
        "problems": row.problems,
        "scores": {metric.name: row.mean(metric.name) for metric in evaluation.metrics},
        "difference": differences,
        "reference_similarity": row.similarity,
        "seconds": row.median_seconds,
        "memory_bytes": row.memory or None,
        "settings": row.info.settings,
    }


def _metric_json(metric: MetricInfo) -> dict[str, Any]:
    return {**asdict(metric), "low": _finite(metric.low), "high": _finite(metric.high)}


def _gain_json(gain: Gain) -> dict[str, Any]:
    facts = {"method": gain.method, "metric": gain.metric, "against": gain.against, "verdict": gain.verdict}
    return facts | _interval_json(gain.interval)


def _interval_json(interval: Interval) -> dict[str, Any]:
    return asdict(interval)


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None


def as_markdown(evaluation: Evaluation) -> str:
    """Notes, the table (best bold, second best underlined), the gains of the reference, and the protocol."""
    metrics = evaluation.metrics
    lines = [f"# {evaluation.benchmark.name}", "", *(f"- {note}" for note in notes(evaluation)), ""]
    columns = [f"{c.name} {c.arrow}" if isinstance(c, MetricInfo) else c.name for c in evaluation.columns]
    lines += _table_head(["Method", "Reference", "Kind", *columns, "s / picture", "Memory"])
    places = {metric.name: best_two(evaluation.rows, metric) for metric in metrics}
    for row in ordered(evaluation):
        cells = [
            _ranked(row, column, places[column.name]) if isinstance(column, MetricInfo) else "unavailable"
            for column in evaluation.columns
        ]
        policy = row.policy if row.info.uses_reference else "–"
        lines.append(_line([_name(row), policy, row.info.family, *cells, _seconds(row), _memory(row)]))
    baseline = evaluation.baseline
    if baseline is not None and len(evaluation.rows) > 1:
        lines += ["", f"Difference to {baseline.label}, paired bootstrap, 95 %:", ""]
        paired = [metric for metric in metrics if metric.kind != "distribution"]
        lines += _table_head(["Method", "Reference", *(f"{m.name} {m.arrow}" for m in paired)])
        for row in ordered(evaluation):
            if row is not baseline and not row.failed:
                intervals = [(metric, row.difference(metric.name, baseline)) for metric in paired]
                cells = [signed(interval, metric) if interval else "–" for metric, interval in intervals]
                lines.append(_line([_name(row), row.policy if row.info.uses_reference else "–", *cells]))
    lines += _gains_markdown(reference_gains(evaluation.rows, metrics), metrics)
    lines += ["", "Protocol:", "", *(f"- {m.name}: {m.protocol}. {m.source}." for m in metrics), ""]
    lines += [f"{key}: {value}  " for key, value in environment().items()]
    return "\n".join(lines) + "\n"


def _gains_markdown(gains: list[Gain], metrics: list[MetricInfo]) -> list[str]:
    if not gains:
        return []
    by_name = {metric.name: metric for metric in metrics}
    lines = ["", "What the reference does (retrieved minus control, paired bootstrap, 95 %):", ""]
    lines += _table_head(["Method", "Metric", "Control", "Difference", "Verdict"])
    for gain in gains:
        metric = by_name[gain.metric]
        cells = [f"{gain.metric} {metric.arrow}", gain.against, signed(gain.interval, metric), gain.verdict]
        lines.append(_line([gain.method, *cells]))
    return lines


def _ranked(row: Row, metric: MetricInfo, places: tuple[float | None, float | None]) -> str:
    value = row.mean(metric.name)
    text = figure(value, metric)
    if value is None or not row.complete or row.info.remark:
        return text
    rounded = round(value, metric.decimals)
    return f"**{text}**" if rounded == places[0] else f"<u>{text}</u>" if rounded == places[1] else text


def _name(row: Row) -> str:
    name = row.info.label
    if row.failed:
        return f"{name} (not run)"
    return name if row.complete else f"{name} (incomplete: {len(row.outputs)} of {row.expected})"


def _seconds(row: Row) -> str:
    seconds = row.median_seconds
    return "–" if seconds is None else f"{seconds:.2f}"


def _memory(row: Row) -> str:
    return f"{row.memory / 2**20:.0f} MiB" if row.memory else "–"


def _table_head(columns: list[str]) -> list[str]:
    return [_line(columns), _line(["---"] * len(columns))]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _rows_csv(evaluation: Evaluation) -> str:
    names = [column.name for column in evaluation.columns]
    missing = {column.name for column in evaluation.unavailable}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    facts = ["method", "remark", "policy", "family", "pictures", "expected"]
    writer.writerow([*facts, *names, "seconds", "memory_bytes"])
    for row in ordered(evaluation):
        policy = row.policy if row.info.uses_reference else ""
        figures = ["unavailable" if name in missing else _exact(row.mean(name)) for name in names]
        counts = [str(len(row.outputs)), str(row.expected)]
        facts = [row.info.name, row.info.remark, policy, row.info.family, *counts]
        writer.writerow([*facts, *figures, _exact(row.median_seconds), row.memory or ""])
    return text.getvalue()


def _scores_csv(evaluation: Evaluation) -> str:
    names = [metric.name for metric in evaluation.metrics if metric.kind != "distribution"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "policy", "picture", "reference", "similarity", *names])
    for row in ordered(evaluation):
        policy = row.policy if row.info.uses_reference else ""
        for item in evaluation.inputs:
            choice = next(iter(row.references.get(item.name, ())), None)
            shown = [str(choice.path), _exact(choice.score)] if choice else ["", ""]
            values = [_exact(row.scores.get(name, {}).get(item.name)) for name in names]
            writer.writerow([row.info.name, policy, item.name, *shown, *values])
    return text.getvalue()


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
