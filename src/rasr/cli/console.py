"""What verbs share when they talk: data on stdout, everything else on stderr, progress only on a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

__all__ = ["examples", "print_json", "progress_bar", "say"]


def say(message: str) -> None:
    """One line of talk, on stderr."""
    click.echo(message, err=True)


def print_json(value: Any) -> None:
    """One JSON value on one line of stdout."""
    click.echo(json.dumps(value, ensure_ascii=False))


def progress_bar() -> Progress:
    """A progress bar on stderr that is silent when stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),  # data that goes to a file or a pipe stays on stdout
        transient=True,
    )


def examples(*lines: str) -> str:
    r"""The epilog of a ``--help``: worked examples, kept on their own lines by click's ``\b`` marker."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
