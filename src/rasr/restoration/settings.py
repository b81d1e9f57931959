"""The choices a user can make about one restoration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from rasr.errors import UsageError
from rasr.generator import GenerationSettings
from rasr.generator.query import QueryRestore
from rasr.restoration.colour import COLOUR_METHODS, ColourMethod
from rasr.restoration.size import TargetSize

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything but the picture, the gallery and the generator. Raises UsageError for values out of range."""

    reference: Literal["auto", "none"] | tuple[Path, ...] = "auto"
    """``auto``: the best match in the gallery if it is good enough; ``none``; or photos picked by hand, best first."""
    k: int = 1
    """How many gallery photos may guide the restoration."""
    strength: float = 1.0
    """0..1: how much the reference may add. 0 gives exactly the result without reference."""
    size: TargetSize = field(default_factory=TargetSize)
    tile: int | Literal["auto"] = "auto"
    """Side of a tile in pixels of the generator's grid."""
    colour: ColourMethod | Literal["auto"] = "auto"
    """How colours are matched to the input's; ``auto`` as the generator wants it."""
    seed: int = 0
    query_restore: QueryRestore = "auto"
    """Whether the picture is cleaned before it is looked up in the gallery."""
    prompt: str | None = None
    """Text for generators that read text; None means their own default."""

    def __post_init__(self) -> None:
        if isinstance(self.reference, tuple) and not self.reference:
            raise UsageError("No reference given. Use 'auto', 'none' or at least one photo.")
        if self.k < 1:
            raise UsageError(f"k must be at least 1, not {self.k}.")
        if not 0.0 <= self.strength <= 1.0:
            raise UsageError(f"The strength must lie between 0 and 1, not {self.strength}.")
        if self.tile != "auto" and self.tile < 1:
            raise UsageError(f"The tile must be a positive number of pixels, or auto, not {self.tile}.")
        if self.colour not in {*COLOUR_METHODS, "auto"}:
            raise UsageError(f"Unknown colour match '{self.colour}'. Choose one of: auto, {', '.join(COLOUR_METHODS)}.")
        if self.query_restore not in get_args(QueryRestore):
            raise UsageError(f"Unknown query restoration '{self.query_restore}'. Choose auto, on or off.")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"The seed must be a whole number from 0 to 2^63 − 1, not {self.seed}.")

    @property
    def generation(self) -> GenerationSettings:
        """The part that the generator sees."""
        return GenerationSettings(strength=self.strength, seed=self.seed, prompt=self.prompt)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for reports and for telling whether a finished picture was made with these settings."""
        picked = isinstance(self.reference, tuple)
        return {
            "reference": [str(path) for path in self.reference] if picked else self.reference,
            "k": self.k,
            "strength": self.strength,
            "size": str(self.size),
            "tile": self.tile,
            "colour": self.colour,
            "seed": self.seed,
            "query_restore": self.query_restore,
            "prompt": self.prompt,
        }
