"""Result: a restored picture and how it came about, to save and to read."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rasr.gallery import Reference
from rasr.images import Picture, losses, write_picture
from rasr.options import takes_options
from rasr.progress import timed
from rasr.restoration.settings import SaveOptions

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

    @takes_options(SaveOptions)
    def save(self, path: str | Path, options: SaveOptions | None = None, **changes: Any) -> Path:
        """Write the picture; with ``metadata="keep"`` also the settings, as EXIF Software and ImageHistory.

        ``changes`` are fields of :class:`SaveOptions`. What the format cannot hold (transparency, 16 bits, captions) is
        added to the notes. Raises what :func:`rasr.images.write_picture` raises.
        """
        options = replace(options or SaveOptions(), **changes)
        keep = options.metadata == "keep"
        self.timings.pop("save", None)
        with timed(self.timings, "save"):
            lost = losses(self.picture, path, format=options.format)
            self.output = write_picture(
                self.picture,
                path,
                format=options.format,
                quality=options.quality,
                bits=options.bits,
                metadata=options.metadata,
                overwrite=options.overwrite,
                software=f"RASR {importlib.metadata.version('rasr')}" if keep else None,
                description=self._description() if keep else None,
            )
        notes = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in lost]
        self.notes += tuple(note for note in notes if note not in self.notes)
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
