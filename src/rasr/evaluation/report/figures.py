"""Pictures of a report: telling windows, best and worst cases, a figure like the paper's."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter

from rasr.evaluation.inputs import TestInput
from rasr.evaluation.metrics import MetricInfo
from rasr.evaluation.rows import Row
from rasr.evaluation.runner import Evaluation
from rasr.images import FloatImage, read_picture, resize

_CELL, _GAP, _TEXT = 200, 8, 22


class _Window(NamedTuple):
    """A square part of a picture, in pixels of the ground truth."""

    left: int
    top: int
    side: int

    def cut(self, pixels: FloatImage) -> FloatImage:
        """The window's pixels."""
        return pixels[self.top : self.top + self.side, self.left : self.left + self.side]


@dataclass(frozen=True, slots=True)
class _Cases:
    """Pictures on which a row did best and worst against another."""

    row: Row
    other: Row
    metric: MetricInfo
    best: list[str]
    worst: list[str]


def find_cases(evaluation: Evaluation, count: int = 3) -> _Cases | None:
    """Find them by the full-reference metric closest to the eye; None with nothing to compare.

    A reference method is compared with itself under a random reference, or none; other tables with their baseline.
    """
    by_name = {metric.name: metric for metric in evaluation.metrics}
    metric = next((by_name[name] for name in ("LPIPS", "DISTS", "EPD", "SSIM", "PSNR") if name in by_name), None)
    row, other = _compared(evaluation)
    if metric is None or row is None or other is None:
        return None
    ours, theirs = row.scores.get(metric.name, {}), other.scores.get(metric.name, {})
    sign = 1.0 if metric.better == "higher" else -1.0
    names = sorted(ours.keys() & theirs.keys(), key=lambda name: (-sign * (ours[name] - theirs[name]), name))
    count = min(count, len(names) // 2 or len(names))
    return _Cases(row, other, metric, names[:count], names[::-1][:count])


def case_pictures(evaluation: Evaluation, cases: _Cases, name: str) -> Iterator[tuple[FloatImage, str]]:
    """Yield one case's pictures and captions, cropped where its rows differ; then references."""
    item = next(item for item in evaluation.inputs if item.name == name)
    rows = [cases.other, *(row for row in _shown_rows(evaluation) if row not in (cases.row, cases.other)), cases.row]
    pictures = {row.key: read_picture(evaluation.output(row, name)).pixels for row in rows if name in row.outputs}
    window = telling_window(pictures[cases.row.key], pictures[cases.other.key])
    yield window.cut(_enlarged_input(item)), "input (bicubic)"
    for row in rows:
        if row.key in pictures:
            value = row.scores.get(cases.metric.name, {}).get(name)
            score = "" if value is None else f", {cases.metric.name} {value:.{cases.metric.decimals}f}"
            yield window.cut(pictures[row.key]), f"{row.label}{score}"
    yield window.cut(read_picture(item.truth).opaque()), "ground truth"
    used: dict[Path, str] = {}
    for row in (cases.row, *rows):
        for choice in row.references.get(name, ())[:1]:
            used.setdefault(choice.path, f"reference, {row.policy}: {choice.path.name}, similarity {choice.score:.3f}")
    for path, caption in used.items():
        yield _reference_picture(path, 200), caption


def _compared(evaluation: Evaluation) -> tuple[Row | None, Row | None]:
    rows = {row.key: row for row in evaluation.rows if row.outputs}
    retrieved = [row for row in rows.values() if row.info.uses_reference and row.policy in {"retrieved", "same-scene"}]
    for row in reversed(retrieved):
        for policy in ("random", "none"):
            control = rows.get(f"{row.info.name}:{policy}")
            if control is not None and control.outputs != row.outputs:
                return row, control
    baseline = evaluation.baseline
    others = [row for row in rows.values() if row is not baseline and not row.info.remark]
    return (others[-1], baseline) if others and baseline is not None and baseline.outputs else (None, None)


def _shown_rows(evaluation: Evaluation) -> list[Row]:
    """Rows worth a picture: every method once, reference methods as the product runs them."""
    retrieving = {row.info.name for row in evaluation.rows if row.policy in {"retrieved", "same-scene"}}
    return [
        row
        for row in evaluation.rows
        if row.outputs
        and (
            not row.info.uses_reference
            or row.policy in {"retrieved", "same-scene"}
            or (row.info.name not in retrieving and row.policy == "none")
        )
    ]


def telling_window(a: FloatImage, b: FloatImage, side: int = 160) -> _Window:
    """Find the ``side`` px window with the largest mean difference of two equal-sized pictures."""
    height, width = a.shape[:2]
    side = min(side, height, width)
    difference: NDArray[np.float32] = np.abs(a - b).mean(axis=2)
    means = uniform_filter(difference, size=side, mode="constant")
    half = side // 2
    inner = means[half : height - (side - half) + 1, half : width - (side - half) + 1]
    top, left = np.unravel_index(int(np.argmax(inner)), inner.shape)
    return _Window(int(left), int(top), side)


def _enlarged_input(item: TestInput) -> FloatImage:
    """The low-quality input at the output's size, bicubic."""
    return np.clip(resize(read_picture(item.low).pixels, (item.width, item.height)), 0.0, 1.0)


def _reference_picture(path: Path, side: int) -> FloatImage:
    """The largest centred square of a reference, at ``side`` × ``side`` pixels."""
    pixels = read_picture(path).pixels
    height, width = pixels.shape[:2]
    square = min(height, width)
    left, top = (width - square) / 2, (height - square) / 2
    return np.clip(resize(pixels, (side, side), box=(left, top, left + square, top + square)), 0.0, 1.0)


def comparison(evaluation: Evaluation, names: Sequence[str] = ()) -> bytes | None:
    """Draw a PNG like the paper's Fig. 2: a marked window, and it by every method.

    Shows the named pictures, or those on which the reference mattered most; None without rows. Raises UsageError for a
    picture that is not in the benchmark.
    """
    rows = _shown_rows(evaluation)
    items = {item.name: item for item in evaluation.inputs}
    evaluation.benchmark.check_names(names)
    cases = find_cases(evaluation, 2)
    telling = [*cases.best, *cases.worst[:1]] if cases else list(items)[:3]
    chosen = list(names) or list(dict.fromkeys(telling))
    if not chosen or not rows:
        return None
    blocks = [_block(evaluation, rows, items[name]) for name in chosen]
    sheet = Image.new("RGB", (max(b.width for b in blocks), sum(b.height + _GAP for b in blocks) - _GAP), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height + _GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _block(evaluation: Evaluation, rows: Sequence[Row], item: TestInput) -> Image.Image:
    """The whole input with the window marked, then a grid of two lines of crops."""
    present = [row for row in rows if item.name in row.outputs]
    pictures = [read_picture(evaluation.output(row, item.name)).pixels for row in present]
    low, truth = _enlarged_input(item), read_picture(item.truth).opaque()
    window = telling_window(pictures[-1] if pictures else low, truth)
    crops = [(window.cut(low), "input")]
    crops += [(window.cut(pixels), row.info.label) for row, pixels in zip(present, pictures, strict=True)]
    crops.append((window.cut(truth), "ground truth"))
    reference = next((row.references[item.name][0] for row in reversed(present) if row.references.get(item.name)), None)
    if reference is not None:
        crops.append((_reference_picture(reference.path, _CELL), f"reference ({reference.score:.2f})"))
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


def _marked(pixels: FloatImage, window: _Window, side: int) -> Image.Image:
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
