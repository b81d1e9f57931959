"""Shared by verbs: data on stdout, talk on stderr, progress on a terminal, options made from declarations."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from rasr.device import check_device
from rasr.errors import PictureError, UsageError, shown
from rasr.files import json_text
from rasr.options import Option, options_of

if TYPE_CHECKING:
    import rich.progress

    from rasr.progress import Progress

Function = TypeVar("Function", bound=Callable[..., Any])
Kind = TypeVar("Kind")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


def say(message: str) -> None:
    """Print one line on stderr, fit for a terminal whatever the names in it hold."""
    click.echo(shown(message), err=True)


def print_data(*fields: object) -> None:
    """Print a line of data on stdout, its fields separated by tabs.

    On a terminal what would not print is escaped; a file or a program gets names as they are, byte by byte.
    """
    if sys.stdout.isatty():
        click.echo("\t".join(map(shown, fields)))
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
    click.echo(json_text(value))


def progress_bar() -> rich.progress.Progress:
    """Make a progress bar on stderr, which is silent where that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

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
    r"""Format worked examples for the end of a ``--help``; click's ``\b`` marker keeps their lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@contextmanager
def stage_bars(unit: str = "") -> Iterator[Progress]:
    """Show a bar a stage on stderr, fed by the callback that is given; a bar goes when its stage is done.

    With a ``unit``, a bar says how many of them a second are done.
    """
    with progress_bar() as bar:
        tasks: dict[str, tuple[rich.progress.TaskID, float]] = {}

        def show(stage: str, done: float, total: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total), time.monotonic()
            task, begun = tasks[stage]
            rate = f", {done / max(time.monotonic() - begun, 1e-3):.1f} {unit}/s" if unit else ""
            bar.update(task, completed=done, total=total, description=f"{stage}{rate}", visible=done < total)

        yield show


class NumberOr(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest version
    """A positive number, or one word such as ``auto``."""

    def __init__(self, word: str, kind: type[int] | type[float]) -> None:
        self.word = word
        self.kind = kind
        self.name = f"N|{word}"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Show it as it is typed, not in capitals."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or the word as it is."""
        if value == self.word:
            return value
        try:
            number = self.kind(value)
        except ValueError:
            number = self.kind(0)
        if not number > 0:
            self.fail(f"'{value}' is neither a positive number nor '{self.word}'.", param, ctx)
        return number


def _checked_device(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    check_device(name)  # what this machine surely has not is refused at once, before any work
    return name


def device_option(default: str, help: str) -> Callable[[Function], Function]:
    """Make ``--device``, which is checked while the command line is read."""
    return click.option("--device", default=default, show_default=True, callback=_checked_device, help=help)


encoder_device_option = device_option("cpu", "Where the encoder runs: auto, cpu, cuda, cuda:N, mps.")


def option_group(*kinds: type) -> Callable[[Function], Function]:
    """Decorate a command with the options that ``kinds`` declare; :func:`build_options` reads them back."""

    def decorate(function: Function) -> Function:
        for kind in reversed(kinds):
            hints = get_type_hints(kind)
            for item in reversed(fields(kind)):
                declared = options_of(kind).get(item.name)
                if declared is None:
                    continue
                hint = hints[item.name]
                if is_dataclass(hint):
                    function = option_group(hint)(function)  # type: ignore[arg-type]  # a class, since it is a hint
                else:
                    function = _click_option(item.name, hint, item.default, declared)(function)
        return function

    return decorate


def build_options(kind: type[Kind], given: dict[str, Any]) -> Kind:
    """Build a ``kind`` from what click passed for its options, which leave ``given``."""
    hints = get_type_hints(kind)
    values = {}
    for item in fields(kind):  # type: ignore[arg-type]  # a dataclass
        if is_dataclass(hints[item.name]):
            values[item.name] = build_options(hints[item.name], given)
        elif (value := given.pop(item.name, ())) != ():
            values[item.name] = value
    return kind(**values)


def check_gallery(path: Path | None) -> None:
    """Refuse a path with neither a gallery nor a picture, before anything is loaded. Raises GalleryNotFound."""
    if path is None:
        return
    from rasr.gallery import is_gallery, open_gallery_or_folder
    from rasr.images import walk_pictures

    folder = path.expanduser()
    try:
        found = folder.is_dir() and (is_gallery(folder) or next(walk_pictures(folder)))
    except PictureError:
        found = False
    if not found:
        open_gallery_or_folder(path)  # it says what is there instead


def key_values(pairs: Iterable[str], flag: str, form: str = "KEY=VALUE") -> dict[str, str]:
    """Read ``KEY=VALUE`` texts into a dictionary. Raises UsageError for a text of another form."""
    found = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not key or not value:
            raise UsageError(f"{flag} {pair}: write it as {form}.")
        found[key] = value
    return found


def _click_option(name: str, hint: Any, default: Any, declared: Option) -> Callable[[Function], Function]:
    facts: dict[str, Any] = {"help": declared.help, "metavar": declared.metavar, "hidden": declared.expert}
    parts = [part for part in _parts(hint) if part is not type(None)]
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    kinds = [part for part in parts if get_origin(part) is not Literal]
    if any(get_origin(kind) is tuple for kind in kinds):
        facts["multiple"] = True
    elif kinds == [bool]:
        facts["is_flag"] = True
    else:
        if default is not None:
            facts |= {"default": default, "show_default": True}
        if declared.choices or not kinds:
            facts["type"] = click.Choice(declared.choices or words)
        elif words:
            facts["type"] = NumberOr(words[0], kinds[0])
        else:
            facts["type"] = click.Path(path_type=Path) if kinds == [Path] else kinds[0]
    if declared.choices and kinds == [int]:
        facts["callback"] = lambda _context, _parameter, value: None if value is None else int(value)
    flags = declared.flags or (f"--{name.replace('_', '-')}",)
    return click.option(*flags, name, **facts)


def _parts(hint: Any) -> list[Any]:
    """List the members of a union, flat: ``int | Literal["auto"]`` gives both."""
    if get_origin(hint) in {Union, UnionType}:
        return [part for member in get_args(hint) for part in _parts(member)]
    return [hint]
