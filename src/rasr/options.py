"""Options: each declared once, on a field of a dataclass, with its help text, its range and its spelling.

Range checks, JSON and the signatures of Python functions derive from that declaration here, the command line in
:mod:`rasr.cli.console`. A new option is one new field.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from rasr.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Declaration of an option: what a field says of itself besides its name, type and default."""

    help: str
    """One sentence for ``--help`` and for ``help()``."""
    flags: tuple[str, ...] = ()
    """Spellings on the command line; empty for ``--`` and the field's name."""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    """Words that the command line accepts, where Python takes more and the type is no Literal."""
    expert: bool = False
    """True to leave it out of ``--help``; it is given as ``--set NAME=VALUE``."""
    convert: Callable[[Any], Any] | None = None
    """Brings a value of another type to the field's own. May raise UsageError."""
    valid: Callable[[Any], bool] | None = None
    fault: str = ""
    """Sentence for a value that is not ``valid``, with {} in its place."""


def option(default: Any, help: str, **facts: Any) -> Any:
    """Declare a field as an option; ``facts`` as in :class:`Option`. ``default`` is shared, so it must be immutable."""
    return field(default=default, metadata={"option": Option(help=help, **facts)})


def options_of(kind: Any) -> dict[str, Option]:
    """Field name → declaration, of a dataclass or an instance of one, in the order of the fields."""
    return {item.name: item.metadata["option"] for item in fields(kind) if "option" in item.metadata}


def check_options(instance: Any) -> None:
    """Convert and check every option; for ``__post_init__``. Raises UsageError with the option's own sentence."""
    for name, declared in options_of(instance).items():
        value = getattr(instance, name)
        if declared.convert is not None:
            value = declared.convert(value)
            object.__setattr__(instance, name, value)
        if declared.valid is not None and not declared.valid(value):
            raise UsageError(declared.fault.format(value))


def options_json(instance: Any) -> dict[str, Any]:
    """Plain values by name: paths and options made of options as text, tuples as lists."""
    return {name: _plain(getattr(instance, name)) for name in options_of(instance)}


def takes_options(kind: type) -> Callable[[Function], Function]:
    """Decorator: the ``**keywords`` of a function are fields of ``kind``; its signature and docstring list them."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [
            inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=item.type)
            for item in fields(kind)
            if item.default is not MISSING
        ]
        listed = "".join(f"\n    {name}: {declared.help}" for name, declared in options_of(kind).items())
        function.__signature__ = signature.replace(parameters=own + added)  # type: ignore[attr-defined]  # functions have no such attribute until it is set
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nOptions:{listed}\n"
        return function

    return decorate


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) or is_dataclass(value) else value
