"""A PNG figure like the paper's Fig. 2: each picture with a marked window, and the window as every method sees it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rasr.errors import UsageError
from rasr.evaluation.inputs import TestInput
from rasr.evaluation.report.cases import cases
from rasr.evaluation.report.crops import (
    Window,
    cut,
    enlarged_input,
    reference_picture,
    shown_rows,
    telling_window,
)
from rasr.evaluation.rows import Row
from rasr.evaluation.runner import Evaluation
from rasr.files import write_bytes
from rasr.images import FloatImage, read_picture, resize

__all__ = ["write_comparison"]

_CELL, _GAP, _TEXT = 200, 8, 22


def write_comparison(evaluation: Evaluation, names: Sequence[str] = ()) -> Path | None:
    """Write ``figure.png`` for the named pictures, or those on which the reference mattered most; None without rows.

    Raises UsageError for a picture that is not in the benchmark.
    """
    rows = shown_rows(evaluation)
    items = {item.name: item for item in evaluation.inputs}
    unknown = [name for name in names if name not in items]
    if unknown:
        raise UsageError(f"--figure {unknown[0]}: the benchmark has no such picture. Its pictures: {', '.join(items)}.")
    chosen = list(names) or _telling(evaluation, rows)
    blocks = [_block(evaluation, rows, items[name]) for name in chosen]
    if not blocks or not rows:
        return None
    width = max(block.width for block in blocks)
    height = sum(block.height for block in blocks) + _GAP * (len(blocks) - 1)
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height + _GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return write_bytes(buffer.getvalue(), evaluation.settings.out / "figure.png", overwrite=True)


def _telling(evaluation: Evaluation, rows: Sequence[Row]) -> list[str]:
    found = cases(evaluation, 2)
    if found is not None:
        return list(dict.fromkeys([*found[2], *found[3][:1]]))
    return [item.name for item in evaluation.inputs[:3]] if rows else []


def _block(evaluation: Evaluation, rows: Sequence[Row], item: TestInput) -> Image.Image:
    """The whole input with the window marked, then a grid of two lines of crops."""
    present = [row for row in rows if item.name in row.outputs]
    pictures = [read_picture(evaluation.output(row, item.name)).pixels for row in present]
    low, truth = enlarged_input(item), read_picture(item.truth).pixels
    window = telling_window(pictures[-1] if pictures else low, truth)
    crops = [(cut(low, window), "input")]
    crops += [(cut(pixels, window), row.info.label) for row, pixels in zip(present, pictures, strict=True)]
    crops.append((cut(truth, window), "ground truth"))
    reference = next((row.references[item.name][0] for row in reversed(present) if row.references.get(item.name)), None)
    if reference is not None:
        crops.append((reference_picture(reference.path, _CELL), f"reference ({reference.score:.2f})"))
    columns = -(-len(crops) // 2)
    side = 2 * (_CELL + _TEXT) + _GAP
    block = Image.new("RGB", (side + columns * (_CELL + _GAP), side), "white")
    block.paste(_marked(low, window, side), (0, 0))
    for number, (pixels, caption) in enumerate(crops):
        left = side + _GAP + (number % columns) * (_CELL + _GAP)
        top = (number // columns) * (_CELL + _TEXT + _GAP)
        block.paste(_image(pixels, (_CELL, _CELL)), (left, top))
        _caption(block, caption, left, top + _CELL)
    return block


def _marked(pixels: FloatImage, window: Window, side: int) -> Image.Image:
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    whole = Image.new("RGB", (side, side), "white")
    whole.paste(_image(pixels, (round(width * factor), round(height * factor))), (0, 0))
    corners = [window.left, window.top, window.left + window.side - 1, window.top + window.side - 1]
    ImageDraw.Draw(whole).rectangle([round(value * factor) for value in corners], outline=(230, 30, 30), width=3)
    return whole


def _image(pixels: FloatImage, size: tuple[int, int]) -> Image.Image:
    fitted = pixels if pixels.shape[1::-1] == size else np.clip(resize(pixels, size), 0.0, 1.0)
    return Image.fromarray(np.rint(fitted * 255).astype(np.uint8))


def _caption(block: Image.Image, text: str, left: int, top: int) -> None:
    draw = ImageDraw.Draw(block)
    size = 14
    while size > 8 and draw.textlength(text, font=ImageFont.load_default(size)) > _CELL:
        size -= 1
    draw.text((left + _CELL / 2, top + _TEXT / 2), text, fill="black", font=ImageFont.load_default(size), anchor="mm")
