"""``rasr models``: which weights there are, whose they are, where they lie, and getting them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from rasr.cli.console import examples, print_json, say
from rasr.errors import UsageError, WeightsMissing

__all__ = ["command"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    name: str
    purpose: str
    megabytes: int
    licence: str
    terms: str
    path: Path | None

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "name": self.name,
            "purpose": self.purpose,
            "megabytes": self.megabytes,
            "licence": self.licence,
            "terms": self.terms,
            "path": None if self.path is None else str(self.path),
        }


@click.group(
    epilog=examples(
        "rasr models list                  what there is, and what is on this machine",
        "rasr models licence sd21          read the terms first",
        "rasr models download sd21         shows size and licence, then asks",
        "rasr models path osediff          for scripts: its path, or exit 1",
    )
)
def command() -> None:
    """The weights that presets and encoders use. Nothing is ever downloaded but by 'download' and by encoders."""


@command.command("list", epilog=examples("rasr models list", "rasr models list --json | jq -r .name"))
@json_option
def list_models(as_json: bool) -> None:
    """List every model with its size, its licence, and whether it is on this machine.

    With --json one object a line.
    """
    rows = _rows()
    if as_json:
        for row in rows:
            print_json(row.to_json())
        return
    for row in rows:
        here = "-" if row.path is None else str(row.path)
        click.echo(f"{row.name}\t{row.megabytes} MB\t{row.licence}\t{row.purpose}\t{here}")


@command.command(epilog=examples("rasr models path sd21", "cp mine.pkl $(dirname $(rasr models path osediff))"))
@click.argument("name")
def path(name: str) -> None:
    """Print where the model NAME lies on this machine; exit 1 when it does not."""
    row = _row(name)
    if row.path is None:
        raise WeightsMissing(f"{name} is not on this machine. {_advice(name)}")
    click.echo(row.path)


@command.command(epilog=examples("rasr models licence sd21"))
@click.argument("name")
@json_option
def licence(name: str, as_json: bool) -> None:
    """Print the licence of the model NAME and where its terms are."""
    row = _row(name)
    if as_json:
        print_json({"name": row.name, "licence": row.licence, "terms": row.terms})
    else:
        click.echo(f"{row.licence}\n{row.terms}")


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
    """Download the model NAME from the Hugging Face hub, after showing what, how large and under which licence.

    Files are checked against the hashes the hub announces. The commit is noted, and asked for again next time.
    """
    from rasr.generator.catalogue import find_model, plan_download

    row = _row(name)
    if row.path is None:
        if name.startswith("dinov2-"):
            raise UsageError(
                f"{name} is downloaded when it is first used: rasr gallery add GALLERY DIR --encoder {name}"
            )
        plan = plan_download(find_model(name), half=half)
        say(f"{plan.repository} at {plan.commit[:12]}: {len(plan.files)} files, {plan.size / 1e6:,.0f} MB")
        for file in plan.files:
            say(f"  {file.size / 1e6:10,.1f} MB  {file.name}")
        say(f"Licence: {row.licence}. {row.terms}")
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("Say --yes to accept size and licence where nobody can be asked.")
            click.confirm("Download?", abort=True, err=True)
        place = plan.run()
    else:
        say(f"{name} is already on this machine.")
        place = row.path
    if as_json:
        print_json({"name": name, "path": str(place)})
    else:
        click.echo(place)


def _rows() -> list[Row]:
    from rasr.gallery.encoders.dinov2 import DINOV2_MODELS
    from rasr.gallery.encoders.hub import find_local
    from rasr.generator.catalogue import MODELS

    rows = [Row(m.name, m.purpose, m.megabytes, m.licence, m.terms, m.path) for m in MODELS]
    for name, model in DINOV2_MODELS.items():
        found = find_local(model)
        terms = f"https://huggingface.co/{model.repository}: keep the notice."
        here = None if found is None else found.weights.parent
        rows.append(Row(name, "retrieval encoder", model.megabytes, model.licence, terms, here))
    return rows


def _row(name: str) -> Row:
    rows = _rows()
    for row in rows:
        if row.name == name:
            return row
    raise UsageError(f"Unknown model '{name}'. Choose one of: {', '.join(row.name for row in rows)}.")


def _advice(name: str) -> str:
    from rasr.generator.catalogue import MODELS

    for model in MODELS:
        if model.name == name and not model.repositories:
            return model.advice
    return f"Get it with: rasr models download {name}"
