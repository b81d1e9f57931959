"""Profile of a method's official code: its command, files, sizes and weights, as a TOML file says them."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from rasr.config import Table, check_table, read_toml
from rasr.errors import ConfigError

_PACKAGED = Path(__file__).with_name("profiles")


class _ExtraFile(Table):
    """A file written for the command: a configuration, or a list of the pictures."""

    path: str
    """Below the working folder, ``{work}``."""
    text: str = ""
    """Whole content; placeholders are filled in."""
    line: str = ""
    """One line for each picture."""

    @model_validator(mode="after")
    def _one_of(self) -> _ExtraFile:
        if bool(self.text) == bool(self.line):
            raise ValueError("a file has either text or line")
        return self


class Canvas(Table):
    """Sizes of outputs that a code writes rightly, in pixels.

    A picture is put into the upper left corner of the smallest such canvas, mirrored beyond its right and lower edge;
    what the code makes of it is cropped to the picture again.
    """

    multiple: int = Field(default=1, ge=1)
    """Both sides are multiples of it."""
    smallest: int = Field(default=1, ge=1)
    """No side is shorter."""
    largest: int | None = Field(default=None, ge=1)
    """No side is longer; a picture that would need one is turned down."""
    square: bool = False

    def fit(self, width: int, height: int, multiple: int = 1) -> tuple[int, int]:
        """Width and height of a picture's canvas, multiples of ``multiple`` too; ValueError if it is too large."""
        step = lcm(self.multiple, multiple)
        sides = [-(-max(side, self.smallest) // step) * step for side in (width, height)]
        if self.square:
            sides = [max(sides)] * 2
        if self.largest is not None and max(sides) > self.largest:
            raise ValueError(f"this code writes at most {self.largest} pixels a side, not {width}×{height}")
        return sides[0], sides[1]


class Profile(Table):
    """One method's official code.

    Placeholders: ``{python}``, ``{checkout}``, ``{work}``, ``{inputs}``, ``{references}``, ``{outputs}``, ``{scale}``,
    ``{seed}``; and, for each picture, ``{name}`` (its number, six digits: some codes cut names at underscores or pair
    files by sort order), ``{rank}`` (1 for the best reference), ``{width}``, ``{height}`` of the output as the command
    writes it. A command that is told a scale is run once for each scale among the pictures.
    """

    name: str
    title: str
    family: str
    summary: str
    repository: str
    branch: str = ""
    """Branch that holds the entry, where it is not the repository's default."""
    licence: str
    entry: str
    """The script that is run, relative to the checkout; its absence means that the checkout is missing or another."""
    command: tuple[str, ...]
    """Run inside the checkout, without a shell."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables of the command; placeholders are filled in. They replace those of RASR's own process."""
    weights: tuple[str, ...] = ()
    """Files and folders with the weights the command reads, relative to the checkout."""
    edit: str = ""
    """A text of the entry that the user has to change first, as ``setup`` says; while it is there, it is not ready."""
    setup: str
    """Steps a user has to do once, in words."""
    note: str = ""
    """Reasons why these figures differ from the authors' own, if there are any."""
    input: Literal["low", "upsampled"] = "low"
    """``upsampled``: bicubic to the output size, for codes that take an HR picture and shrink it themselves."""
    canvas: Canvas | None = None
    """Sizes that the code is right for. Pictures are padded to them and its outputs cropped."""
    inputs: str = "inputs"
    input_name: str = "{name}.png"
    outputs: str = "outputs"
    output: tuple[str, ...] = ("{outputs}/{name}.png",)
    """Places where a picture may come out; the first that exists is taken."""
    uses_reference: bool = False
    needs_reference: bool = False
    """True when it cannot run without one; the policy ``none`` then has no row."""
    references: str = "references"
    reference_name: str = "{name}.png"
    reference_fit: bool = False
    """True when references are cropped and resized to the output's size first."""
    file: tuple[_ExtraFile, ...] = ()
    seconds: float = Field(default=120.0, gt=0)
    """Time limit for one picture."""
    start_seconds: float = Field(default=600.0, gt=0)
    """Time limit for starting up, added once."""

    @property
    def told_scale(self) -> bool:
        """Whether the command is told a scale for all of its pictures."""
        texts = (*self.command, *self.environment.values(), *(file.text for file in self.file))
        return any("{scale}" in text for text in texts)

    @classmethod
    def names(cls, folder: Path | None = None) -> list[str]:
        """Names of all profiles: the packaged ones and those in ``folder``, which win."""
        return sorted(
            {path.stem for place in (_PACKAGED, folder) if place is not None for path in place.glob("*.toml")}
        )

    @classmethod
    def read(cls, name: str, folder: Path | None = None) -> Profile:
        """Read a profile. Raises ConfigError naming the file and what is wrong with it."""
        own = folder / f"{name}.toml" if folder is not None else None
        path = own if own is not None and own.is_file() else _PACKAGED / f"{name}.toml"
        table = read_toml(path, "method profile")
        if "name" in table:
            raise ConfigError(f"{path}: unknown key 'name'. A profile is called as its file is.")
        return check_table(cls, {"name": name, **table}, path)
