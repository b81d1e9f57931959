"""The page: values for ``page.html``, its plots and its cases with the pictures inside."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from rasr.evaluation.metrics import MetricInfo
from rasr.evaluation.report.figures import case_pictures, find_cases
from rasr.evaluation.rows import Row
from rasr.evaluation.tables import Table
from rasr.images import FloatImage

_FOLDER = Path(__file__).parent


def page(table: Table) -> str:
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
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - a file of this package
        reach=reach,
        plots=_plots(table),
        cases=cases,
        pictures=lambda name: case_pictures(evaluation, cases, name) if cases else (),
        data_url=_data_url,
        settings=[(key, json.dumps(facts, ensure_ascii=False)) for key, facts in settings],
    )
    return f"{text}\n"


@dataclass(frozen=True, slots=True)
class _Plot:
    """Picture-by-picture comparison of a row with the baseline."""

    caption: str
    ticks: list[tuple[float, str]]
    """Places along both axes, in parts of their length, and their text."""
    points: list[tuple[str, float, float, str]]
    """Class (good, bad, same), place across and up, and the text under the pointer."""


def _plots(table: Table) -> list[tuple[MetricInfo, list[_Plot]]] | None:
    """All plots by metric; None with nothing to compare."""
    baseline = table.evaluation.baseline
    if baseline is None or len(table.rows) < 2:
        return None
    metrics = [metric for metric in table.evaluation.metrics if metric.kind != "distribution"]
    rows = [line.row for line in table.rows if line.row is not baseline]
    drawn = [(metric, [plot for row in rows if (plot := _plot(row, baseline, metric))]) for metric in metrics]
    return [(metric, plots) for metric, plots in drawn if plots]


def _plot(row: Row, baseline: Row, metric: MetricInfo) -> _Plot | None:
    ours, theirs = row.scores.get(metric.name, {}), baseline.scores.get(metric.name, {})
    names = sorted(ours.keys() & theirs.keys())
    if not names:
        return None
    values = [*(ours[name] for name in names), *(theirs[name] for name in names)]
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, length = low - pad, high - low + 2 * pad
    gains = {name: ours[name] - theirs[name] for name in names}
    better = {name for name in names if metric.improves(gains[name])}
    return _Plot(
        f"{row.label}: better on {len(better)} of {len(names)}",
        [(part, f"{low + length * part:.3g}") for part in (0.1, 0.5, 0.9)],
        [
            (
                "good" if name in better else "bad" if gains[name] else "same",
                (theirs[name] - low) / length,
                (ours[name] - low) / length,
                f"{name}: {theirs[name]:.{metric.decimals}f} → {ours[name]:.{metric.decimals}f}",
            )
            for name in names
        ],
    )


def _data_url(pixels: FloatImage) -> str:
    """The picture as a JPEG inside a URL, so that the page needs no other file."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(buffer, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
