"""Report of an evaluation: tables, the page ``page.html`` with its plots and cases, and the figure."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from rasr.evaluation.metrics import MetricInfo
from rasr.evaluation.report.figures import case_pictures, comparison, find_cases
from rasr.evaluation.rows import Row
from rasr.evaluation.runner import Evaluation
from rasr.evaluation.tables import Table, tabulate, write_tables
from rasr.files import write_bytes
from rasr.images import FloatImage

__all__ = ["write_report"]

_FOLDER = Path(__file__).parent


def write_report(evaluation: Evaluation, pictures: Sequence[str] = ()) -> list[Path]:
    """Write the four tables, report.html and figure.png; returns their paths.

    ``pictures`` names those of the figure; without, the ones on which the methods differ most are taken. Raises
    UsageError for a picture that is not in the benchmark.
    """
    table, out = tabulate(evaluation), evaluation.settings.out
    written = write_tables(table)
    written.append(write_bytes(_page(table).encode(), out / "report.html", overwrite=True))
    figure = comparison(evaluation, pictures)
    return written if figure is None else [*written, write_bytes(figure, out / "figure.png", overwrite=True)]


def _page(table: Table) -> str:
    """Render the whole report as HTML."""
    evaluation = table.evaluation
    reach: dict[str, float] = {}
    for gain in table.gains:
        bound = max(abs(gain.interval.low), abs(gain.interval.high))
        reach[gain.metric.name] = max(bound, reach.get(gain.metric.name, 0.0))
    settings = [
        (line.row.key, {k: v for k, v in line.row.info.settings.items() if k not in {"profile", "files"}})
        for line in table.rows
    ]
    cases = find_cases(evaluation)
    template = jinja2.Environment(autoescape=True).from_string((_FOLDER / "page.html").read_text(encoding="utf-8"))
    text = template.render(
        table=table,
        evaluation=evaluation,
        baseline=evaluation.baseline,
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        reach=reach,
        plots=_plots(table),
        cases=cases,
        pictures=lambda name: case_pictures(evaluation, cases, name) if cases else (),
        data_url=_data_url,
        settings=[(key, json.dumps(facts, ensure_ascii=False)) for key, facts in settings],
    )
    return f"{text}\n"


def _plots(table: Table) -> list[tuple[MetricInfo, list[dict[str, Any]]]] | None:
    """All plots by metric; None with nothing to compare."""
    baseline = table.evaluation.baseline
    if baseline is None or len(table.rows) < 2:
        return None
    metrics = [metric for metric in table.evaluation.metrics if metric.kind != "distribution"]
    rows = [line.row for line in table.rows if line.row is not baseline]
    drawn = [(metric, [plot for row in rows if (plot := _plot(row, baseline, metric))]) for metric in metrics]
    return [(metric, plots) for metric, plots in drawn if plots]


def _plot(row: Row, baseline: Row, metric: MetricInfo) -> dict[str, Any]:
    """Compare a row with the baseline picture by picture, places in parts of the axes; empty with nothing shared."""
    ours, theirs = row.scores.get(metric.name, {}), baseline.scores.get(metric.name, {})
    names = sorted(ours.keys() & theirs.keys())
    if not names:
        return {}
    values = [*(ours[name] for name in names), *(theirs[name] for name in names)]
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, length = low - pad, high - low + 2 * pad
    points = []
    for name in names:
        gain = ours[name] - theirs[name]
        kind = "good" if metric.improves(gain) else "bad" if gain else "same"
        title = f"{name}: {theirs[name]:.{metric.decimals}f} → {ours[name]:.{metric.decimals}f}"
        points.append((kind, (theirs[name] - low) / length, (ours[name] - low) / length, title))
    better = sum(kind == "good" for kind, *_ in points)
    ticks = [(part, f"{low + length * part:.3g}") for part in (0.1, 0.5, 0.9)]
    return {"caption": f"{row.label}: better on {better} of {len(names)}", "ticks": ticks, "points": points}


def _data_url(pixels: FloatImage) -> str:
    """The picture as a JPEG inside a URL, so that the page needs no other file."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(buffer, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
