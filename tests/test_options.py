"""One option, one edit: a new field of a dataclass is on the command line, in the signature and in the JSON at once."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

import rasr
from rasr.cli.arguments import build_options, option_group
from rasr.cli.restore import command
from rasr.errors import UsageError
from rasr.options import check_options, option, options_json, options_of, takes_options
from rasr.restoration import SaveOptions, Settings, TargetSize


@dataclass(frozen=True)
class Sharper(Settings):
    """Settings with one more option, as a contributor would add it."""

    sharpen: float = option(
        0.5,
        "How much to sharpen.",
        valid=lambda value: value >= 0,
        fault="The sharpening must not be negative, as {} is.",
    )


@dataclass(frozen=True)
class Kinds:
    """Every kind of option there is."""

    word: Literal["a", "b"] = option("a", "One of two.")
    number: int | Literal["auto"] = option("auto", "A number or a word.")
    place: Path | None = option(None, "A path.")
    several: tuple[str, ...] = option((), "Any number.", convert=tuple)
    really: bool = option(False, "Yes or no.", flags=("-r", "--really"))
    depth: int | None = option(None, "8 or 16.", choices=("8", "16"))
    hidden: str | None = option(None, "For experts.", expert=True)

    def __post_init__(self) -> None:
        check_options(self)


def made_by(kind: type, *arguments: str) -> Any:
    """What a command made from ``kind`` builds of the arguments, or the exception that ended it."""

    @click.command()
    @option_group(kind)
    @click.pass_obj
    def verb(made: list[Any], **given: Any) -> None:
        made.append(build_options(kind, given))
        assert not given

    made: list[Any] = []
    ended = CliRunner().invoke(verb, arguments, obj=made)
    return made[0] if made else ended.exception if isinstance(ended.exception, UsageError) else ended.output


def test_a_new_option_is_one_edit() -> None:
    assert made_by(Sharper, "--sharpen", "0.75", "-k", "2", "--scale", "3") == Sharper(
        sharpen=0.75, k=2, size=TargetSize(scale=3)
    )
    assert str(made_by(Sharper, "--sharpen", "-1")) == "The sharpening must not be negative, as -1.0 is."
    assert "--sharpen FLOAT" in made_by(Sharper, "--help")

    @takes_options(Sharper)
    def restore(picture: Path, **changes: Any) -> Sharper:
        """Restore."""
        return Sharper(**changes)

    assert inspect.signature(restore).parameters["sharpen"].default == 0.5
    assert "sharpen: How much to sharpen." in (restore.__doc__ or "")
    assert restore(Path(), sharpen=1).to_json()["sharpen"] == 1


def test_command_line_signatures_and_json_have_exactly_the_declared_options() -> None:
    names = {item.name for item in fields(Settings)}
    assert names == set(options_of(Settings)) == set(Settings().to_json())
    for function, own in (
        (rasr.restore, {"picture", "gallery", "preset", "device", "limits", "progress"}),
        (rasr.Restorer.__call__, {"self", "picture", "settings", "limits", "progress"}),
    ):
        parameters = inspect.signature(function).parameters
        assert set(parameters) == own | names
        assert all(parameters[name].default == getattr(Settings(), name) for name in names)
        assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in names)
    saving = inspect.signature(rasr.Result.save).parameters
    assert set(saving) == {"self", "path", "options", "placing"} | {item.name for item in fields(SaveOptions)}
    offered = {parameter.name for parameter in command.params}
    sizes = {item.name for item in fields(TargetSize)}
    assert names - {"size"} | sizes | {item.name for item in fields(SaveOptions)} <= offered


def test_defaults_of_the_command_line_are_those_of_python() -> None:
    assert made_by(Settings) == Settings()
    assert made_by(SaveOptions) == SaveOptions()
    assert made_by(Kinds) == Kinds()


def test_every_kind_of_option_is_read() -> None:
    several = ("--several", "p", "--several", "q")
    made = made_by(
        Kinds, "--word", "b", "--number", "7", "--place", "x/y", *several, "-r", "--depth", "16", "--hidden", "h"
    )
    assert made == Kinds("b", 7, Path("x/y"), ("p", "q"), True, 16, "h")
    assert options_json(made)["several"] == ["p", "q"]
    assert options_json(made)["place"] == "x/y"
    assert "--hidden" not in made_by(Kinds, "--help")
    for wrong in (("--word", "c"), ("--number", "0"), ("--number", "x"), ("--depth", "9")):
        assert "Invalid value" in made_by(Kinds, *wrong)


def test_a_keyword_that_is_no_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="strenght"):
        rasr.restore(Path("a.png"), preset="bicubic", strenght=1)
