"""``rasr train``: from a folder of photos to an adapter."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from rasr.cli.console import examples, print_json, progress_bar, say


@click.command(
    epilog=examples(
        "rasr train sd21-rasrnet --photos my-photos/ --out birds",
        "rasr train sd21-rasrnet --photos my-photos/ --out birds --resume --max-minutes 50",
        "rasr train my.toml --set loop.steps=2000 --set optimizer.lr=1e-5",
        "accelerate launch --num_processes 4 -m rasr train sd21-rasrnet --photos LSDIR/ --out sd21",
        "rasr restore old.jpg -g my-photos/ -o new.png --preset sd21 --set adapter=birds/sd21-rasrnet.safetensors",
    )
)
@click.argument("config")
@click.option("--photos", multiple=True, type=click.Path(path_type=Path), help="Train on this folder (repeatable).")
@click.option("--validate-on", multiple=True, type=click.Path(path_type=Path), help="Validate on this folder.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: trained/NAME]")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the run's folder.")
@click.option("--max-minutes", type=click.FloatRange(min=0), help="Save and stop after this time; --resume goes on.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a key of CONFIG (repeatable).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a logged step.")
def command(
    config: str,
    photos: tuple[Path, ...],
    validate_on: tuple[Path, ...],
    out: Path | None,
    resume: bool,
    max_minutes: float | None,
    changes: tuple[str, ...],
    as_json: bool,
) -> int:
    """Train by CONFIG: a TOML file, or the name of a configuration that comes with RASR.

    The stages are backbone and reference; the last writes an adapter for `rasr restore`. Ctrl-C or SIGTERM
    finish the step, save and exit with 130; after any end, also a crash, --resume goes on with the same result as if
    nothing had happened. Start it through `accelerate launch` to use several devices: the batch is shared out.
    """
    from rasr.training import read_training_config
    from rasr.training.checkpoint import check_run

    settings = read_training_config(config, changes, photos=photos, validation=validate_on)
    folder = out or Path("trained") / settings.name
    check_run(settings, folder, resume=resume)
    settings.check_batch(int(os.environ.get("WORLD_SIZE", "1")))
    settings.model.read_preset()

    say(f"Training {settings.name}: loading …")
    from rasr.training import Trainer  # torch comes with it: what is wrong above is said at once

    leads = os.environ.get("RANK", "0") == "0"
    with progress_bar() as progress:
        task = progress.add_task(settings.name, total=settings.loop.steps)

        def on_step(step: int, values: Mapping[str, float]) -> None:
            if not leads:
                return
            progress.update(task, completed=step)
            if values:
                progress.update(task, description=_line(settings.name, values))
                if as_json:
                    print_json({"step": step, **values})
                elif not sys.stderr.isatty():
                    say(f"step {step}/{settings.loop.steps}: {_line('', values)}")

        trainer = Trainer(settings, folder, log=say, on_step=on_step)
        outcome = trainer.run(resume=resume, max_minutes=max_minutes)
    if leads:
        state = "done" if not outcome.stopped else f"stopped ({outcome.stopped}), --resume goes on"
        kept = f"Weights: {outcome.exported}" if outcome.exported.exists() else "There are no weights yet."
        say(f"step {outcome.step} of {outcome.steps}: {state}. {kept}")
    return 130 if outcome.stopped.startswith("SIG") else 0


def _line(name: str, values: Mapping[str, float]) -> str:
    parts = [f"{key} {values[key]:.4g}" for key in ("loss", "mse", "perceptual", "gan", "gram") if key in values]
    return f"{name} {' '.join(parts)}, {values['samples_per_s']:.1f}/s, waiting {values['data_wait']:.0%}".strip()
