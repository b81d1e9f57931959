"""Console: data on stdout, talk on stderr, progress of long work, and what an interruption leaves."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasr.errors import shown
from rasr.files import json_text

if TYPE_CHECKING:
    import rich.progress

    from rasr.progress import Progress

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


class _State:
    """What one run of the command line knows of itself; :func:`begin` makes it anew."""

    def __init__(self) -> None:
        self.loudness = 0
        """-1 with --quiet, 1 with --verbose."""
        self.bar: rich.progress.Progress | None = None
        """The bar that is on the terminal now."""
        self.standing: list[Callable[[], str]] = []
        """How far the work is that an interruption would stop, the innermost last."""
        self.throwaway: list[Path] = []
        """Folders that must not outlive the command."""


_state = _State()


def begin() -> None:
    """Forget what an earlier command in this process said of itself."""
    global _state  # noqa: PLW0603 - one command line, one state
    _state = _State()


def louder(by: int) -> None:
    """Say more (1), or less (-1), from here on."""
    _state.loudness += by


def say(message: str) -> None:
    """Print one line of talk on stderr, fit for a terminal whatever the names in it hold; not with --quiet."""
    if _state.loudness >= 0:
        warn(message)


def detail(message: str) -> None:
    """Print one line on stderr for those who asked for more: only with --verbose."""
    if _state.loudness > 0:
        warn(message)


def warn(message: str) -> None:
    """Print one line on stderr that nobody may miss, such as what failed, also with --quiet."""
    if _state.bar is not None:
        _print_above_bar(_state.bar, shown(message))
    else:
        click.echo(shown(message), err=True)


def print_data(*fields: object) -> None:
    """Print a line of data on stdout, its fields separated by tabs.

    On a terminal what would not print is escaped, and a bar stays below it; a file or a program gets names as they are,
    byte by byte.
    """
    if sys.stdout.isatty():
        _print_on_terminal("\t".join(map(shown, fields)))
        return
    line = "\t".join(map(str, fields))
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        click.echo(os.fsencode(line))
    else:
        click.echo(line, color=True)  # click would take escape sequences out of names


def print_json(value: Any) -> None:
    """Print a JSON value as one line on stdout."""
    if sys.stdout.isatty():
        _print_on_terminal(json_text(value))
    else:
        click.echo(json_text(value))


def _print_on_terminal(line: str) -> None:
    """Print on stdout, which is a terminal. Where it shows the bar too, the bar makes room first."""
    if _state.bar is not None and os.path.sameopenfile(sys.__stdout__.fileno(), sys.__stderr__.fileno()):  # type: ignore[union-attr]  # stdout is a terminal
        _print_above_bar(_state.bar, line)
    else:
        click.echo(line)


def _print_above_bar(bar: rich.progress.Progress, line: str) -> None:
    from rich.text import Text

    bar.console.print(Text(line), soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[rich.progress.Progress]:
    """Show a progress bar on stderr, or none where that is not a terminal or the user asked for quiet."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskProgressColumn, TextColumn
    from rich.text import Text

    class Left(ProgressColumn):
        """Time left, as :func:`left`."""

        max_refresh = 0.5

        def __init__(self) -> None:
            super().__init__()
            self.known: dict[int, tuple[float, float]] = {}

        def render(self, task: Task) -> Text:
            done, elapsed = task.completed, task.elapsed or 0.0
            if self.known.get(task.id, (-1.0, 0.0))[0] != done:
                self.known[task.id] = done, elapsed
            return Text(left(done, task.total, self.known[task.id][1], elapsed), style="progress.remaining")

    terminal = sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        Left(),
        console=Console(stderr=True),
        refresh_per_second=4,  # drawing costs time, too, which a busy machine has not
        disable=not terminal or _state.loudness < 0,
        redirect_stdout=False,  # print_data makes room; what else is written to stdout is for a file or a pipe
        transient=True,
    )
    with bar:
        _state.bar = None if bar.disable else bar
        try:
            yield bar
        finally:
            _state.bar = None


def left(done: float, total: float | None, until: float, elapsed: float) -> str:
    """Say how long the rest will take, by the work done: nothing before the first piece is, then always something.

    ``done`` of ``total`` was reached after ``until`` seconds; from then to ``elapsed`` the time left counts down.
    """
    if not total or done <= 0:
        return ""
    if done >= total:
        return "0:00 left"
    seconds = max(1, round(until * (total - done) / done - (elapsed - until)))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


class Lines:
    """Progress in lines, where there is no bar: one when a stage begins, then one in half a minute at most.

    ``whole``: done and total, and with them the time left, are those of all stages together.
    """

    EVERY = 30.0

    def __init__(self, *, whole: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._whole = whole
        self._clock = clock
        self._stage = ""
        self._begun = self._told = clock()

    def show(self, stage: str, done: float, total: float | None) -> None:
        """Tell where the work is, if it is time to."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._told = stage, now
            self._begun = self._begun if self._whole else now
            say(f"  {stage} …")
        elif now - self._told >= self.EVERY and total and done < total:
            self._told = now
            rest = left(done, total, now - self._begun, now - self._begun)
            say(f"  {stage}: {done / total:.0%}{', ' * bool(rest)}{rest}")


@contextmanager
def resumable(standing: Callable[[], str]) -> Iterator[None]:
    """Say, should the block be interrupted, how far it was and how to go on: ``standing()`` is that sentence."""
    _state.standing.append(standing)
    try:
        yield
    except Exception:  # an interruption is none, and then main asks for it
        _state.standing.pop()
        raise
    else:
        _state.standing.pop()


@contextmanager
def throwaway_folder() -> Iterator[Path]:
    """Make a folder for the block, which goes with all that it holds, also when the process is ended at once."""
    folder = Path(tempfile.mkdtemp(prefix="rasr-"))
    _state.throwaway.append(folder)
    try:
        yield folder
    finally:
        sweep()


def sweep() -> None:
    """Remove the folders that must not outlive the command."""
    while _state.throwaway:
        shutil.rmtree(_state.throwaway.pop(), ignore_errors=True)


def standing() -> str:
    """How far the work is that is being interrupted, in a sentence, or nothing."""
    return _state.standing[-1]() if _state.standing else ""


def examples(*lines: str) -> str:
    r"""Format worked examples for the end of a ``--help``; click's ``\b`` marker keeps their lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@contextmanager
def stage_bars(unit: str = "") -> Iterator[Progress]:
    """Show a bar a stage on stderr, fed by the callback that is given; a bar goes when its stage is done.

    With a ``unit``, a bar says how many of them a second are done. Without a terminal there are lines instead.
    """
    with progress_bar() as bar:
        tasks: dict[str, tuple[rich.progress.TaskID, float]] = {}
        lines = Lines()

        def show(stage: str, done: float, total: float) -> None:
            if bar.disable:
                lines.show(stage, done, total)
                return
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total), time.monotonic()
            task, begun = tasks[stage]
            rate = f", {done / max(time.monotonic() - begun, 1e-3):.1f} {unit}/s" if unit else ""
            bar.update(task, completed=done, total=total, description=f"{stage}{rate}", visible=done < total)

        yield show
