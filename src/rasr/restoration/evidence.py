"""Evidence map, drawn: the result in gray, and over it one colour for each photo that gave detail."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.files import write_bytes
from rasr.object_path import place
from rasr.restoration.result import DRAWN, EVIDENCE, Result

COLOURS = ((230, 97, 1), (94, 60, 153), (27, 158, 119), (231, 41, 138), (102, 166, 30), (166, 118, 29))
"""sRGB, told apart by people with any colour vision; a photo after the sixth begins again."""
STRONGEST = 0.65
"""Share of the colour where all detail is a photo's: the picture stays to be seen."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the legend."""

    colour: str
    """As #rrggbb."""
    words: str
    share: float
    """Of the picture, 0 to 1."""


def hex_colour(number: int) -> str:
    """The colour of a photo, counted from 0, as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[number % len(COLOURS)])


def legend(result: Result) -> list[Entry]:
    """Lines of the legend: each photo that gave detail, then what is drawn. Empty without evidence."""
    if result.evidence is None:
        return []
    entries = [
        Entry(hex_colour(number), f"{EVIDENCE} {one.path.name}", one.share or 0.0)
        for number, one in enumerate(result.evidence_references)
    ]
    drawn = 1.0 - float(result.evidence.total.mean()) / 255
    return [*entries, Entry("#808080", DRAWN, drawn)]


def layer(result: Result) -> NDArray[np.uint8]:
    """(H, W, 4) RGBA levels to lay over the result: a photo's colour where its detail is, clear where it is drawn."""
    height, width = result.picture.pixels.shape[:2]
    drawn = np.zeros((height, width, 4), np.uint8)
    if result.evidence is None:
        return drawn
    total = result.evidence.total.astype(np.float32)
    mixed = np.zeros((height, width, 3), np.float32)
    for number, one in enumerate(result.evidence.maps):
        mixed += one[..., None].astype(np.float32) * np.array(COLOURS[number % len(COLOURS)], np.float32)
    drawn[..., :3] = np.rint(mixed / np.maximum(total, 1)[..., None])
    drawn[..., 3] = np.rint(total * STRONGEST)
    return drawn


def draw(result: Result) -> NDArray[np.uint8]:
    """(H, W, 3) levels: the result in gray under the :func:`layer`."""
    gray = result.picture.pixels.mean(axis=2, keepdims=True) * 255
    over = layer(result).astype(np.float32)
    share = over[..., 3:] / 255
    levels: NDArray[np.uint8] = np.rint(gray * (1 - share) + over[..., :3] * share).astype(np.uint8)
    return levels


def evidence_png(result: Result) -> bytes:
    """:func:`draw`'s picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(draw(result)).save(buffer, "PNG")
    return buffer.getvalue()


def save_evidence(result: Result, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write :func:`draw`'s picture as PNG. Raises OutputExists or OutputError."""
    return write_bytes(evidence_png(result), place(path), overwrite=overwrite)
