"""Settings: the choices a user can make about one restoration, each declared here and nowhere else.

The command line reads this module for its ``--help``, so nothing heavy is imported at its top.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import xxhash

from rasr.errors import UsageError
from rasr.files import whole_number
from rasr.object_path import place
from rasr.options import check_options, option, options_json

if TYPE_CHECKING:
    from rasr.generator import GenerationSettings

ColourMethod = Literal["lowest", "wavelet", "adain", "none"]
COLOUR_METHODS: tuple[ColourMethod, ...] = get_args(ColourMethod)
DEFAULT_SCALE = 4.0


@dataclass(frozen=True, slots=True)
class TargetSize:
    """Size of the result, said in one of four ways; the aspect ratio is kept. Without any, four times the input.

    Raises UsageError when two are given, or one is not positive.
    """

    scale: float | None = option(None, "Enlargement, fractions allowed.  [default: 4]")
    width: int | None = option(None, "Width of the result in pixels.")
    height: int | None = option(None, "Height of the result in pixels.")
    long_side: int | None = option(None, "Longer side of the result in pixels.")

    def __post_init__(self) -> None:
        given = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            raise UsageError(f"Give one of scale, width, height and long side, not {len(given)} ({', '.join(given)}).")
        for name, value in given.items():
            if not (math.isfinite(value) and value > 0) or (name != "scale" and value != int(value)):
                kind = "a positive number" if name == "scale" else "a positive whole number of pixels"
                raise UsageError(f"The {name.replace('_', ' ')} must be {kind}, not {value}.")

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the result for an input of ``width`` × ``height`` pixels; at least 1 × 1."""
        if self.width is not None:
            return self.width, _rounded(height * self.width / width)
        if self.height is not None:
            return _rounded(width * self.height / height), self.height
        if self.long_side is not None:
            longest = max(width, height)
            return _rounded(width * self.long_side / longest), _rounded(height * self.long_side / longest)
        scale = DEFAULT_SCALE if self.scale is None else self.scale
        return _rounded(width * scale), _rounded(height * scale)

    def __str__(self) -> str:
        """As on the command line: ``scale 4``, ``width 1920``, ..."""
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None:
                return f"{name.replace('_', ' ')} {value:g}"
        return f"scale {DEFAULT_SCALE:g}"


def _rounded(pixels: float) -> int:
    """Round half away from zero, not half to even as Python does: 2.5 becomes 3 whatever its neighbours."""
    return max(1, math.floor(pixels + 0.5))


def _photos(reference: Any) -> Any:
    """Bring what ``reference`` takes, also one photo or a list, to ``auto``, ``none`` or a tuple of paths."""
    given: Sequence[Any] = (reference,) if isinstance(reference, str | Path) else tuple(reference)
    words = [word for word in ("auto", "none") if word in given]
    if words and len(given) > 1:
        raise UsageError(f"--reference {words[0]} cannot be combined with another --reference.")
    return words[0] if words else tuple(place(path) for path in given)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything but the picture, the gallery and the generator. Raises UsageError for values out of range."""

    reference: Literal["auto", "none"] | tuple[Path, ...] = option(
        "auto",
        "Which photo guides; FILE may be repeated.",
        metavar="auto|none|FILE",
        convert=_photos,
        valid=bool,
        fault="No reference given. Use 'auto', 'none' or at least one photo.",
    )
    """``auto``: the best match in the gallery if it is good enough; ``none``; or photos picked by hand, best first."""
    k: int = option(
        1,
        "How many gallery photos may guide.",
        flags=("-k",),
        valid=lambda k: k >= 1,
        fault="k must be at least 1, not {}.",
    )
    candidates: int = option(
        8,
        "Photos checked for the same scene, whose detail is then fused; 0: none.",
        valid=lambda candidates: candidates >= 0,
        fault="The candidates must be 0 or more, not {}.",
    )
    strength: float = option(
        1.0,
        "0 to 1: how much the reference may add.",
        valid=lambda strength: 0 <= strength <= 1,
        fault="The strength must lie between 0 and 1, not {}.",
    )
    """0 gives exactly the result without reference."""
    detail: float = option(
        0.5,
        "0 to 1: from least drawn, with the picture's grain, to crisp.",
        valid=lambda detail: 0 <= detail <= 1,
        fault="The detail must lie between 0 and 1, not {}.",
    )
    """0.5 is what the preset is tuned for; presets without this dial take no other."""
    reduce: bool = option(
        True,
        "Restore a blurred picture at the resolution that it really has.",
        flags=("--reduce/--no-reduce",),
    )
    size: TargetSize = option(
        TargetSize(), "Size of the result: a TargetSize.", convert=lambda size: size or TargetSize()
    )
    tile: int | Literal["auto"] = option(
        "auto",
        "Side of a tile.",
        valid=lambda tile: tile == "auto" or tile >= 1,
        fault="The tile must be a positive number of pixels, or auto, not {}.",
    )
    """In pixels of the generator's grid."""
    colour: Literal["auto"] | ColourMethod = option(
        "auto",
        "How colours are matched to the input; auto: as suits the preset.",
        flags=("--colour", "--color"),
        valid=lambda method: method in {"auto", *COLOUR_METHODS},
        fault=f"Unknown colour match '{{}}'. Choose one of: auto, {', '.join(COLOUR_METHODS)}.",
    )
    seed: int = option(
        0,
        "Same seed, same machine, same picture.",
        valid=lambda seed: 0 <= seed < 2**63,
        fault="The seed must be a whole number from 0 to 2^63 − 1, not {}.",
    )
    query_restore: Literal["auto", "on", "off"] = option(
        "auto",
        "Clean the picture before looking it up.",
        valid=lambda mode: mode in {"auto", "on", "off"},
        fault="Unknown query restoration '{}'. Choose auto, on or off.",
    )
    prompt: str | None = option(None, "Text for presets that read text.", expert=True)
    """None means the preset's own default."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def generation(self) -> GenerationSettings:
        """The part that the generator sees."""
        from rasr.generator import GenerationSettings

        return GenerationSettings(strength=self.strength, seed=self.seed, prompt=self.prompt, detail=self.detail)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for reports and for telling whether a finished picture was made with these settings."""
        return options_json(self)


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """How results are written; see :func:`rasr.images.write_picture`."""

    format: str | None = option(None, "[default: the input's]", choices=("png", "jpg", "webp", "tiff"))
    quality: int | Literal["lossless"] | None = option(
        None,
        "JPEG and WebP.  [default: 95]",
        valid=lambda quality: quality in {None, "lossless"} or 1 <= quality <= 100,
        fault="The quality must lie between 1 and 100, or be lossless, not {}.",
    )
    bits: int | None = option(None, "Bits per channel.  [default: the input's]", choices=("8", "16"))
    metadata: Literal["keep", "no-location", "strip"] = option(
        "keep", "EXIF, XMP and IPTC of the input, and how it was restored; no-location: all but where it was taken."
    )
    overwrite: bool = option(False, "Replace results that exist.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a batch, each for a machine or a process of its own."""

    index: int
    """1 to ``count``."""
    count: int

    @classmethod
    def of(cls, given: str | Shard | None) -> Shard | None:
        """Read ``I/N``, such as ``2/4``. Raises UsageError for anything else."""
        if given is None or isinstance(given, Shard):
            return given
        index, _, count = given.partition("/")
        numbers = whole_number(index.strip()), whole_number(count.strip())
        if numbers[0] is None or not numbers[1]:
            raise UsageError(f"--shard {given}: write it as I/N, such as 2/4 for the second of four parts.")
        if not 1 <= numbers[0] <= numbers[1]:
            raise UsageError(f"--shard {given}: the parts of {numbers[1]} are numbered from 1 to {numbers[1]}.")
        return cls(numbers[0], numbers[1])

    def holds(self, name: str) -> bool:
        """True when the picture of this name, its path below the input folder, belongs to this part.

        A function of the name alone, in whichever way a file system composes accents.
        """
        name = unicodedata.normalize("NFC", name)
        return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) % self.count == self.index - 1

    def __str__(self) -> str:
        """As on the command line: ``2/4``."""
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How the pictures of a batch are gone through; the results are the same, whatever is chosen."""

    workers: int = option(
        1,
        "Processes that restore, each with a model of its own.",
        valid=lambda workers: 1 <= workers <= 256,
        fault="The workers must be 1 to 256, not {}.",
    )
    shard: Shard | None = option(None, "Restore part I of N only: for N machines.", metavar="I/N", convert=Shard.of)
    verify: bool = option(False, "Read finished pictures again, instead of trusting size and time.")

    def __post_init__(self) -> None:
        check_options(self)
