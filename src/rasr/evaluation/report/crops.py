"""Where to look: the window in which two results differ most, and pictures cut to it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter

from rasr.evaluation.inputs import TestInput
from rasr.evaluation.rows import Row
from rasr.evaluation.runner import Evaluation
from rasr.images import FloatImage, read_picture, resize

__all__ = ["Window", "as_data_url", "cut", "enlarged_input", "reference_picture", "shown_rows", "telling_window"]


@dataclass(frozen=True, slots=True)
class Window:
    """A square part of a picture, in pixels of the ground truth."""

    left: int
    top: int
    side: int


def telling_window(a: FloatImage, b: FloatImage, side: int = 160) -> Window:
    """The ``side`` × ``side`` window with the largest mean absolute difference of two pictures of one size."""
    height, width = a.shape[:2]
    side = min(side, height, width)
    difference: NDArray[np.float32] = np.abs(a - b).mean(axis=2)
    means = uniform_filter(difference, size=side, mode="constant")
    half = side // 2
    inner = means[half : height - (side - half) + 1, half : width - (side - half) + 1]
    top, left = np.unravel_index(int(np.argmax(inner)), inner.shape)
    return Window(int(left), int(top), side)


def cut(pixels: FloatImage, window: Window) -> FloatImage:
    """The window's pixels."""
    return pixels[window.top : window.top + window.side, window.left : window.left + window.side]


def enlarged_input(item: TestInput) -> FloatImage:
    """The low-quality input at the output's size, bicubic."""
    return np.clip(resize(read_picture(item.low).pixels, (item.width, item.height)), 0.0, 1.0)


def reference_picture(path: Path, side: int) -> FloatImage:
    """The largest centred square of a reference, at ``side`` × ``side`` pixels."""
    pixels = read_picture(path).pixels
    height, width = pixels.shape[:2]
    square = min(height, width)
    left, top = (width - square) / 2, (height - square) / 2
    return np.clip(resize(pixels, (side, side), box=(left, top, left + square, top + square)), 0.0, 1.0)


def as_data_url(pixels: FloatImage) -> str:
    """The picture as a JPEG inside a URL, so that the page needs no other file."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(buffer, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def shown_rows(evaluation: Evaluation) -> list[Row]:
    """Rows worth a picture: every method once, reference methods as the product runs them."""
    retrieving = {row.info.name for row in evaluation.rows if row.policy in {"retrieved", "paired"}}
    return [
        row
        for row in evaluation.rows
        if row.outputs
        and (
            not row.info.uses_reference
            or row.policy in {"retrieved", "paired"}
            or (row.info.name not in retrieving and row.policy == "none")
        )
    ]
