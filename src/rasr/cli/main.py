"""Entry point of the ``rasr`` command: finds the verb, turns errors into one line and an exit code."""

import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pkgutil import resolve_name
from typing import Any

import click

from rasr.cli.arguments import Commands, with_shared_options
from rasr.cli.console import begin, detail, standing, sweep
from rasr.device import use_threads
from rasr.errors import RasrError, shown

VERBS = {
    "demo": "Restore a real photo with a real reference, with nothing to set up.",
    "restore": "Restore pictures, guided by the best match in a gallery.",
    "gallery": "Create, extend, check and list galleries of good photos.",
    "search": "Find the photos in a gallery that look most like a picture.",
    "serve": "Serve restoration to browsers and programs: a page, a queue, galleries.",
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
COMPUTE = (
    "restore",
    "gallery add",
    "serve",
    "search",
    "degrade",
    "train",
    "evaluate",
    "demo",
    "dataset build",
    "dataset check",
)
"""Commands that take ``--threads``."""
GRACE = 2.5
"""Seconds after Ctrl-C in which a verb may come to its end by itself, before the process ends as it is."""
ANSWER = 0.2
"""Seconds that the end of a command waits for the answer to a Ctrl-C to be told."""


class Verbs(Commands):
    """Top-level group that imports a verb's module on demand, so that ``rasr --help`` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all verbs in the order a newcomer needs them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's click command; None for an unknown verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = resolve_name(ELSEWHERE.get(cmd_name, f"rasr.cli.{cmd_name}:command"))
        return with_shared_options(command, cmd_name, COMPUTE)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Tab completes verbs, options and presets in your shell after: "
    'eval "$(_RASR_COMPLETE=bash_source rasr)" (or zsh_source; fish: _RASR_COMPLETE=fish_source rasr | source).',
)
@click.version_option(package_name="rasr")
def rasr() -> None:
    """Restore a bad photo with your own good photos as evidence."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line; exits 0 all done, 1 something failed, 2 usage, 130 interrupted."""
    with _interruptible():
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.exit(code)


def _run(argv: list[str]) -> int:
    begin()
    use_threads()  # before any verb loads a library that asks
    try:
        result: Any = rasr.main(args=argv, prog_name="rasr", standalone_mode=False)
    except click.ClickException as error:
        vars(error)["message"] = shown(error.message)  # typed as final, for callers other than us
        error.show()
        return error.exit_code
    except RasrError as error:
        click.echo(shown(f"rasr: {error}"), err=True)
        for line in traceback.format_exc().splitlines():
            detail(line)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(_interrupted(), err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (rasr ... | head). Point stdout elsewhere so that Python's own flush
        # at exit does not raise a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return result if isinstance(result, int) else 0


def _interrupted() -> str:
    so_far = standing()
    return f"rasr: interrupted{': ' * bool(so_far)}{so_far}"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Answer Ctrl-C at once, and end the process soon, also while the main thread is inside of a library.

    Python raises KeyboardInterrupt when the main thread is back from what it called, which may take a long tile. The
    interpreter writes the signal's number into a pipe as it arrives, and a thread waits there. Results are moved into
    place whole, galleries and journals are written in transactions: ending at any moment leaves no half file under a
    result's name. A verb that takes the signal itself (training saves first) is left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(ours,), name="rasr-interrupt", daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(theirs)
        watch.join(timeout=ANSWER)  # or a quick end leaves the answer to Ctrl-C unsaid


def _watch(pipe: int) -> None:
    """Wait for Ctrl-C in ``pipe``, whose other end is closed when the command is over; then see to the end."""
    while arrived := os.read(pipe, 64):
        if signal.SIGINT not in arrived or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            continue
        _tell("stopping …")
        begun = time.monotonic()
        if select.select([pipe], [], [], GRACE)[0] and not os.read(pipe, 64):
            # The command has said what it had to say; threads of libraries may still hold the interpreter up.
            time.sleep(max(0.0, begun + GRACE - time.monotonic()))
        else:
            _tell(_interrupted())
        sweep()
        os._exit(130)
    os.close(pipe)


def _tell(line: str) -> None:
    """Write a line on stderr past all that the main thread may hold; on a terminal in place of a bar."""
    clear, cursor = ("\r\x1b[2K", "\x1b[?25h") if sys.stderr.isatty() else ("", "")
    with suppress(OSError):
        os.write(2, f"{clear}{line}\n{cursor}".encode(errors="replace"))
