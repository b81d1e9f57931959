"""Table of an evaluation: one model, written as JSON, Markdown, CSV, and by ``report``."""

import csv
import io
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rasr.evaluation.method import FAMILIES
from rasr.evaluation.metrics import METRICS, MetricInfo, Unavailable
from rasr.evaluation.rows import Gain, Interval, Row, reference_gains
from rasr.evaluation.runner import Evaluation
from rasr.evaluation.scenes import SAME, Rate, SceneRow, is_same, judge_scenes, share_of
from rasr.files import json_text, write_bytes

_RELIABLE_SET = 2048
"""Below as many pictures as there are feature dimensions, the covariances FID compares are singular."""
_PACKAGES = ("rasr", "numpy", "scipy", "pillow", "torch", "ncnn", "diffusers")


@dataclass(frozen=True, slots=True)
class _Cell:
    """One figure of the table: what a row scored by a metric."""

    column: MetricInfo | Unavailable
    value: float | None = None
    text: str = "unavailable"
    """As printed: with the metric's digits, ``–`` where there is no value."""
    rank: str | None = None
    """``best`` or ``second`` among the rows that are ranked; equal printed figures share one."""
    change: float | None = None
    """Difference to the baseline's value."""
    interval: Interval | None = None
    """Paired interval of that difference, where the pictures give one."""


@dataclass(frozen=True, slots=True)
class _TableRow:
    """A row as printed."""

    row: Row
    policy: str | None
    """The reference policy, None for a method that uses no reference."""
    status: str
    """``not run`` or ``incomplete: 7 of 9``, else empty."""
    seconds: str
    memory: str
    cells: dict[str, _Cell]
    """One for each column, in order."""

    @property
    def name(self) -> tuple[str, str]:
        """Method with its status, and policy."""
        label = self.row.info.label
        return f"{label} ({self.status})" if self.status else label, self.policy or "–"


@dataclass(frozen=True, slots=True)
class Table:
    """All that is written down of an evaluation."""

    evaluation: Evaluation
    columns: list[MetricInfo | Unavailable]
    """Those asked for, in the order of the metrics' table."""
    rows: list[_TableRow]
    """Grouped by family, in the order of the paper's Table I, and within a family as asked for."""
    gains: list[Gain]
    scenes: list[SceneRow]
    """Verdicts on references; empty where no method told any."""
    notes: list[str]
    """Facts a reader must know before believing the table, one sentence each."""
    environment: dict[str, str]


def tabulate(evaluation: Evaluation) -> Table:
    """Compute every figure, rank and interval of the table once."""
    known: dict[str, MetricInfo | Unavailable] = {column.name: column for column in evaluation.unavailable}
    known |= {metric.name: metric for metric in evaluation.metrics}
    columns = [known[name] for name in METRICS if name in known]
    places = {metric.name: _best_two(evaluation.rows, metric) for metric in evaluation.metrics}
    rows = [
        _TableRow(
            row,
            row.policy if row.info.uses_reference else None,
            "not run" if row.failed else "" if row.complete else f"incomplete: {len(row.outputs)} of {row.expected}",
            "–" if row.median_seconds is None else f"{row.median_seconds:.2f}",
            f"{row.memory / 2**20:.0f} MiB" if row.memory else "–",
            {column.name: _cell(row, column, places.get(column.name, []), evaluation.baseline) for column in columns},
        )
        for row in sorted(evaluation.rows, key=lambda row: FAMILIES.index(row.info.family))
    ]
    gains = reference_gains(evaluation.rows, evaluation.metrics)
    scenes = judge_scenes([line.row for line in rows], evaluation.inputs, evaluation.metrics)
    return Table(evaluation, columns, rows, gains, scenes, list(_notes(evaluation, scenes)), _environment())


def write_tables(table: Table) -> list[Path]:
    """Write results.json, results.md, results.csv, scores.csv, and scenes.csv with verdicts; returns their paths."""
    contents = {
        "results.json": json_text(_json(table), indent=1) + "\n",
        "results.md": _markdown(table),
        "results.csv": _csv(_csv_rows(table)),
        "scores.csv": _csv(_csv_scores(table)),
    }
    if table.scenes:
        contents["scenes.csv"] = _csv(_csv_scenes(table))
    out = table.evaluation.settings.out
    return [write_bytes(text.encode(), out / name, overwrite=True) for name, text in contents.items()]


def _best_two(rows: Sequence[Row], metric: MetricInfo) -> list[float]:
    """Best and second best printed figure among the rows that are ranked."""
    ranked = [row.mean(metric.name) for row in rows if row.ranked]
    figures = {round(value, metric.decimals) for value in ranked if value is not None}
    return sorted(figures, reverse=metric.better == "higher")[:2]


def _cell(row: Row, column: MetricInfo | Unavailable, places: Sequence[float], baseline: Row | None) -> _Cell:
    if isinstance(column, Unavailable):
        return _Cell(column)
    value = row.mean(column.name)
    if value is None:
        return _Cell(column, text="–")
    ranks = dict(zip(places, ("best", "second"), strict=False)) if row.ranked else {}
    other = baseline if baseline is not row else None
    base = other.mean(column.name) if other else None
    return _Cell(
        column,
        value,
        f"{value:.{column.decimals}f}",
        ranks.get(round(value, column.decimals)),
        None if base is None else value - base,
        row.difference(column.name, other) if other else None,
    )


def _notes(evaluation: Evaluation, scenes: Sequence[SceneRow]) -> Iterator[str]:
    settings, count = evaluation.settings, len(evaluation.inputs)
    yield f"{count} pictures of '{evaluation.benchmark.name}' ({evaluation.benchmark.layout})."
    if evaluation.benchmark.layout == "pairs":
        places = {item.category for item in evaluation.inputs}
        yield f"They show {len(places)} places, as their names tell; a random reference is never of the same place."
    for line in scenes:
        for name, photo in line.wrong:
            yield f"False accept: {line.row.label} took {photo.path} for the scene of '{name}'."
    if evaluation.gallery:
        yield f"References: {evaluation.gallery}."
        shown = "always" if settings.accept == "always" else "when the retrieval policy accepts it"
        yield f"The best match is shown {shown}, k = {settings.k}."
        if not evaluation.leaks:
            yield "Checked: no test picture, nor a near-duplicate of one, is among the references."
    kept = "Excluded from the references" if settings.exclude_leaks else "Among the benchmark's own references"
    for leak in evaluation.leaks:
        yield f"{kept}: {leak.photo} {leak.why} '{leak.name}'."
    if count < _RELIABLE_SET and any(metric.kind == "distribution" for metric in evaluation.metrics):
        yield (
            f"FID over {count} pictures (fewer than its {_RELIABLE_SET} feature dimensions) is strongly biased "
            "upwards: compare it only with tables of the same pictures and the same number of them. KID is unbiased."
        )
    for column in evaluation.unavailable:
        yield f"{column.name} is unavailable: {column.reason}"
    yield from _row_notes(evaluation.rows, [item.name for item in evaluation.inputs])


def _row_notes(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    for name, remark in {row.info.name: row.info.remark for row in rows if row.info.remark}.items():
        yield f"{name}: {remark}. Its rows are shown and never ranked."
    for row in rows:
        if row.failed:
            yield f"{row.label} could not be run: {row.failed}"
        elif not row.complete:
            yield f"{row.label} is incomplete ({len(row.outputs)} of {row.expected}) and not ranked."
        bare = 0 if row.policy == "none" else sum(not row.references.get(name) for name in names)
        if bare:
            yield f"{row.label}: for {bare} of {row.expected} pictures there was no reference to show."
        for name, problem in row.problems.items():
            yield f"{row.label}, picture '{name}': {problem}."


def _environment() -> dict[str, str]:
    """Date, machine, and the versions of what computes."""
    import torch

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _json(table: Table) -> dict[str, Any]:
    """Everything; ``rows`` has one object for each method and policy."""
    evaluation = table.evaluation
    benchmark, settings = evaluation.benchmark, asdict(evaluation.settings)
    return {
        "benchmark": {
            "name": benchmark.name,
            "layout": benchmark.layout,
            "root": str(benchmark.root),
            "pictures": [item.name for item in evaluation.inputs],
        },
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
        "environment": table.environment,
        "metrics": [
            {key: None if value in {float("inf"), float("-inf")} else value for key, value in asdict(metric).items()}
            for metric in evaluation.metrics
        ],
        "unavailable": [asdict(column) for column in evaluation.unavailable],
        "baseline": evaluation.baseline.key if evaluation.baseline else None,
        "rows": [_json_row(line, [metric.name for metric in evaluation.metrics]) for line in table.rows],
        "gains": [
            {"method": gain.method, "metric": gain.metric.name, "policy": gain.policy, "against": gain.against}
            | {"verdict": gain.verdict, **asdict(gain.interval)}
            for gain in table.gains
        ],
        "scenes": [_json_scene(line) for line in table.scenes],
        "notes": table.notes,
    }


def _json_row(line: _TableRow, metrics: Sequence[str]) -> dict[str, Any]:
    row, intervals = line.row, {name: line.cells[name].interval for name in metrics}
    return {
        "method": row.info.name,
        "label": row.label,
        "family": row.info.family,
        "policy": line.policy,
        "remark": row.info.remark,
        "licence": row.info.licence,
        "pictures": len(row.outputs),
        "expected": row.expected,
        "complete": row.complete,
        "failed": row.failed or None,
        "problems": row.problems,
        "scores": {name: line.cells[name].value for name in metrics},
        "difference": {name: asdict(interval) for name, interval in intervals.items() if interval},
        "reference_similarity": row.similarity,
        "seconds": row.median_seconds,
        "memory_bytes": row.memory or None,
        "settings": row.info.settings,
    }


def _json_scene(line: SceneRow) -> dict[str, Any]:
    def rate(one: Rate) -> dict[str, Any]:
        return {"count": one.count, "total": one.total, "interval": one.interval}

    return {
        "method": line.row.info.name,
        "policy": line.row.policy,
        "verified": rate(line.verified),
        "false_accepts": rate(line.false_accepts),
        "groups": [
            {"name": group.name, "pictures": group.pictures, "share": group.share}
            | {"scores": {name: asdict(compared) for name, compared in group.scores.items()}}
            for group in line.groups
        ],
    }


def _markdown(table: Table) -> str:
    """Notes, the table (best bold, second underlined), gains of the reference, protocol."""
    evaluation, baseline = table.evaluation, table.evaluation.baseline
    lines = [f"# {evaluation.benchmark.name}", "", *(f"- {note}" for note in table.notes), ""]
    marks = {"best": "**{}**", "second": "<u>{}</u>", None: "{}"}
    head = ["Method", "Reference", "Kind", *(column.heading for column in table.columns), "s / picture", "Memory"]
    cells = []
    for line in table.rows:
        figures = [marks[cell.rank].format(cell.text) for cell in line.cells.values()]
        cells.append([*line.name, line.row.info.family, *figures, line.seconds, line.memory])
    lines += _grid(head, cells)
    if baseline is not None and len(table.rows) > 1:
        lines += ["", f"Difference to {baseline.label}, paired bootstrap, 95 %:", ""]
        paired = [metric for metric in evaluation.metrics if metric.kind != "distribution"]
        cells = [
            [*line.name, *(_interval(line.cells[metric.name].interval, metric) for metric in paired)]
            for line in table.rows
            if line.row is not baseline and not line.row.failed
        ]
        lines += _grid(["Method", "Reference", *(metric.heading for metric in paired)], cells)
    if table.gains:
        lines += ["", "What the reference does (shown minus control, paired bootstrap, 95 %):", ""]
        cells = [
            [g.method, g.policy, g.metric.heading, g.against, _interval(g.interval, g.metric), g.verdict]
            for g in table.gains
        ]
        lines += _grid(["Method", "Shown", "Metric", "Control", "Difference", "Verdict"], cells)
    if table.scenes:
        lines += ["", "Photos taken for the same scene (exact 95 % intervals):", ""]
        cells = [[s.row.info.label, s.row.policy, s.verified.text, s.false_accepts.text] for s in table.scenes]
        lines += _grid(["Method", "Reference", "Pictures verified", "False accepts"], cells)
        lines += [
            "",
            "By verdict and by the share of the result that is a photo's detail (in brackets: minus none):",
            "",
        ]
        shown = [metric for metric in evaluation.metrics if metric.kind != "distribution"]
        cells = [
            [s.row.info.label, s.row.policy, group.name, str(len(group.pictures)), f"{group.share:.0%}"]
            + [group.scores[m.name].text(m) if m.name in group.scores else "–" for m in shown]
            for s in table.scenes
            for group in s.groups
        ]
        head = ["Method", "Reference", "Verdict", "Pictures", "Share", *(metric.heading for metric in shown)]
        lines += _grid(head, cells)
    lines += ["", "Protocol:", "", *(f"- {m.name}: {m.protocol}. {m.source}." for m in evaluation.metrics), ""]
    return "\n".join([*lines, *(f"{key}: {value}  " for key, value in table.environment.items())]) + "\n"


def _interval(interval: Interval | None, metric: MetricInfo) -> str:
    return interval.text(metric.decimals) if interval else "–"


def _grid(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """A Markdown table, line by line."""
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]


def _csv_rows(table: Table) -> Iterator[list[Any]]:
    facts = ("method", "remark", "policy", "family", "pictures", "expected")
    yield [*facts, *(column.name for column in table.columns), "seconds", "memory_bytes"]
    for line in table.rows:
        row, info = line.row, line.row.info
        cells = line.cells.values()
        figures = [cell.text if isinstance(cell.column, Unavailable) else _exact(cell.value) for cell in cells]
        counts = [len(row.outputs), row.expected]
        times = [_exact(row.median_seconds), row.memory or ""]
        yield [info.name, info.remark, line.policy, info.family, *counts, *figures, *times]


def _csv_scores(table: Table) -> Iterator[list[Any]]:
    names = [metric.name for metric in table.evaluation.metrics if metric.kind != "distribution"]
    yield ["method", "policy", "picture", "reference", "similarity", "verdict", "share", *names]
    for line in table.rows:
        for item in table.evaluation.inputs:
            references = line.row.references.get(item.name, ())
            choice = next(iter(references), None)
            shown = [choice.path, _exact(choice.score)] if choice else ["", ""]
            verdict = SAME if is_same(references) else choice.verdict if choice else ""
            shown += [verdict, _exact(share_of(references)) if verdict else ""]
            values = [_exact(line.row.scores.get(name, {}).get(item.name)) for name in names]
            yield [line.row.info.name, line.policy, item.name, *shown, *values]


def _csv_scenes(table: Table) -> Iterator[list[Any]]:
    names = [metric.name for metric in table.evaluation.metrics if metric.kind != "distribution"]
    counts = ("verified", "judged", "false_accepts", "other_photos")
    yield ["method", "policy", *counts, "group", "pictures", "share", *names, *(f"{name}_without" for name in names)]
    for line in table.scenes:
        rates = [line.verified.count, line.verified.total, line.false_accepts.count, line.false_accepts.total]
        for group in line.groups:
            scores = [group.scores.get(name) for name in names]
            figures = [*(s.value if s else None for s in scores), *(s.without if s else None for s in scores)]
            facts = [line.row.info.name, line.row.policy, *rates, group.name, len(group.pictures), _exact(group.share)]
            yield [*facts, *map(_exact, figures)]


def _csv(rows: Iterable[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
