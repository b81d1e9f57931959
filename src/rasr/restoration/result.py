"""Result of a restoration: the picture, what it was made from and how, and the file it is saved as."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from rasr.gallery import Reference
from rasr.images import Encoding, Picture, encode_picture, losses, write_picture
from rasr.images.encode import output_format
from rasr.object_path import expand
from rasr.objects import is_address
from rasr.options import takes_options
from rasr.restoration.exchange import give_image, give_png
from rasr.restoration.settings import SaveOptions

if TYPE_CHECKING:
    from rasr.registration import Evidence

EVIDENCE = "detail from your photo"
CHANGED = "changed because of"
DRAWN = "drawn: plausible, not evidence"
"""The words for where a result comes from, the same wherever they are shown."""


@cache
def installed_version(package: str) -> str | None:
    """Version of a package that is installed, looked up once; None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(slots=True, eq=False, repr=False)
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
    """Seconds by stage: read, resolution, search, prepare, clean, restore, colour, same scene, save."""
    notes: tuple[str, ...] = ()
    """What a user should know, one sentence each."""
    output: Path | None = None
    """Where it was saved last."""
    evidence: Evidence | None = None
    """Which photo gave each pixel detail, and how much, one map for each of ``evidence_references``; None without."""

    @property
    def evidence_references(self) -> list[Reference]:
        """The photos of the same scene whose detail was fused, in the order of the maps of ``evidence``."""
        return [] if self.evidence is None else [one for one in self.references if one.share is not None]

    @property
    def image(self) -> Image.Image:
        """The restored picture for Pillow: sRGB, 8 bits, of mode RGB, RGBA, L or LA."""
        return give_image(self.picture)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the picture as PNG, at most 1024 pixels a side."""
        return give_png(self.picture, 1024)

    def __repr__(self) -> str:
        size = f"{self.picture.width}×{self.picture.height}"
        source = "a picture" if self.source.path is None else self.source.path.name
        used = ", ".join(f"{one.path.name} ({one.score:.2f})" for one in self.references if one.accepted)
        return f"<Result {size} of {source}, {f'guided by {used}' if used else 'without a reference'}>"

    @takes_options(SaveOptions)
    def save(
        self,
        path: str | Path,
        options: SaveOptions | None = None,
        *,
        placing: Callable[[bytes], None] | None = None,
        **changes: Any,
    ) -> Path:
        """Write the picture; unless ``metadata="strip"`` also the settings, as EXIF Software and ImageHistory.

        ``changes`` are fields of :class:`SaveOptions`. What the format cannot hold (transparency, 16 bits, captions) is
        added to the notes. ``placing`` is called with the file's bytes before they are written. Raises what
        :func:`rasr.images.write_picture` raises.
        """
        options = replace(options or SaveOptions(), **changes)
        lost = losses(self.picture, path, format=options.format)
        begun = time.perf_counter()

        def encoded(content: bytes) -> None:
            self._note(lost)
            self.timings["save"] = round(time.perf_counter() - begun, 3)
            if placing is not None:
                placing(content)

        self.output = write_picture(self.picture, path, **asdict(options), **self._told(options), placing=encoded)
        self.timings["save"] = round(time.perf_counter() - begun, 3)
        return self.output

    def encode(self, path: str | Path, options: SaveOptions) -> bytes:
        """The bytes of the file that :meth:`save` would write at ``path``, where nothing is looked at.

        Raises OutputError for what the format cannot hold.
        """
        begun = time.perf_counter()
        encoding = Encoding(options.quality, options.bits, options.metadata, **self._told(options))
        content = encode_picture(self.picture, output_format(path, options.format), encoding)
        self._note(losses(self.picture, path, format=options.format))
        self.timings["save"] = round(time.perf_counter() - begun, 3)
        return content

    def _told(self, options: SaveOptions) -> dict[str, Any]:
        """What the file says of how it was made."""
        if options.metadata == "strip":
            return {}
        return {"software": f"RASR {installed_version('rasr')}", "description": self._description()}

    def _note(self, lost: Sequence[str]) -> None:
        """Note what the format gives up."""
        notes = (f"{sentence[0].upper()}{sentence[1:]}." for sentence in lost)
        self.notes += tuple(note for note in notes if note not in self.notes)

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
        facts = _without_folders(facts)
        detail = [f"{one.share:.0%} {EVIDENCE} {one.path.name}" for one in self.evidence_references]
        detail += [f"{CHANGED} {one.path.name}" for one in self.references if one.changed]
        told = {"references": used} | ({"evidence": [*detail, DRAWN]} if detail else {})
        return json.dumps(facts | told, separators=(",", ":"))


def _without_folders(value: Any) -> Any:
    """A JSON value with file names in place of paths: where things lie on this machine travels in no picture."""
    if isinstance(value, dict):
        return {name: _without_folders(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(one) for one in value]
    if not isinstance(value, str):
        return value
    parts = (Path(part).name if _is_path(part) else part for part in value.split(" + "))
    return " + ".join(parts)


def _is_path(text: str) -> bool:
    """True for a path that says where something lies; the name of a repository or a sentence is none."""
    if "/" not in text and not text.startswith("~"):  # paths are not made of words: see memory.py
        return False
    try:
        return is_address(text) or expand(Path(text)).is_absolute() or Path(text).exists()
    except (OSError, ValueError, RuntimeError):
        return False
