"""The dataset in pictures: histograms as SVG, and a contact sheet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rasr.dataset.manifest import Record
from rasr.errors import PictureError
from rasr.images import Encoding, FloatImage, Picture, encode_picture, read_picture, resize

__all__ = ["contact_sheet", "histograms"]

SIDES = (0, 512, 768, 1024, 1536, 2048, 3072, 4096)
MEGAPIXELS = (0, 0.5, 1, 2, 3, 4, 6, 12, 24)
THUMB = 128
LABEL = 168
PER_ROW = 8
ROWS = 60
"""Categories on the sheet; of a larger dataset the first ones."""


def histograms(records: Sequence[Record]) -> str:
    """Four bar charts as one SVG: short side, megapixels, photos per photographer, licences."""
    sides = _binned([min(record.width, record.height) for record in records], SIDES, "")
    pixels = _binned([record.width * record.height / 1e6 for record in records], MEGAPIXELS, "")
    by_author = Counter(f"{record.source}:{record.author_id}" for record in records if record.author_id)
    photos = Counter(min(count, 10) for count in by_author.values())
    authors = {f"{count}{'+' if count == 10 else ''}": photos[count] for count in range(1, 11)}
    licences = dict(Counter(record.licence or "unknown" for record in records).most_common(8))
    charts = [
        ("Short side, pixels", sides),
        ("Megapixels", pixels),
        ("Photographers by number of photos", authors),
        ("Photos by licence", licences),
    ]
    width, height = 420, 230
    body = "".join(
        f'<g transform="translate({index % 2 * width} {index // 2 * height})">{_bars(title, bars, width, height)}</g>'
        for index, (title, bars) in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width} {2 * height}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )


def _binned(values: Sequence[float], edges: Sequence[float], unit: str) -> dict[str, int]:
    """Counts by interval; the last one is open above."""
    counts = np.histogram(values, [*edges, np.inf])[0]
    names = [f"{low:g}–{high:g}{unit}" for low, high in pairwise(edges)] + [f"{edges[-1]:g}+{unit}"]
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _bars(title: str, bars: Mapping[str, int], width: int, height: int) -> str:
    most = max([*bars.values(), 1])
    step = (height - 50) / max(len(bars), 1)
    lines = [f'<text x="16" y="24" font-size="15" font-weight="bold">{escape(title)}</text>']
    for index, (name, count) in enumerate(bars.items()):
        y = 38 + index * step
        length = (width - 210) * count / most
        lines.append(
            f'<text x="140" y="{y + step * 0.65:.1f}" font-size="11" text-anchor="end">{escape(name)}</text>'
            f'<rect x="148" y="{y + step * 0.12:.1f}" width="{length:.1f}" height="{step * 0.76:.1f}" fill="#4878a8"/>'
            f'<text x="{152 + length:.1f}" y="{y + step * 0.65:.1f}" font-size="11">{count}</text>'
        )
    return "".join(lines)


def contact_sheet(folder: Path, records: Sequence[Record]) -> bytes:
    """A JPEG with one row per category: its name and up to eight photos, references first.

    A photo that cannot be read leaves its place empty; ``rasr dataset check`` names it.
    """
    by_category: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.category, record.split != "reference", record.id)):
        if len(by_category[record.category]) < PER_ROW:
            by_category[record.category].append(record)
    shown = dict(list(by_category.items())[:ROWS])
    sheet = np.ones((THUMB * len(shown), LABEL + THUMB * PER_ROW, 3), np.float32)
    for row, photos in enumerate(shown.values()):
        for column, photo in enumerate(photos):
            try:
                thumb = _thumb(read_picture(folder / photo.file).pixels)
            except PictureError:
                continue
            left = LABEL + column * THUMB
            sheet[row * THUMB : (row + 1) * THUMB, left : left + THUMB] = thumb
    labels = Image.new("L", (LABEL, len(sheet)), 255)
    draw, font = ImageDraw.Draw(labels), ImageFont.load_default(15)
    for row, category in enumerate(shown):
        words = category.replace("-", " ").split()
        lines = "\n".join(" ".join(words[start : start + 2]) for start in range(0, len(words), 2))
        draw.multiline_text((8, row * THUMB + THUMB // 2), lines, fill=0, font=font, anchor="lm")
    sheet[:, :LABEL] = np.asarray(labels, np.float32)[:, :, None] / 255
    return encode_picture(Picture(sheet), "JPEG", Encoding(quality=85))


def _thumb(pixels: FloatImage) -> FloatImage:
    """The middle square, THUMB × THUMB."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return resize(pixels, (THUMB, THUMB), filter="area", box=(left, top, left + side, top + side)).clip(0, 1)
