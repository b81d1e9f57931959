"""Profiles of official code: how to call it, where its inputs and references go, and where its outputs come out."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rasr.errors import ConfigError

__all__ = ["ExtraFile", "Profile", "profile_names", "read_profile"]

_PACKAGED = Path(__file__).with_name("profiles")


class ExtraFile(BaseModel):
    """A file written for the command: a configuration, or a list of the pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Below the working folder, ``{work}``."""
    text: str = ""
    """Whole content; placeholders are filled in."""
    line: str = ""
    """One line for each picture."""

    @model_validator(mode="after")
    def _one_of(self) -> ExtraFile:
        if bool(self.text) == bool(self.line):
            raise ValueError("a file has either text or line")
        return self


class Profile(BaseModel):
    """One method's official code.

    Placeholders: ``{python}``, ``{checkout}``, ``{work}``, ``{inputs}``, ``{references}``, ``{outputs}``, ``{scale}``,
    ``{seed}``; and, for each picture, ``{name}`` (its number, six digits: some codes cut names at underscores or pair
    files by sort order), ``{rank}`` (1 for the best reference), ``{width}``, ``{height}`` of the output.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    family: str
    summary: str
    repository: str
    licence: str
    entry: str
    """The script that is run, relative to the checkout; its absence means that the checkout is missing or another."""
    command: tuple[str, ...]
    """Run inside the checkout, without a shell."""
    weights: tuple[str, ...] = ()
    """Files the command needs, relative to the checkout."""
    setup: str
    """What a user has to do once, in words."""
    note: str = ""
    """What makes these figures differ from the authors' own, if anything."""
    input: Literal["low", "upsampled"] = "low"
    """``upsampled``: bicubic to the output size, for codes that take an HR picture and shrink it themselves."""
    inputs: str = "inputs"
    input_name: str = "{name}.png"
    outputs: str = "outputs"
    output: tuple[str, ...] = ("{outputs}/{name}.png",)
    """Where a picture may come out; the first that exists is taken."""
    uses_reference: bool = False
    needs_reference: bool = False
    """Whether it cannot run without one; the policy ``none`` then has no row."""
    references: str = "references"
    reference_name: str = "{name}.png"
    reference_fit: bool = False
    """Whether references are cropped and resized to the output's size first."""
    file: tuple[ExtraFile, ...] = ()
    seconds: float = Field(default=120.0, gt=0)
    """Time limit for one picture."""
    start_seconds: float = Field(default=600.0, gt=0)
    """Time limit for starting up, added once."""


def profile_names(folder: Path | None = None) -> list[str]:
    """Names of all profiles: the packaged ones and those in ``folder``, which win."""
    found = {path.stem for place in (_PACKAGED, folder) if place is not None for path in place.glob("*.toml")}
    return sorted(found)


def read_profile(name: str, folder: Path | None = None) -> Profile:
    """Read a profile. Raises ConfigError naming the file and what is wrong with it."""
    own = folder / f"{name}.toml" if folder is not None else None
    return _read(own if own is not None and own.is_file() else _PACKAGED / f"{name}.toml")


def _read(path: Path) -> Profile:
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return Profile(name=path.stem, **content)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Cannot read the method profile {path}: {error}") from error
    except (ValidationError, TypeError) as error:
        first = str(error).splitlines()
        raise ConfigError(f"The method profile {path} is wrong: {' '.join(first[1:3]) or first[0]}") from error
