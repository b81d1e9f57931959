"""``rasr evaluate``: the comparison table, its intervals, and what the references do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasr.cli.console import (
    build_options,
    check_gallery,
    device_option,
    examples,
    key_values,
    option_group,
    print_json,
    profiles_option,
    say,
    stage_bars,
)
from rasr.evaluation.settings import EvaluationSettings

if TYPE_CHECKING:
    from rasr.evaluation import Evaluation

__all__ = ["command"]


@click.command(
    "evaluate",
    epilog=examples(
        "rasr evaluate photos/test -g photos/train --crop 512 --method realesrgan --method mini -o out",
        "rasr evaluate RASR-Flickr30 --method sd21-osediff:no-reference --method sd21-osediff -o out",
        "rasr evaluate CUFED5 --method mini --references paired,retrieved,random,none -o out",
        "rasr evaluate photos --lq photos-lq --method mine=outputs:results/ --references none -o out",
        "rasr evaluate photos/test -g photos/train --method spandrel:BSRGAN.pth --metrics psnr,ssim,niqe -o out",
    ),
)
@click.argument("benchmark", type=click.Path(path_type=Path))
@click.option("--method", "methods", multiple=True, required=True, help="A row of the table; see 'rasr methods'.")
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
    default="retrieved,none,random,oracle",
    show_default=True,
    help="Reference policies, comma-separated: retrieved, none, random, oracle, paired.",
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
    references: str,
    device: str,
    checkout: tuple[str, ...],
    profiles: Path | None,
    time_limit: float | None,
    pictures: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Restore BENCHMARK by every method under every reference policy, measure, and compare.

    BENCHMARK is a folder: good photos (inputs are made from them), hr/ with lq/, CUFED5 or WR-SR pairs, or
    RASR-Flickr30. Writes results.md, results.csv, results.json, scores.csv, report.html and figure.png to OUT. What is
    finished there is not done again. Exits 1 when a row is incomplete or could not be run.
    """
    from rasr.degrade import draw
    from rasr.device import choose_device
    from rasr.evaluation import MethodOptions, evaluate, load_benchmark, load_method, write_report
    from rasr.evaluation.methods import ALIASES
    from rasr.evaluation.metrics import parse_metrics
    from rasr.evaluation.references import parse_policies

    # All that needs no network comes first: a mistake on the command line is told before torch is loaded.
    chosen = {"policies": tuple(parse_policies(references)), "metrics": tuple(parse_metrics(metrics))}
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
    with stage_bars() as progress:
        evaluation = evaluate(replace(settings, device=str(place.device)), loaded, progress)
    written = write_report(evaluation, pictures)
    _tell_problems(evaluation)
    if as_json:
        print_json(json.loads((settings.out / "results.json").read_text(encoding="utf-8")))
    else:
        click.echo((settings.out / "results.md").read_text(encoding="utf-8"))
    say(f"Written: {', '.join(str(path) for path in written)}")
    return 0 if evaluation.complete else 1


def _tell_problems(evaluation: Evaluation) -> None:
    for row in evaluation.rows:
        if row.failed:
            say(f"rasr: {row.label} could not be run: {row.failed}")
        for name, problem in row.problems.items():
            say(f"rasr: {row.label}, picture '{name}': {problem}")
