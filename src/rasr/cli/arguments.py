"""Options and verbs of the command line: made from declarations, shared by all verbs, completed in the shell."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Container, Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from rasr.cli.console import louder
from rasr.device import check_device, use_threads
from rasr.errors import PictureError, UsageError
from rasr.object_path import expand, place_given
from rasr.options import Option, options_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Function = TypeVar("Function", bound=Callable[..., Any])
Kind = TypeVar("Kind")


class Commands(click.Group):
    """Group of commands that asks back when a command is mistyped."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for one that does not exist name the nearest. Raises click.UsageError."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], names, n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else f" There are: {', '.join(names)}."
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)


class _Place(click.Path):
    """A path of this machine, or an address on object storage."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path that is meant. Raises UsageError for an address that may hold a secret."""
        return place_given(str(super().convert(value, param, ctx)))


PLACE = _Place()
"""Type of arguments that may be a path or an address."""


def with_shared_options(command: click.Command, words: str, computes: Container[str]) -> click.Command:
    """Add -v, -q and, to commands that compute, --threads to ``command`` and all below it."""
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            with_shared_options(below, f"{words} {name}", computes)
    elif not any(one.name == "quiet" for one in command.params):
        if words in computes:
            command.params.append(
                click.Option(
                    ["--threads"],
                    type=click.IntRange(1, 4096),
                    expose_value=False,
                    callback=_take_threads,
                    help="CPU threads.  [default: see 'rasr doctor']",
                )
            )
        for flags, text in ((["-v", "--verbose"], "Say more."), (["-q", "--quiet"], "Tell failures only.")):
            command.params.append(click.Option(flags, is_flag=True, expose_value=False, callback=_louder, help=text))
    return command


def _louder(_context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        louder(1 if parameter.name == "verbose" else -1)


def _take_threads(_context: click.Context, _parameter: click.Parameter, count: int | None) -> None:
    if count is not None:
        use_threads(count)


class Words(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest version
    """Any text, with names that the shell completes; what they are is looked up when it asks."""

    name = "text"

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the names that begin as typed."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]


def _presets() -> Iterable[str]:
    from rasr.generator import PRESETS

    return PRESETS


def _encoders() -> Iterable[str]:
    from rasr.gallery.encoders import ENCODERS

    return ENCODERS


PRESET = Words(_presets)
ENCODER = Words(_encoders)


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


def check_gallery(path: str | Path | None) -> None:
    """Refuse a place with neither a gallery nor a picture, before anything is loaded. Raises GalleryError."""
    if path is None:
        return
    from rasr.gallery import is_gallery, open_gallery_or_folder
    from rasr.images import walk_pictures

    folder = expand(Path(path))
    try:
        found = is_gallery(path) or (folder.is_dir() and next(walk_pictures(folder)))
    except PictureError:
        found = False
    if not found:
        len(open_gallery_or_folder(path))  # it says what is there instead


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
        facts |= {"is_flag": True, **({"default": True} if default else {})}
    else:
        if default is not None:
            facts |= {"default": default, "show_default": True}
        if declared.choices or not kinds:
            facts["type"] = click.Choice(declared.choices or words)
        elif words:
            facts["type"] = NumberOr(words[0], kinds[0])
        else:
            plain = kinds[0] if kinds[0] in {int, float} else str
            facts["type"] = PLACE if kinds == [Path] else plain
    if declared.choices and kinds == [int]:
        facts["callback"] = lambda _context, _parameter, value: None if value is None else int(value)
    flags = declared.flags or (f"--{name.replace('_', '-')}",)
    return click.option(*flags, name, **facts)


def _parts(hint: Any) -> list[Any]:
    """List the members of a union, flat: ``int | Literal["auto"]`` gives both."""
    if get_origin(hint) in {Union, UnionType}:
        return [part for member in get_args(hint) for part in _parts(member)]
    return [hint]
