"""Matching by layout: where a reference shows each place of a picture, coarse to fine.

Nothing is trained. Features of a small restoration network tell places apart badly in a degraded picture: of the
8-pixel cells of 512 px photos after Real-ESRGAN, one in five finds itself in the sharp photo by mini's features, of the
16-pixel cells two in five. Plain colours under a wide, blurred window do far better, 0.86 for a window of 96 px, as
what is left of a degraded picture is its layout (docs/decisions.md). So that is searched first, everywhere; smaller
windows settle where exactly, near the places found before.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

CELL = 4
"""Pixels a side of the cells that are matched in the end."""
GRID = 2
"""Pixels between the places of a reference where the fine windows are tried."""
CHUNK = 2**24
"""Numbers gathered at once; bounds the memory of a search."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Descriptor: ``side`` × ``side`` colours, ``step`` pixels apart, every ``stride`` pixels."""

    stride: int
    step: int
    side: int

    @property
    def blur(self) -> float:
        return self.step / 2


COARSE, MIDDLE, FINE = _Window(16, 8, 16), _Window(8, 8, 12), _Window(8, 4, 12)
NEIGHBOUR_STEP, MAX_SHIFT, SMOOTHING = 8, 16, 12
"""Coherence: cells between neighbours, pixels by which their shifts may differ, cells around that are averaged."""
MIDDLE_RANGE, FINE_RANGE = (-2, 3), (-2, 2)
"""First and last candidate along an axis, from the place found one step coarser, in steps of the finer grid."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Windows of references, (M, h, w, 3, side, side): views of three blurred pictures."""

    coarse: torch.Tensor
    middle: torch.Tensor
    fine: torch.Tensor
    """For every place of a grid of 2 pixels."""


@dataclass(frozen=True, slots=True)
class _Match:
    """Matches of every cell of a picture, (N, h · w), row by row."""

    places: torch.Tensor
    """Index into the reference's 2-pixel grid, of the cell's first pixel."""
    coarse: torch.Tensor
    """Cosine of the wide windows, -1 to 1."""
    fine: torch.Tensor
    """Cosine of the small ones."""
    coherence: torch.Tensor
    """Share of neighbours found as neighbours, 0 to 1: tells the same scene from what only looks alike."""


def read_layout(pictures: torch.Tensor, grid: int = GRID) -> Layout:
    """Cut references (M, 3, H, W), sides multiples of 16, into windows, the fine ones ``grid`` pixels apart."""
    wide = gaussian_blur(pictures.float(), COARSE.blur)  # and the middle windows' too
    return Layout(
        _windows(wide, COARSE, COARSE.stride),
        _windows(wide, MIDDLE, MIDDLE.stride),
        _windows(gaussian_blur(pictures.float(), FINE.blur), FINE, grid),
    )


@torch.no_grad()
def find_matches(pictures: torch.Tensor, reference: Layout) -> _Match:
    """Find the likeliest place of every 4-pixel cell of ``pictures`` (N, 3, H, W).

    Sides are multiples of 16. ``reference`` holds M = N references, one each, or M = 1 for all.
    """
    count, _, height, width = pictures.shape
    own = read_layout(pictures, FINE.stride)
    coarse, score = _search_all(own.coarse, reference.coarse)
    row, column = coarse // reference.coarse.shape[2], coarse % reference.coarse.shape[2]
    row, column, score = (_finer(part.view(count, height // 16, width // 16)) for part in (row, column, score))
    row, column = 2 * row + _odd(row, 0), 2 * column + _odd(column, 1)
    row, column, _ = _search_near(own.middle, reference.middle, row, column, MIDDLE_RANGE)
    row, column, fine = _search_near(own.fine, reference.fine, 4 * row, 4 * column, FINE_RANGE)
    rows, columns = reference.fine.shape[1:3]
    row, column, score, fine = map(_finer, (row, column, score, fine))
    row = (row + CELL // GRID * _odd(row, 0)).clamp(max=rows - 1)
    column = (column + CELL // GRID * _odd(column, 1)).clamp(max=columns - 1)
    places = (row * columns + column).flatten(1)
    return _Match(places, score.flatten(1), fine.flatten(1), _coherence(row, column).flatten(1))


def gaussian_blur(pictures: torch.Tensor, deviation: float) -> torch.Tensor:
    """Blur pictures (N, C, H, W) by a Gaussian of ``deviation`` > 0 pixels, edges repeated."""
    reach = math.ceil(3 * deviation)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32, device=pictures.device)
    row = torch.exp(-0.5 * (places / deviation).square())
    row = (row / row.sum()).to(pictures.dtype)
    channels = pictures.shape[1]
    padded = F.pad(pictures, (reach, reach, reach, reach), mode="replicate")
    wide = F.conv2d(padded, row.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(wide, row.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def _coherence(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Share of a cell's eight neighbours that shifted as it did, averaged around it, (N, h, w).

    ``row`` and ``column`` are places in the reference, in steps of 2 pixels.
    """
    height, width = row.shape[1:]
    down = GRID * row - CELL * torch.arange(height, device=row.device).view(1, -1, 1)
    right = GRID * column - CELL * torch.arange(width, device=row.device)
    moved = torch.stack((down, right), 1).float()
    around = F.pad(moved, (NEIGHBOUR_STEP,) * 4, mode="replicate")
    agreeing = torch.zeros_like(moved[:, 0])
    for top in (0, NEIGHBOUR_STEP, 2 * NEIGHBOUR_STEP):
        for left in (0, NEIGHBOUR_STEP, 2 * NEIGHBOUR_STEP):
            if (top, left) != (NEIGHBOUR_STEP, NEIGHBOUR_STEP):
                other = around[:, :, top : top + height, left : left + width]
                agreeing += (other - moved).abs().amax(1) <= MAX_SHIFT
    padded = F.pad(agreeing[:, None] / 8, (SMOOTHING,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * SMOOTHING + 1, stride=1)[:, 0]


def _windows(blurred: torch.Tensor, window: _Window, stride: int) -> torch.Tensor:
    """View blurred pictures (N, 3, H, W), edges mirrored, as windows (N, h, w, 3, side, side).

    A window lies in the middle of the ``window.stride`` pixels it stands for; windows follow each other by ``stride``.
    """
    count, _, height, width = blurred.shape
    extent = window.step * (window.side - 1)
    first = window.stride // 2 - extent // 2
    y, x = (
        _mirrored(torch.arange(first, first + length - stride + extent + 1, device=blurred.device), length)
        for length in (height, width)
    )
    padded = blurred[:, :, y][..., x].contiguous()
    n, c, h, w = padded.stride()
    return padded.as_strided(
        (count, height // stride, width // stride, 3, window.side, window.side),
        (n, h * stride, w * stride, c, h * window.step, w * window.step),
    )


def _mirrored(places: torch.Tensor, length: int) -> torch.Tensor:
    period = max(2 * (length - 1), 1)
    places = places.remainder(period)
    return torch.minimum(places, period - places)


def _unit(windows: torch.Tensor) -> torch.Tensor:
    """Flatten (N, ..., 3, side, side) to (N, places, D), minus the mean, of unit length."""
    flat = windows.reshape(len(windows), -1, 3 * windows.shape[-1] ** 2)
    return F.normalize(flat - flat.mean(2, keepdim=True), dim=2)


def _search_all(query: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the index and cosine of the best key for every query, (N, h · w) both."""
    known = _unit(keys).mT
    parts = torch.split(_unit(query), max(1, CHUNK // (len(query) * known.shape[2])), 1)
    found = [(part @ known).max(-1) for part in parts]
    return torch.cat([top.indices for top in found], 1), torch.cat([top.values for top in found], 1)


def _search_near(
    query: torch.Tensor, keys: torch.Tensor, row: torch.Tensor, column: torch.Tensor, span: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find row, column and cosine of the best key near (row, column), all (N, h, w)."""
    count, height, width = keys.shape[:3]
    steps = torch.arange(span[0], span[1] + 1, device=query.device)
    tries = len(steps) ** 2
    rows = (row.flatten(1)[..., None, None] + steps[:, None]).clamp(0, height - 1).expand(-1, -1, -1, len(steps))
    columns = (column.flatten(1)[..., None, None] + steps).clamp(0, width - 1).expand(-1, -1, len(steps), -1)
    rows, columns = rows.flatten(2), columns.flatten(2)
    own = torch.arange(count, device=query.device).view(-1, 1, 1)
    wanted = _unit(query)
    depth = wanted.shape[2]
    # Windows that are tried many times over are laid out once; rows are then copied whole.
    table = keys.reshape(-1, depth) if 4 * height * width <= rows.shape[1] * tries else None
    size = max(1, CHUNK // (len(query) * depth * tries))
    scores = []
    for part, y, x in zip(*(torch.split(whole, size, 1) for whole in (wanted, rows, columns)), strict=True):
        if table is not None:
            tried = F.embedding((own * height + y) * width + x, table)  # (N, part, tries, D)
        else:
            tried = keys[own.expand_as(y), y, x].flatten(3)
        # The query's mean is 0, so that the key's need not be taken away before multiplying.
        spread = tried.square().sum(3) - tried.sum(3).square() / depth
        scores.append((tried @ part[..., None]).squeeze(3) / spread.clamp_min(1e-8).sqrt())
    best = torch.cat(scores, 1).max(-1)
    chosen = best.indices[..., None]
    row, column = (part.gather(2, chosen).view(row.shape) for part in (rows, columns))
    return row, column, best.values.view(row.shape)


def _finer(grid: torch.Tensor) -> torch.Tensor:
    """Repeat each value four times: (N, h, w) → (N, 2h, 2w)."""
    return grid.repeat_interleave(2, 1).repeat_interleave(2, 2)


def _odd(grid: torch.Tensor, axis: int) -> torch.Tensor:
    """Mark, as ``grid`` is shaped, the second of each pair along an axis (0 rows, 1 columns)."""
    places = torch.arange(grid.shape[axis + 1], device=grid.device) % 2
    return places.view((1, -1, 1) if axis == 0 else (1, 1, -1)).expand_as(grid)
