"""What a restoration gives back."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rasr
from rasr.gallery import Reference
from rasr.images import Picture, losses, write_picture

__all__ = ["Result"]


@dataclass(slots=True, eq=False)
class Result:
    """A restored picture and how it came about."""

    picture: Picture
    """The restored picture, with the origin (format, depth, profile, metadata) of the input."""
    source: Picture
    """The input as it was read."""
    references: list[Reference]
    """Gallery photos that were considered, best first, each with score, accepted or not, and why."""
    settings: dict[str, Any]
    """Everything that determines the result: preset, weights, versions, seed, size, tile, colour, ..."""
    timings: dict[str, float]
    """Seconds by stage: read, search, prepare, clean, restore, colour, save."""
    notes: tuple[str, ...] = ()
    """What a user should know, one sentence each."""
    output: Path | None = None
    """Where it was saved last."""

    def save(
        self,
        path: str | Path,
        *,
        format: str | None = None,
        quality: int | Literal["lossless"] | None = None,
        bits: int | None = None,
        metadata: Literal["keep", "strip"] = "keep",
        overwrite: bool = False,
    ) -> Path:
        """Write the picture; with ``metadata="keep"`` also the settings, as EXIF Software and ImageHistory.

        What the format cannot hold (transparency, 16 bits, captions) is added to the notes. Options as in
        :func:`rasr.images.write_picture`, which names the errors raised.
        """
        keep = metadata == "keep"
        begun = time.perf_counter()
        gone = tuple(f"{sentence[0].upper()}{sentence[1:]}." for sentence in losses(self.picture, path, format=format))
        self.output = write_picture(
            self.picture,
            path,
            format=format,
            quality=quality,
            bits=bits,
            metadata=metadata,
            overwrite=overwrite,
            software=f"RASR {rasr.__version__}" if keep else None,
            description=self._description() if keep else None,
        )
        self.timings["save"] = round(time.perf_counter() - begun, 3)
        self.notes += tuple(note for note in gone if note not in self.notes)
        return self.output

    def to_json(self) -> dict[str, Any]:
        """The object ``rasr restore --json`` prints for this picture."""
        return {
            "input": None if self.source.path is None else str(self.source.path),
            "output": None if self.output is None else str(self.output),
            "references": [reference.to_json() for reference in self.references],
            "settings": self.settings,
            "timings": self.timings,
            "notes": list(self.notes),
            "error": None,
        }

    def _description(self) -> str:
        """The settings as they travel inside the file: file names only, no folders of this machine."""
        used = [reference.path.name for reference in self.references if reference.accepted]
        facts = {name: value for name, value in self.settings.items() if name not in {"gallery", "reference"}}
        return json.dumps(facts | {"references": used}, separators=(",", ":"))
