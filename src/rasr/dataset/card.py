"""Card of a dataset: text, attribution, histograms as SVG, and a contact sheet."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel

from rasr.config import check_table
from rasr.dataset.licences import licence_url
from rasr.dataset.manifest import Record, file_inside, read_manifest, write_text
from rasr.dataset.splits import SPLITS
from rasr.dataset.verdict import REASONS
from rasr.errors import ConfigError, DatasetError, PictureError
from rasr.files import read_object, write_bytes
from rasr.images import Encoding, FloatImage, Picture, encode_picture, read_picture, resize

INFO = "dataset.json"
CHARTS = "histograms.svg"
SHEET = "contact-sheet.jpg"
HUB_NAMES = {
    "CC0-1.0": "cc0-1.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CC-BY-SA-3.0": "cc-by-sa-3.0",
}
"""SPDX name → what the Hugging Face hub calls it in a card's header."""
HUB_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

SIDES = (0, 512, 768, 1024, 1536, 2048, 3072, 4096)
MEGAPIXELS = (0, 0.5, 1, 2, 3, 4, 6, 12, 24)
THUMB = 128
LABEL = 168
PER_ROW = 8
ROWS = 60
"""Categories on the sheet; of a larger dataset the first ones."""


class _Category(BaseModel):
    name: str
    title: str | None = None
    scientific_name: str | None = None
    why: str | None = None
    found: int = 0
    rejected: dict[str, int] = {}


class _Filters(BaseModel):
    licences: tuple[str, ...] = ()


class _LowQuality(BaseModel):
    crop: int | None = None
    preset: str
    scale: int


class _Info(BaseModel):
    """What card and check read of ``dataset.json``, which anyone may have written; other keys are not looked at."""

    name: str | None = None
    title: str | None = None
    description: str | None = None
    built: str | None = None
    rasr: str | None = None
    seed: int | None = None
    encoder: str | None = None
    splits: dict[str, bool | int | float] = {}
    filters: _Filters = _Filters()
    lq: _LowQuality | None = None
    gallery: bool = True
    categories: tuple[_Category, ...] = ()


def read_info(folder: Path) -> dict[str, Any]:
    """Read the build's description of the dataset, or an empty one; DatasetError if damaged."""
    path = folder / INFO
    if not path.exists():
        return {}
    info = read_object(path, "description of a dataset", DatasetError)
    if info.get("format") != 1:
        raise DatasetError(f"{path} is not of a format that this version of RASR knows.")
    try:
        check_table(_Info, info, path)
    except ConfigError as error:
        raise DatasetError(str(error)) from error
    return info


def write_card(folder: str | Path) -> Path:
    """Write README.md, ATTRIBUTION.md, charts and contact sheet anew from the manifest.

    Returns the card's path. Raises DatasetError and OutputError.
    """
    folder = Path(folder)
    records, info = read_manifest(folder), read_info(folder)
    if not records:
        raise DatasetError(f"The manifest of {folder} is empty; there is nothing to describe.")
    write_text(folder / CHARTS, _filled("histograms.svg", charts=_charts(records)))
    write_bytes(_contact_sheet(folder, records), folder / SHEET, overwrite=True)
    write_text(folder / "ATTRIBUTION.md", _filled("attribution.md", categories=_by_category(records)))
    write_text(folder / "README.md", _card(records, info))
    return folder / "README.md"


def _filled(template: str, **values: Any) -> str:
    """Fill a template of this room; what comes from strangers must pass one of the filters."""
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)  # noqa: S701
    environment.filters |= {"plain": _plain, "linked": _linked, "licence_url": licence_url, "escaped": escape}
    return environment.from_string(files("rasr.dataset").joinpath(template).read_text("utf-8")).render(values)


def _by_category(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group records by category, in the order of its first one."""
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        grouped[record.category].append(record)
    return grouped


def _card(records: Sequence[Record], info: Mapping[str, Any]) -> str:
    """Fill the card: a YAML header that the Hugging Face hub reads, and the text."""
    title = str(info.get("title") or info.get("name") or "dataset")
    licences = Counter(record.licence for record in records).most_common()
    counted = info.get("categories", ())
    rejected: Counter[str] = Counter()
    for category in counted:
        rejected.update(category.get("rejected", {}))
    return _filled(
        "card.md",
        records=records,
        info=info,
        pretty_name=json.dumps(title, ensure_ascii=False),
        title=title,
        hub_licence=HUB_NAMES.get(licences[0][0]) if len(licences) == 1 else None,
        size=next((name for limit, name in HUB_SIZES if len(records) < limit), "n>1M"),
        splits=Counter(record.split for record in records),
        contents=list(_contents(records, counted)),
        sheet=SHEET,
        charts=CHARTS,
        licences=licences,
        sources=Counter(record.source for record in records).most_common(),
        found=sum(category.get("found", 0) for category in counted),
        rejected=[(reason, meaning, rejected[reason]) for reason, meaning in REASONS.items() if rejected[reason]],
        unknown=sum(not record.author for record in records),
        strange=sum(record.deviation > 0 for record in records),
    )


def _contents(records: Sequence[Record], described: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each category's row: title, scientific name, why, and the size of each split."""
    known = {category["name"]: category for category in described}
    counts = Counter((record.category, record.split) for record in records)
    for name in dict.fromkeys(record.category for record in records):
        about = known.get(name, {})
        words = {key: about.get(key) or "" for key in ("scientific_name", "why")}
        title = about.get("title") or name.replace("-", " ")
        yield {"title": title, **words, **{split: counts[name, split] for split in SPLITS}}


def _plain(text: str) -> str:
    """Escape text for Markdown, on one line: titles and names come from strangers."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#!" else letter for letter in " ".join(text.split()))


def _linked(text: str, url: str) -> str:
    safe = url.startswith(("https://", "http://")) and not any(letter in url for letter in " <>()\"'\\")
    return f"[{_plain(text)}]({url})" if safe else _plain(text)


def _charts(records: Sequence[Record]) -> dict[str, Mapping[str, int]]:
    """Count for four bar charts: title → label → photos (or photographers)."""
    sides = _binned([min(record.width, record.height) for record in records], SIDES)
    pixels = _binned([record.width * record.height / 1e6 for record in records], MEGAPIXELS)
    by_author = Counter(f"{record.source}:{record.author_id}" for record in records if record.author_id)
    photos = Counter(min(count, 10) for count in by_author.values())
    authors = {f"{count}{'+' if count == 10 else ''}": photos[count] for count in range(1, 11)}
    licences = dict(Counter(record.licence or "unknown" for record in records).most_common(8))
    return {
        "Short side, pixels": sides,
        "Megapixels": pixels,
        "Photographers by number of photos": authors,
        "Photos by licence": licences,
    }


def _binned(values: Sequence[float], edges: Sequence[float]) -> dict[str, int]:
    """Count values by interval; the last one is open above."""
    counts = np.histogram(values, [*edges, np.inf])[0]
    names = [f"{low:g}–{high:g}" for low, high in pairwise(edges)] + [f"{edges[-1]:g}+"]
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _contact_sheet(folder: Path, records: Sequence[Record]) -> bytes:
    """Make a JPEG with one row per category: its name and up to eight photos, references first.

    A photo that cannot be read leaves its place empty; ``rasr dataset check`` names it.
    """
    ordered = sorted(records, key=lambda record: (record.category, record.split != "reference", record.id))
    shown = dict(islice(_by_category(ordered).items(), ROWS))
    sheet = np.ones((THUMB * len(shown), LABEL + THUMB * PER_ROW, 3), np.float32)
    for row, photos in enumerate(shown.values()):
        for column, photo in enumerate(photos[:PER_ROW]):
            try:
                thumb = _thumb(read_picture(file_inside(folder, photo)).opaque())
            except (PictureError, DatasetError):
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
    """Cut the middle square and shrink it to THUMB × THUMB."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return resize(pixels, (THUMB, THUMB), filter="area", box=(left, top, left + side, top + side)).clip(0, 1)
