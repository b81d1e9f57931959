"""Entry point of the ``rasr`` command: finds the verb, turns errors into one line and an exit code."""

import os
import signal
import sys
from pkgutil import resolve_name
from typing import Any

import click

from rasr.device import use_threads
from rasr.errors import RasrError, shown

VERBS = {
    "demo": "Restore a real photo with a real reference, with nothing to set up.",
    "restore": "Restore pictures, guided by the best match in a gallery.",
    "gallery": "Create, extend, check and list galleries of good photos.",
    "search": "Find the photos in a gallery that look most like a picture.",
    "degrade": "Make low-quality versions of good pictures, reproducibly.",
    "train": "Train the generator, or your own reference adapter, from a folder of photos.",
    "evaluate": "Compare methods on a benchmark, and prove what the reference does.",
    "methods": "List the methods that can be evaluated, and what each needs.",
    "dataset": "Build a dataset from licensed photos, and check it.",
    "models": "List, download and locate model weights, and read their licences.",
    "doctor": "Say what this machine can do and why.",
}
"""Verb → one line for ``rasr --help``. Its code is ``command`` in the file of its name, imported when it is used."""
ELSEWHERE = {"methods": "rasr.cli.evaluate:methods"}
"""Verb → its code, where that stands in another verb's file."""


class Verbs(click.Group):
    """Top-level group that imports a verb's module on demand, so that ``rasr --help`` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all verbs in the order a newcomer needs them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's click command; None for an unknown verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = resolve_name(ELSEWHERE.get(cmd_name, f"rasr.cli.{cmd_name}:command"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="rasr")
def rasr() -> None:
    """Restore a bad photo with your own good photos as evidence."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line; exits 0 all done, 1 something failed, 2 usage, 130 interrupted."""
    sys.exit(_run(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    use_threads()  # before any verb loads a library that asks
    try:
        result: Any = rasr.main(args=argv, prog_name="rasr", standalone_mode=False)
    except click.ClickException as error:
        vars(error)["message"] = shown(error.message)  # typed as final, for callers other than us
        error.show()
        return error.exit_code
    except RasrError as error:
        click.echo(shown(f"rasr: {error}"), err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("rasr: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (rasr ... | head). Point stdout elsewhere so that Python's own flush
        # at exit does not raise a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return result if isinstance(result, int) else 0
