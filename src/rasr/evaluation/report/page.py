"""The page: one HTML file with everything inside it, readable without a network and without scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

from rasr.evaluation.environment import environment
from rasr.evaluation.metrics import MetricInfo
from rasr.evaluation.report.cases import case_section
from rasr.evaluation.report.scatter import gain_bar, scatter
from rasr.evaluation.rows import Row, best_two, reference_gains
from rasr.evaluation.runner import Evaluation
from rasr.evaluation.tables import figure, notes, ordered, signed

__all__ = ["page"]

_STYLE = Path(__file__).with_name("page.css")


def page(evaluation: Evaluation) -> str:
    """The whole report as HTML."""
    title = f"Evaluation on {escape(evaluation.benchmark.name)}"
    style = _STYLE.read_text(encoding="utf-8")
    body = "\n".join(
        [
            f"<h1>{title}</h1>",
            "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes(evaluation)) + "</ul>",
            *_table(evaluation),
            *_gains(evaluation),
            *_scatters(evaluation),
            *case_section(evaluation),
            *_facts(evaluation),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _table(evaluation: Evaluation) -> Iterator[str]:
    heads = [
        f'<th title="{escape(c.protocol)}">{c.name} {c.arrow}</th>'
        if isinstance(c, MetricInfo)
        else f'<th title="{escape(c.reason)}">{c.name}</th>'
        for c in evaluation.columns
    ]
    baseline = evaluation.baseline
    yield "<h2>Table</h2>"
    under = (
        f"; below each figure: difference to {escape(baseline.label)}" if baseline and len(evaluation.rows) > 1 else ""
    )
    yield f'<p><span class="best">Best</span> and <span class="second">second best</span>{under}.</p>'
    yield '<div class="scroll"><table><thead><tr><th>Method</th><th>Reference</th>' + "".join(heads)
    yield "<th>s / picture</th><th>Memory</th></tr></thead><tbody>"
    places = {metric.name: best_two(evaluation.rows, metric) for metric in evaluation.metrics}
    family = ""
    for row in ordered(evaluation):
        if row.info.family != family:
            family = row.info.family
            yield f'<tr class="family"><td colspan="{len(heads) + 4}">{escape(family)}</td></tr>'
        cells = [
            _cell(row, baseline, column, places[column.name])
            if isinstance(column, MetricInfo)
            else f'<td class="muted" title="{escape(column.reason)}">unavailable</td>'
            for column in evaluation.columns
        ]
        policy = row.policy if row.info.uses_reference else "–"
        seconds = "–" if row.median_seconds is None else f"{row.median_seconds:.2f}"
        memory = f"{row.memory / 2**20:.0f} MiB" if row.memory else "–"
        similarity = f"<small>similarity {row.similarity:.3f}</small>" if row.similarity is not None else ""
        yield f"<tr><td>{_name(row)}</td><td>{policy}{similarity}</td>{''.join(cells)}"
        yield f"<td>{seconds}</td><td>{memory}</td></tr>"
    yield "</tbody></table></div>"


def _name(row: Row) -> str:
    name = escape(row.info.label)
    if row.failed:
        return f"{name}<small>not run: {escape(row.failed)}</small>"
    if not row.complete:
        return f"{name}<small>incomplete: {len(row.outputs)} of {row.expected}</small>"
    return name


def _cell(row: Row, baseline: Row | None, metric: MetricInfo, places: tuple[float | None, float | None]) -> str:
    value = row.mean(metric.name)
    text = figure(value, metric)
    if value is not None and row.complete and not row.info.remark:
        rounded = round(value, metric.decimals)
        kind = "best" if rounded == places[0] else "second" if rounded == places[1] else ""
        text = f'<span class="{kind}">{text}</span>' if kind else text
    base = baseline.mean(metric.name) if baseline is not None and baseline is not row else None
    if value is None or base is None or baseline is None:
        return f"<td>{text}</td>"
    interval = row.difference(metric.name, baseline)
    hover = f' title="{signed(interval, metric)}, paired bootstrap 95 %"' if interval else ""
    return f"<td{hover}>{text}<small>{value - base:+.{metric.decimals}f}</small></td>"


def _gains(evaluation: Evaluation) -> Iterator[str]:
    gains = reference_gains(evaluation.rows, evaluation.metrics)
    if not gains:
        return
    by_name = {metric.name: metric for metric in evaluation.metrics}
    yield "<h2>What the reference does</h2>"
    yield (
        "<p>Retrieved minus control on the same pictures, with its paired bootstrap 95 % interval. "
        "Random is the honest control: the method is shown some photo of the same gallery.</p>"
    )
    yield '<div class="scroll"><table><thead><tr><th>Method</th><th>Metric</th><th>Control</th><th>Difference</th>'
    yield "<th></th><th>Verdict</th></tr></thead><tbody>"
    for gain in gains:
        metric = by_name[gain.metric]
        reach = max(
            max(abs(other.interval.low), abs(other.interval.high)) for other in gains if other.metric == gain.metric
        )
        yield (
            f"<tr><td>{escape(gain.method)}</td><td>{gain.metric} {metric.arrow}</td><td>{gain.against}</td>"
            f"<td>{signed(gain.interval, metric)}</td><td>{gain_bar(gain, reach)}</td><td>{gain.verdict}</td></tr>"
        )
    yield "</tbody></table></div>"


def _scatters(evaluation: Evaluation) -> Iterator[str]:
    baseline = evaluation.baseline
    if baseline is None or len(evaluation.rows) < 2:
        return
    yield f"<h2>Picture by picture, against {escape(baseline.label)}</h2>"
    for metric in evaluation.metrics:
        plots = [
            scatter(row, baseline, metric)
            for row in ordered(evaluation)
            if row is not baseline and row.scores.get(metric.name)
        ]
        if metric.kind != "distribution" and any(plots):
            opened = " open" if metric.name in {"PSNR", "LPIPS", "EPD"} else ""
            yield f'<details{opened}><summary>{metric.name} {metric.arrow}</summary><div class="plots">'
            yield "".join(plots) + "</div></details>"


def _facts(evaluation: Evaluation) -> Iterator[str]:
    yield "<h2>Protocol</h2><dl>"
    for metric in evaluation.metrics:
        source = f'<span class="muted">{escape(metric.source)}</span>'
        yield f"<dt>{metric.name}</dt><dd>{escape(metric.protocol)}. {source}</dd>"
    for column in evaluation.unavailable:
        yield f"<dt>{column.name}</dt><dd>unavailable: {escape(column.reason)}</dd>"
    yield "</dl><h2>Settings</h2><dl>"
    made = evaluation.settings.inputs
    crop = f"centre {made.crop}×{made.crop}" if made.crop else "whole picture"
    yield f"<dt>inputs</dt><dd>{crop}, ×{made.scale}, {escape(made.degradation)}, seed {made.seed}</dd>"
    for row in ordered(evaluation):
        facts = {key: value for key, value in row.info.settings.items() if key not in {"profile", "files"}}
        yield f"<dt>{escape(row.key)}</dt><dd>{escape(json.dumps(facts, ensure_ascii=False))}</dd>"
    yield "</dl><h2>Environment</h2><dl>"
    for key, value in environment().items():
        yield f"<dt>{key}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"
