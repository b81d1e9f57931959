"""Runs a generator over a picture, tile by tile, with smaller tiles where memory runs out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rasr.errors import OutOfMemory
from rasr.generator import Conditioning, Generator
from rasr.images import FloatImage, resize
from rasr.memory import free_memory, is_out_of_memory, release_memory
from rasr.restoration.tiles import Strip, plan_axis, resample_region

__all__ = ["TileRunner", "generate_tiled"]

Read = Callable[[int, int, int, int], FloatImage]
"""``read(top, left, height, width)`` gives a rectangle of a picture on the generator's grid, (height, width, 3)."""
Progress = Callable[[float], None]
"""Told the finished part, 0..1, after each tile."""


def generate_tiled(
    generator: Generator,
    conditioning: Conditioning,
    lq: FloatImage,
    size: tuple[int, int],
    *,
    base: FloatImage | None = None,
    tile: int,
    progress: Progress | None = None,
) -> tuple[FloatImage, int]:
    """Restore ``lq`` to ``size`` (width, height); gives the canvas and the side of the smallest tile that was needed.

    ``base`` is the cleaner's output on the generator's grid. Only the canvas and one tile exist at a time: the
    enlargements of ``lq`` to the output or to the network's own size are never made as a whole.
    Raises OutOfMemory when the generator's smallest tile does not fit.
    """
    grid = size if generator.info.grid == "output" else (lq.shape[1], lq.shape[0])

    def read(top: int, left: int, height: int, width: int) -> FloatImage:
        return np.clip(resample_region(lq, grid, top, left, height, width), 0.0, 1.0)

    def read_base(top: int, left: int, height: int, width: int) -> FloatImage:
        assert base is not None  # noqa: S101 - for the type checker
        return base[top : top + height, left : left + width]

    runner = TileRunner(generator, conditioning, read, None if base is None else read_base, progress)
    canvas = runner.paint((0, 0, grid[1], grid[0]), (size[1], size[0]), tile)
    return canvas, runner.limit or tile


class TileRunner:
    """One pass over one picture."""

    def __init__(
        self,
        generator: Generator,
        conditioning: Conditioning,
        read: Read,
        read_base: Read | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._generator = generator
        self._conditioning = conditioning
        self._read = read
        self._read_base = read_base
        self._progress = progress
        self._done = 0.0
        self.limit: int | None = None
        """Once memory has run out: the side that fitted. Later tiles start from it instead of failing again."""

    def paint(
        self, region: tuple[int, int, int, int], target: tuple[int, int], side: int, part: float = 1.0
    ) -> FloatImage:
        """Restore ``region`` (top, left, height, width) of the grid onto a new canvas of ``target`` (height, width).

        ``part`` is the share of the whole picture's progress that this region stands for.
        """
        info, hints = self._generator.info, self._generator.info.tile
        top, left, height, width = region
        rows, columns = (
            plan_axis(
                length, pixels, side, hints.overlap, scale=info.scale, multiple=hints.multiple, minimum=hints.minimum
            )
            for length, pixels in zip((height, width), target, strict=True)
        )
        part /= len(rows) * len(columns)
        canvas = np.zeros((*target, 3), np.float32)
        for row in rows:
            for column in columns:
                restored = self._restore(top, left, row, column, part)
                share = self._place(restored, row, column, region, target)
                share *= row.weights[:, None, None]
                share *= column.weights[None, :, None]
                canvas[row.first : row.stop, column.first : column.stop] += share
        return canvas

    def _place(
        self,
        restored: FloatImage,
        row: Strip,
        column: Strip,
        region: tuple[int, int, int, int],
        target: tuple[int, int],
    ) -> FloatImage:
        """The canvas pixels this tile contributes to, cut from its answer or resampled from it; a new array."""
        scale = self._generator.info.scale
        spans = []
        for strip, size, pixels in ((row, region[2], target[0]), (column, region[3], target[1])):
            step = size * scale / pixels
            origin = strip.start * scale
            spans.append((strip.first * step - origin, min(strip.stop * step - origin, float(strip.length * scale))))
        (y0, y1), (x0, x1) = spans
        if target == (region[2] * scale, region[3] * scale):
            return restored[int(y0) : int(y1), int(x0) : int(x1)].copy()
        width, height = len(column.weights), len(row.weights)
        return resize(restored, (width, height), box=(max(x0, 0.0), max(y0, 0.0), x1, y1))

    def _restore(self, top: int, left: int, row: Strip, column: Strip, part: float) -> FloatImage:
        """One tile's answer, (length × scale) a side; in smaller tiles if it does not fit into memory."""
        region = (top + row.start, left + column.start, row.length, column.length)
        scale = self._generator.info.scale
        side = max(row.padded, column.padded)
        if self.limit is None or side <= self.limit:
            answer = self._try(region, row.padded, column.padded)
            if answer is not None:
                self._done += part
                if self._progress is not None:
                    self._progress(min(self._done, 1.0))
                return answer[: row.length * scale, : column.length * scale]
            self.limit = self._halve(side)
        return self.paint(region, (row.length * scale, column.length * scale), self.limit, part)

    def _try(self, region: tuple[int, int, int, int], height: int, width: int) -> FloatImage | None:
        """The generator's answer for a region padded to (height, width), or None when memory ran out."""
        try:
            tile = _pad(self._read(*region), height, width)[None]
            base = None if self._read_base is None else _pad(self._read_base(*region), height, width)[None]
            answer: FloatImage = self._generator.generate(tile, base, self._conditioning)[0]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return answer
        # Out of the handler: the error's traceback would keep the failed tile's tensors alive.
        release_memory()
        return None

    def _halve(self, side: int) -> int:
        info, hints = self._generator.info, self._generator.info.tile
        half = side // 2 // hints.multiple * hints.multiple
        if half < hints.minimum:
            needs = side * side * hints.bytes_per_pixel / 2**20
            free = free_memory(info.device) / 2**20
            need = f"about {needs:,.0f} MiB, " if needs else ""
            raise OutOfMemory(
                f"Out of memory: a tile of {side}×{side} pixels needs {need}{free:,.0f} MiB are free, and {info.name} "
                f"takes no tile below {hints.minimum}. Close other programs, or use --device cpu or another --preset."
            )
        return half


def _pad(pixels: FloatImage, height: int, width: int) -> FloatImage:
    """Mirror the picture beyond its lower and right edge, up to (height, width)."""
    missing = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.pad(pixels, missing, "symmetric") if any(after for _, after in missing) else pixels
