"""How large the result shall be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rasr.errors import UsageError

__all__ = ["TargetSize"]

DEFAULT_SCALE = 4.0


@dataclass(frozen=True, slots=True)
class TargetSize:
    """One of four ways to say it; the aspect ratio is always kept. Without any, four times the input.

    Raises UsageError when two are given, or one is not positive.
    """

    scale: float | None = None
    """Factor on both sides; fractions allowed."""
    width: int | None = None
    height: int | None = None
    long_side: int | None = None

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
            return tuple(_rounded(side * self.long_side / longest) for side in (width, height))  # type: ignore[return-value]  # two sides
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
    """Half away from zero, not Python's half to even: 2.5 becomes 3 whatever its neighbours."""
    return max(1, math.floor(pixels + 0.5))
