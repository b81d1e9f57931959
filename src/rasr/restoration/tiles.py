"""Tiles: cut a picture on a regular grid, restore each tile, blend the answers on a canvas of any size.

Along one side, neighbouring tiles share ``overlap`` pixels: a margin at each tile's end that is thrown away, because a
network sees the tile's edge there and a resampling filter would reach beyond it, and between the margins a cosine ramp
from one tile to the next. The window of a tile is the product of its two ramps, and the windows sum to one everywhere.
A tile that does not fit into memory is restored in tiles of half its side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.errors import OutOfMemory, UsageError
from rasr.generator import Conditioning, Cuttable, Generator, GeneratorInfo
from rasr.images import FloatImage, resize
from rasr.memory import free_memory, is_out_of_memory, release_memory
from rasr.progress import Progress

FRAME = 2
"""Width of the frame of a thin picture, in overlaps: behind one, a flat picture was 4.5 levels off at its ends."""
ROWS = 256
"""Rows of a strip. What is held besides the picture is a few strips of this height."""
SHARE = 0.5
"""Part of the free memory a tile may take: the rest is for the canvas, the decoder and other programs."""


def choose_tile(tile: int | str, info: GeneratorInfo) -> int:
    """Tile side to start with: the generator's default, less where memory is short, or as asked.

    Raises UsageError for a side below the generator's minimum.
    """
    hints = info.tile
    if tile != "auto":
        side = int(tile)
        if side < hints.minimum:
            raise UsageError(f"--tile {side} is too small: {info.name} needs tiles of at least {hints.minimum} pixels.")
        return side
    if not hints.bytes_per_pixel:
        return hints.default
    fitting = math.isqrt(int(free_memory(info.device) * SHARE) // hints.bytes_per_pixel)
    return max(hints.minimum, min(hints.default, fitting // hints.multiple * hints.multiple))


def generate_tiled(
    generator: Generator,
    conditioning: Conditioning,
    lq: FloatImage,
    size: tuple[int, int],
    *,
    base: FloatImage | None = None,
    tile: int,
    progress: Progress | None = None,
    stage: str = "restore",
) -> tuple[FloatImage, int]:
    """Restore ``lq`` to ``size`` (width, height); returns the canvas and the side of the smallest tile needed.

    ``base`` is the cleaner's output on the generator's grid. ``progress(stage, done, 1.0)`` is called
    before the first and after each tile with the finished share of the canvas. Only the canvas and one tile exist at a
    time: the enlargements of ``lq`` to the output or to the network's own size are never made as a whole.
    Raises OutOfMemory when the generator's smallest tile does not fit.
    """
    grid = size if generator.info.grid == "output" else (lq.shape[1], lq.shape[0])

    def advance(done: float) -> None:
        if progress is not None:
            progress(stage, done, 1.0)

    advance(0.0)  # the stage has begun, and its first tile may take long
    run = _TiledRun(generator, conditioning, lq, base, grid, advance)
    canvas = run.paint((0, 0, grid[1], grid[0]), (size[1], size[0]), tile)
    advance(1.0)
    return canvas, run.limit or tile


@dataclass(slots=True, eq=False)
class _TiledRun:
    """One generator's run over one picture; ``advance`` is told the finished share, 0..1, after each tile."""

    generator: Generator
    conditioning: Conditioning
    lq: FloatImage
    base: FloatImage | None
    grid: tuple[int, int]
    """Width and height of what the generator reads; ``base`` has them already."""
    advance: Callable[[float], None]
    done: float = 0.0
    limit: int | None = None
    """Once memory has run out: the side that fitted. Later tiles start from it instead of failing again."""

    @property
    def frame(self) -> int:
        """Pixels of its mirror image around each tile of a picture that is thinner than the smallest tile.

        A network takes what lies beyond a tile for black, and a few rows would be all edge. What a ramp between tiles
        hides has nothing to hide it here, so the frame is wider than what tiles share.
        """
        info = self.generator.info
        thin = info.grid == "input" and min(self.grid) < info.tile.minimum
        return _round_up(FRAME * info.tile.overlap, info.tile.multiple) if thin else 0

    def paint(
        self, region: tuple[int, int, int, int], target: tuple[int, int], side: int, part: float = 1.0
    ) -> FloatImage:
        """Restore ``region`` (top, left, height, width) of the grid onto a new canvas of ``target`` (height, width).

        ``part`` is the share of the whole picture's progress that this region stands for.
        """
        info, hints = self.generator.info, self.generator.info.tile
        top, left, height, width = region
        rows, columns = (
            plan_axis(
                length,
                pixels,
                side,
                hints.overlap,
                scale=info.scale,
                multiple=hints.multiple,
                minimum=hints.minimum,
                fixed=hints.fixed,
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
        """Canvas pixels this tile contributes to, cut from its answer or resampled from it; a new array."""
        scale = self.generator.info.scale
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
        """Restore one tile, (length × scale) a side; in smaller tiles if it does not fit into memory."""
        region = (top + row.start, left + column.start, row.length, column.length)
        scale = self.generator.info.scale
        side = max(row.padded, column.padded)
        if self.limit is None or side <= self.limit:
            answer = self._try(region, row.padded, column.padded)
            if answer is not None:
                self.done += part
                self.advance(min(self.done, 1.0))
                first = self.frame * scale
                return answer[first : first + row.length * scale, first : first + column.length * scale]
            self.limit = self._halve(side)
        return self.paint(region, (row.length * scale, column.length * scale), self.limit, part)

    def _try(self, region: tuple[int, int, int, int], height: int, width: int) -> FloatImage | None:
        """Run the generator on a region padded to (height, width); None when memory ran out."""
        try:
            part = np.clip(resample_region(self.lq, self.grid, *region), 0.0, 1.0)
            if self.frame:
                multiple = self.generator.info.tile.multiple
                height, width = (
                    max(padded, _round_up(length + 2 * self.frame, multiple))
                    for padded, length in zip((height, width), part.shape[:2], strict=True)
                )
            tile = _pad(part, height, width, self.frame)[None]
            base = self.base
            if base is not None:
                base = _pad(resample_region(base, self.grid, *region), height, width, self.frame)[None]
            conditioning = self.conditioning
            if isinstance(conditioning, Cuttable):
                conditioning = conditioning.cut(
                    lambda whole: _pad(resample_region(whole, self.grid, *region), height, width, self.frame)
                )
            answer: FloatImage = self.generator.generate(tile, base, conditioning)[0]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return answer
        # Out of the handler: the error's traceback would keep the failed tile's tensors alive.
        release_memory()
        return None

    def _halve(self, side: int) -> int:
        info, hints = self.generator.info, self.generator.info.tile
        half = max(side // 2 // hints.multiple * hints.multiple, _round_up(hints.minimum, hints.multiple))
        if half >= side:
            needs = side * side * hints.bytes_per_pixel / 2**20
            free = free_memory(info.device) / 2**20
            need = f"about {needs:,.0f} MiB, " if needs else ""
            raise OutOfMemory(
                f"Out of memory: a tile of {side}×{side} pixels needs {need}{free:,.0f} MiB are free, and {info.name} "
                f"takes no tile below {hints.minimum}. Close other programs, or use --device cpu or another --preset."
            )
        return half


def _pad(pixels: FloatImage, height: int, width: int, frame: int) -> FloatImage:
    """Mirror the picture, by ``frame`` beyond its upper and left edge, and beyond the others up to (height, width)."""
    missing = ((frame, height - frame - pixels.shape[0]), (frame, width - frame - pixels.shape[1]), (0, 0))
    return np.pad(pixels, missing, "symmetric") if any(after for _, after in missing) else pixels


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """One tile along one side of the grid."""

    start: int
    """First pixel, on the grid the generator reads."""
    length: int
    """Pixels of the picture in this tile."""
    padded: int
    """Pixels handed to the generator: ``length`` rounded up to what it accepts."""
    first: int
    """First pixel on the canvas that this tile contributes to."""
    weights: NDArray[np.float32]
    """This tile's share of the canvas pixels from ``first`` on, in (0, 1]."""

    @property
    def stop(self) -> int:
        """One past the last canvas pixel."""
        return self.first + len(self.weights)


def plan_axis(
    size: int,
    target: int,
    tile: int,
    overlap: int,
    *,
    scale: int = 1,
    multiple: int = 1,
    minimum: int = 1,
    fixed: bool = False,
) -> list[Strip]:
    """Lay tiles along a side of ``size`` pixels whose result, ``scale`` times larger, fills ``target`` canvas pixels.

    The tiles are evenly spaced and of one size, so that the last one is not a sliver; unless they are ``fixed``, as
    small as the same number of them may be, since what two of them share is work done twice. The weights of all strips
    add up to one on every canvas pixel (to float32 rounding). ``overlap`` is widened where resampling to the canvas
    needs it and never exceeds half a tile.
    """
    side = _round_up(tile, multiple)
    if size <= side:
        padded = _round_up(max(size, min(minimum, side)), multiple)
        return [Strip(0, size, padded, 0, np.ones(target, np.float32))]
    # Bicubic reaches 2 samples to either side, of the grid or, when shrinking, of the canvas (both in grid pixels).
    reach = 0 if target == size * scale else math.ceil(2 * max(size / target, 1 / scale)) + 1
    shared = min(overlap + 2 * reach, side // 2)
    count = max(2, -(-(size - shared) // (side - shared)))
    if not fixed:
        side = min(side, _round_up(max(-(-(size + (count - 1) * shared) // count), minimum), multiple))
    starts = [round(i * (size - side) / (count - 1)) for i in range(count)]
    margin = min(overlap // 4 + reach, shared // 2)
    ramp = min(shared - 2 * margin, *(right - left for left, right in pairwise(starts)))
    middles = [(right + left + side) / 2 for left, right in pairwise(starts)]
    centres = (np.arange(target, dtype=np.float64) + 0.5) * (size / target)
    rises = [np.ones(target), *(_rise(centres, middle, ramp) for middle in middles), np.zeros(target)]
    strips = []
    for start, (rise, next_rise) in zip(starts, pairwise(rises), strict=True):
        weights = (rise * (1 - next_rise)).astype(np.float32)
        (inside,) = np.nonzero(weights)
        if inside.size:
            strips.append(Strip(start, side, side, int(inside[0]), weights[inside[0] : inside[-1] + 1]))
    return strips


def _round_up(pixels: int, multiple: int) -> int:
    return -(-pixels // multiple) * multiple


def _rise(centres: NDArray[Any], middle: float, ramp: float) -> NDArray[Any]:
    """Weight of the next tile: 0 before the ramp, 1 after it, half a cosine wave between."""
    if ramp <= 0:
        return (centres >= middle).astype(centres.dtype)
    wave: NDArray[Any] = 0.5 - 0.5 * np.cos(np.pi * np.clip((centres - middle) / ramp + 0.5, 0.0, 1.0))
    return wave


def resample_region(
    pixels: FloatImage, size: tuple[int, int], top: int, left: int, height: int, width: int
) -> FloatImage:
    """Resize ``pixels`` bicubically to ``size`` (width, height), but make only one rectangle of the result.

    Equal to ``resize(pixels, size)[top:top + height, left:left + width]``.
    """
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels[top : top + height, left : left + width]
    y0, y1, box_top, box_bottom = _source_span(top, height, size[1], pixels.shape[0])
    x0, x1, box_left, box_right = _source_span(left, width, size[0], pixels.shape[1])
    return resize(pixels[y0:y1, x0:x1], (width, height), box=(box_left, box_top, box_right, box_bottom))


def _source_span(begin: int, length: int, target: int, source: int) -> tuple[int, int, float, float]:
    """Source pixels that canvas pixels ``begin`` to ``begin + length`` depend on, and the box within them."""
    step = source / target
    margin = math.ceil(2 * max(step, 1.0)) + 1
    low, high = begin * step, (begin + length) * step
    first, last = max(0, math.floor(low) - margin), min(source, math.ceil(high) + margin)
    return first, last, max(low - first, 0.0), min(high - first, float(last - first))


def strips(height: int, reach: int = 0) -> Iterator[tuple[slice, int, int]]:
    """Yield strips of rows, each with the first and the last row that it depends on, ``reach`` beyond it."""
    rows = max(ROWS, reach)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield slice(top, bottom), max(0, top - reach), min(height, bottom + reach)


def add_by_strips(
    pixels: FloatImage, other: FloatImage, reach: int, find: Callable[[FloatImage, FloatImage], FloatImage]
) -> None:
    """Add to ``pixels`` (H, W, 3), in place, what ``find`` gives for each strip of them, and clip to [0, 1].

    ``find`` is called with the same rows of ``other``, resized bicubically to the size of ``pixels``, and of ``pixels``
    as they were, and may look ``reach`` rows up and down.
    """
    height, width = pixels.shape[:2]

    def write(rows: slice, found: FloatImage) -> None:
        strip = pixels[rows]
        strip += found
        np.clip(strip, 0.0, 1.0, out=strip)

    # Written one strip late, when the next strip has read these rows as they were.
    pending: tuple[slice, FloatImage] | None = None
    for rows, first, last in strips(height, reach):
        resized = resample_region(other, (width, height), first, 0, last - first, width)
        found = find(resized, pixels[first:last])[rows.start - first : rows.stop - first]
        if pending is not None:
            write(*pending)
        pending = rows, found
    if pending is not None:
        write(*pending)
