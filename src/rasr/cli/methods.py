"""``rasr methods``: what can be evaluated here, and what the rest needs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from rasr.cli.console import examples, print_json, profiles_option

__all__ = ["command"]


@click.command(
    "methods",
    epilog=examples("rasr methods", "rasr methods --json", "rasr methods --metrics", "rasr methods --profiles mine/"),
)
@click.option("--metrics", is_flag=True, help="List the metrics and the weights they need instead.")
@profiles_option
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout.")
def command(metrics: bool, profiles: Path | None, as_json: bool) -> None:
    """List the methods 'rasr evaluate' knows, with their state: ready, needs weights, needs checkout, needs package."""
    records = _metrics() if metrics else _methods(profiles)
    if as_json:
        print_json(records)
        return
    wide = max(len(record["name"]) for record in records)
    for record in records:
        click.echo(f"{record['name']:<{wide}}  {record['state']:<14}  {record['summary']}")
        if record["todo"]:
            click.echo(f"{'':<{wide}}  {'':<14}  → {record['todo']}")


def _methods(profiles: Path | None) -> list[dict[str, str]]:
    from rasr.evaluation import MethodOptions, list_methods

    records = []
    for info in list_methods(MethodOptions(profiles=profiles)):
        facts = asdict(info)
        del facts["settings"]
        summary = f"{info.summary} ({info.remark})" if info.remark else info.summary
        records.append({**facts, "summary": summary})
    return records


def _metrics() -> list[dict[str, str]]:
    from rasr.evaluation.metrics import METRICS, MeasuringProtocol, load_metrics

    loaded, missing = load_metrics(tuple(METRICS), MeasuringProtocol())
    found = {metric.info.name: metric.info for metric in loaded}
    reasons = {column.name: column.reason for column in missing}
    records = []
    for name in METRICS:
        info = found.get(name)
        records.append(
            {
                "name": name,
                "state": "ready" if info else "needs weights",
                "summary": f"{info.arrow} {info.kind}; {info.protocol}" if info else "",
                "todo": reasons.get(name, ""),
            }
        )
    return records
