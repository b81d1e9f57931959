"""``rasr models``: which weights there are, whose they are, where they lie, and getting them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rasr.cli.arguments import Commands
from rasr.cli.console import examples, json_option, print_json, say, stage_bars
from rasr.errors import UsageError

if TYPE_CHECKING:
    from rasr.weights import ModelWeights


@click.group(
    cls=Commands,
    epilog=examples(
        "rasr models list                  what there is, and what is on this machine",
        "rasr models licence sd21          read the terms first",
        "rasr models download sd21         shows size and licence, then asks",
        "rasr models path osediff          for scripts: its path, or exit 1",
    ),
)
def command() -> None:
    """The weights of presets, encoders, metrics and training losses. Nothing is ever downloaded unless asked for."""


@command.command("list", epilog=examples("rasr models list", "rasr models list --json | jq -r .name"))
@json_option
def list_models(as_json: bool) -> None:
    """List every model with its size, its licence, and whether it is on this machine.

    With --json one object a line.
    """
    for weights in _catalogue().values():
        facts = _facts(weights)
        if as_json:
            print_json(facts)
        else:
            size, here = f"{facts['megabytes']} MB", facts["path"] or "missing"
            click.echo("\t".join((facts["name"], size, facts["licence"], facts["purpose"], here)))


@command.command(epilog=examples("rasr models path sd21", "cp mine.pkl $(dirname $(rasr models path osediff))"))
@click.argument("name")
def path(name: str) -> None:
    """Print where the model NAME lies on this machine; exit 1 when it does not."""
    from rasr.weights import require

    click.echo(require(_known(name)))


@command.command(epilog=examples("rasr models licence sd21"))
@click.argument("name")
@json_option
def licence(name: str, as_json: bool) -> None:
    """Print the licence of the model NAME and where its terms are."""
    from rasr.weights import entry

    weights = entry(_known(name))
    if as_json:
        print_json({"name": name, "licence": weights.licence, "terms": weights.terms})
    else:
        click.echo(f"{weights.licence}\n{weights.terms}")


@command.command(
    epilog=examples(
        "rasr models download sd21             Stable Diffusion 2.1-base, after asking",
        "rasr models download sd21 --half -y   fp16 files where there are any, without asking",
    )
)
@click.argument("name")
@click.option("--half", is_flag=True, help="Prefer fp16 files: half the size, for GPUs.")
@click.option("-y", "--yes", is_flag=True, help="Accept size and licence without being asked.")
@json_option
def download(name: str, half: bool, yes: bool, as_json: bool) -> None:
    """Download the model NAME from its publisher, after showing what, how large and under which licence.

    Files are checked against the published hashes. Commit and hashes are noted, and held to the next time.
    """
    from rasr.weights import entry, find, plan_download

    weights, place = entry(_known(name)), find(name)
    if place is None:
        plan = plan_download(name, half=half)
        source = f"{plan.source} at {plan.commit[:12]}" if plan.commit else plan.source
        say(f"{source}: {len(plan.files)} file{'s' * (len(plan.files) > 1)}, {plan.size / 1e6:,.0f} MB")
        for file in plan.files:
            say(f"  {file.size / 1e6:10,.1f} MB  {file.name}")
        say(f"Licence: {weights.licence}. {weights.terms}")
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("Say --yes to accept size and licence where nobody can be asked.")
            click.confirm("Download?", abort=True, err=True)
        with stage_bars() as progress:
            place = plan.run(progress)
    else:
        say(f"{name} is already on this machine.")
    if as_json:
        print_json({"name": name, "path": str(place)})
    else:
        click.echo(place)


def _catalogue() -> Mapping[str, ModelWeights]:
    """The catalogue, with what files of presets, encoders and metrics that it does not know register."""
    from rasr.evaluation.metrics import METRICS
    from rasr.gallery.encoders import ENCODERS
    from rasr.generator import PRESETS
    from rasr.weights import CATALOGUE

    served = {user for weights in CATALOGUE.values() for user in weights.serves}
    code = {name: preset.code for name, preset in PRESETS.items()} | ENCODERS | METRICS
    for name in code.keys() - served:
        importlib.import_module(code[name].partition(":")[0], "rasr.evaluation.metrics")
    return CATALOGUE


def _known(name: str) -> str:
    """``name``, once whatever may register weights of that name has done so."""
    from rasr.weights import CATALOGUE

    if name not in CATALOGUE:
        _catalogue()
    return name


def _facts(weights: ModelWeights) -> dict[str, Any]:
    from rasr.weights import find

    place = find(weights.name)
    return {
        "name": weights.name,
        "purpose": weights.purpose,
        "megabytes": weights.megabytes,
        "licence": weights.licence,
        "terms": weights.terms,
        "path": None if place is None else str(place),
        "state": "missing" if place is None else "here",
        "serves": weights.serves,
        "origin": weights.origin,
        "get": "" if place else weights.how_to_get,
    }
