"""``rasr evaluate``: the comparison table, its intervals, and what the references do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from rasr.cli.console import examples, print_json, progress_bar, say
from rasr.errors import UsageError

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
    "--out", "-o", required=True, type=click.Path(path_type=Path), help="Folder for everything; resumes there."
)
@click.option("--gallery", "-g", type=click.Path(path_type=Path), help="Gallery, or folder of photos, for references.")
@click.option("--metrics", default="all", show_default=True, help="Comma-separated names, or all.")
@click.option(
    "--references",
    default="retrieved,none,random,oracle",
    show_default=True,
    help="Reference policies, comma-separated: retrieved, none, random, oracle, paired.",
)
@click.option("--baseline", default="", help="Row that differences are taken to: METHOD or METHOD:POLICY. [first row]")
@click.option("--layout", default="auto", show_default=True, type=click.Choice(["auto", "flickr30", "pairs", "folder"]))
@click.option("--lq", type=click.Path(path_type=Path), help="Ready-made inputs of the same names (layout folder).")
@click.option("--scale", default=4, show_default=True, type=click.IntRange(1, 16), help="Factor inputs are shrunk by.")
@click.option("--crop", type=click.IntRange(min=16), help="Centre crop of the ground truth, in pixels.")
@click.option("--degradation", default="realesrgan", show_default=True, help="Preset of 'rasr degrade'.")
@click.option("--seed", default=0, show_default=True, help="For degradations, random references and methods.")
@click.option("-k", default=1, show_default=True, type=click.IntRange(min=1), help="References shown at once.")
@click.option(
    "--accept",
    default="always",
    show_default=True,
    type=click.Choice(["always", "policy"]),
    help="Show the best match always, or only when the retrieval policy accepts it.",
)
@click.option("--exclude-leaks", is_flag=True, help="Hide gallery photos that show test pictures instead of refusing.")
@click.option("--crop-border", default=0, show_default=True, type=click.IntRange(min=0), help="Before measuring.")
@click.option("--space", default="y", show_default=True, type=click.Choice(["y", "rgb"]), help="For PSNR and SSIM.")
@click.option("--metric-weights", type=click.Path(path_type=Path), help="Folder looked into first for metric weights.")
@click.option(
    "--download", is_flag=True, help="Fetch metric weights that are missing (sizes: 'rasr methods --metrics')."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--checkout", multiple=True, metavar="NAME=DIR", help="Official code of a method.")
@click.option("--profiles", type=click.Path(path_type=Path), help="Folder with your own method profiles (TOML).")
@click.option("--time-limit", type=float, help="Seconds a command may take for one picture.")
@click.option("--figure", "pictures", multiple=True, help="Picture for figure.png; repeatable. [the telling ones]")
@click.option("--json", "as_json_", is_flag=True, help="Print results.json to stdout instead of the Markdown table.")
def command(
    benchmark: Path,
    methods: tuple[str, ...],
    out: Path,
    gallery: Path | None,
    metrics: str,
    references: str,
    baseline: str,
    layout: str,
    lq: Path | None,
    scale: int,
    crop: int | None,
    degradation: str,
    seed: int,
    k: int,
    accept: Literal["always", "policy"],
    exclude_leaks: bool,
    crop_border: int,
    space: Literal["y", "rgb"],
    metric_weights: Path | None,
    download: bool,
    device: str,
    checkout: tuple[str, ...],
    profiles: Path | None,
    time_limit: float | None,
    pictures: tuple[str, ...],
    as_json_: bool,
) -> int:
    """Restore BENCHMARK by every method under every reference policy, measure, and compare.

    BENCHMARK is a folder: good photos (inputs are made from them), hr/ with lq/, CUFED5 or WR-SR pairs, or
    RASR-Flickr30. Writes results.md, results.csv, results.json, scores.csv, report.html and figure.png to OUT. What is
    finished there is not done again. Exits 1 when a row is incomplete or could not be run.
    """
    from rasr.device import choose_device
    from rasr.evaluation import EvaluationSettings, InputSettings, MethodOptions, evaluate, load_method, write_report
    from rasr.evaluation.methods import ALIASES
    from rasr.evaluation.metrics import MeasuringProtocol, parse_metrics
    from rasr.evaluation.references import parse_policies

    place = choose_device(device)
    options = MethodOptions(
        device=device, seed=seed, checkouts=_checkouts(checkout), profiles=profiles, time_limit=time_limit
    )
    settings = EvaluationSettings(
        benchmark,
        out,
        policies=tuple(parse_policies(references)),
        metrics=tuple(parse_metrics(metrics)),
        layout=layout,
        low=lq,
        gallery=gallery,
        inputs=InputSettings(scale, crop, degradation, seed),
        protocol=MeasuringProtocol(crop_border, space),
        weights=metric_weights,
        download=download,
        device=str(place.device),
        k=k,
        accept=accept,
        baseline=baseline,
        exclude_leaks=exclude_leaks,
    )
    loaded = [load_method(spec, options) for spec in methods]
    for name in (spec for spec in methods if spec in ALIASES):
        say(f"rasr: the method '{name}' is called '{ALIASES[name]}' now; the old name goes with the next version.")
    say(f"Evaluating on {place}")
    with progress_bar() as bar:
        tasks = {}

        def tell(what: str, done: float, total: float) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total, visible=done < total)

        evaluation = evaluate(settings, loaded, tell)
    written = write_report(evaluation, pictures)
    _tell_problems(evaluation)
    if as_json_:
        print_json(json.loads((out / "results.json").read_text(encoding="utf-8")))
    else:
        click.echo((out / "results.md").read_text(encoding="utf-8"))
    say(f"Written: {', '.join(str(path) for path in written)}")
    return 0 if evaluation.complete else 1


def _checkouts(pairs: tuple[str, ...]) -> dict[str, Path]:
    checkouts = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not equals or not folder:
            raise UsageError(f"--checkout {pair}: write it as NAME=DIR.")
        checkouts[name] = Path(folder)
    return checkouts


def _tell_problems(evaluation: Evaluation) -> None:
    for row in evaluation.rows:
        if row.failed:
            say(f"rasr: {row.label} could not be run: {row.failed}")
        for name, problem in row.problems.items():
            say(f"rasr: {row.label}, picture '{name}': {problem}")
