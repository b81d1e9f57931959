"""``rasr evaluate``, the comparison table, its intervals and what the references do; ``rasr methods``, its rows."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasr.cli.arguments import PRESET, build_options, check_gallery, device_option, key_values, option_group
from rasr.cli.console import examples, print_json, resumable, say, stage_bars, warn
from rasr.errors import MethodError
from rasr.evaluation.settings import EvaluationSettings
from rasr.files import read_object

if TYPE_CHECKING:
    from rasr.evaluation import Evaluation

profiles_option = click.option(
    "--profiles",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with your own method profiles (TOML).",
)


@click.command(
    "evaluate",
    epilog=examples(
        "rasr evaluate photos/test -g photos/train --crop 512 --method realesrgan --method mini -o out",
        "rasr evaluate RASR-Flickr30 --method sd21-osediff:no-reference --method sd21-osediff -o out",
        "rasr evaluate scenes --method realesrgan --references none,same-scene,random,truth -o out",
        "rasr evaluate photos --lq photos-lq --method mine=outputs:results/ --references none -o out",
        "rasr evaluate photos/test -g photos/train --method spandrel:BSRGAN.pth --metrics psnr,ssim,niqe -o out",
    ),
)
@click.argument("benchmark", type=click.Path(path_type=Path))
@click.option(
    "--method", "methods", type=PRESET, multiple=True, required=True, help="A row of the table; see 'rasr methods'."
)
@click.option(
    "--out",
    "-o",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for everything; resumes there.",
)
@click.option("--metrics", default="all", show_default=True, help="Comma-separated names, or all.")
@click.option(
    "--references",
    help="Reference policies, comma-separated: retrieved, none, random, oracle, same-scene, truth.  "
    "[default: retrieved,none,random,oracle; in the layout pairs none,same-scene,random,truth]",
)
@option_group(EvaluationSettings)
@device_option("auto", "auto, cpu, cuda, cuda:N or mps.")
@click.option("--checkout", multiple=True, metavar="NAME=DIR", help="Official code of a method.")
@profiles_option
@click.option("--time-limit", type=float, help="Seconds a command may take for one picture.")
@click.option("--figure", "pictures", multiple=True, help="Picture for figure.png; repeatable. [the telling ones]")
@click.option("--json", "as_json", is_flag=True, help="Print results.json to stdout instead of the Markdown table.")
def command(
    methods: tuple[str, ...],
    metrics: str,
    references: str | None,
    device: str,
    checkout: tuple[str, ...],
    profiles: Path | None,
    time_limit: float | None,
    pictures: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Restore BENCHMARK by every method under every reference policy, measure, and compare.

    BENCHMARK is a folder: good photos (inputs are made from them), hr/ with lq/, scenes (SCENE/truth.png with
    SCENE/refs/), CUFED5 or WR-SR pairs, or RASR-Flickr30. Writes results.md, results.csv, results.json, scores.csv,
    report.html and figure.png to OUT, and scenes.csv where references were verified. What is finished there is not done
    again. Exits 1 when a row is incomplete or could not be run.
    """
    say("Reading the benchmark …")  # the libraries that compute take their time to load
    from rasr.degrade import draw
    from rasr.device import choose_device
    from rasr.evaluation import MethodOptions, evaluate, load_benchmark, load_method, write_report
    from rasr.evaluation.methods import ALIASES
    from rasr.evaluation.metrics import parse_metrics
    from rasr.evaluation.references import parse_policies

    # All that needs no network comes first: a mistake on the command line is told before torch is loaded.
    policies = () if references is None else tuple(parse_policies(references))
    chosen = {"policies": policies, "metrics": tuple(parse_metrics(metrics))}
    settings = build_options(EvaluationSettings, {**options, **chosen})
    load_benchmark(settings.benchmark, layout=settings.layout, low=settings.low).check_names(pictures)
    draw(preset=settings.inputs.degradation, seed=settings.inputs.seed, name="any")
    check_gallery(settings.gallery)
    checkouts = {name: Path(folder) for name, folder in key_values(checkout, "--checkout", "NAME=DIR").items()}
    common = MethodOptions(device, settings.inputs.seed, checkouts, profiles, time_limit)
    loaded = [load_method(spec, common) for spec in methods]
    for name in (spec for spec in methods if spec in ALIASES):
        say(f"rasr: the method '{name}' is called '{ALIASES[name]}' now; the old name goes with the next version.")
    place = choose_device(device)
    say(f"Evaluating on {place}")
    with resumable(lambda: "the same command goes on."), stage_bars() as progress:
        evaluation = evaluate(replace(settings, device=place.name), loaded, progress)
    written = write_report(evaluation, pictures)
    _tell_problems(evaluation)
    if as_json:
        print_json(read_object(settings.out / "results.json", "table of results", MethodError))
    else:
        click.echo((settings.out / "results.md").read_text(encoding="utf-8"))
    say(f"Written: {', '.join(str(path) for path in written)}")
    return 0 if evaluation.complete else 1


def _tell_problems(evaluation: Evaluation) -> None:
    for row in evaluation.rows:
        if row.failed:
            warn(f"rasr: {row.label} could not be run: {row.failed}")
        for name, problem in row.problems.items():
            warn(f"rasr: {row.label}, picture '{name}': {problem}")


@click.command(
    "methods",
    epilog=examples("rasr methods", "rasr methods --json", "rasr methods --metrics", "rasr methods --profiles mine/"),
)
@click.option("--metrics", is_flag=True, help="List the metrics and the weights they need instead.")
@profiles_option
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout.")
def methods(metrics: bool, profiles: Path | None, as_json: bool) -> None:
    """List the methods 'rasr evaluate' knows, with their state: ready, needs weights, needs checkout, needs package."""
    records = _metric_records() if metrics else _method_records(profiles)
    if as_json:
        print_json(records)
        return
    wide = max(len(record["name"]) for record in records)
    for record in records:
        click.echo(f"{record['name']:<{wide}}  {record['state']:<14}  {record['summary']}")
        if record["todo"]:
            click.echo(f"{'':<{wide}}  {'':<14}  → {record['todo']}")


def _method_records(profiles: Path | None) -> list[dict[str, str]]:
    from rasr.evaluation import MethodOptions, list_methods

    records = []
    for info in list_methods(MethodOptions(profiles=profiles)):
        facts = asdict(info)
        del facts["settings"]
        summary = f"{info.summary} ({info.remark})" if info.remark else info.summary
        records.append({**facts, "summary": summary})
    return records


def _metric_records() -> list[dict[str, str]]:
    from rasr.evaluation.metrics import METRICS, load_metrics
    from rasr.evaluation.settings import MeasuringProtocol

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
