"""The fine structure of pictures: what a Gaussian leaves, cut into the cells that are copied."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

__all__ = ["cells_of", "detail_of", "gaussian_blur"]

DEVIATION = 2.0
"""Of the Gaussian, in pixels, above whose frequencies a picture's detail begins."""


def detail_of(pictures: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) minus its Gaussian."""
    return pictures - gaussian_blur(pictures, DEVIATION)


def cells_of(pictures: torch.Tensor, cell: int, grid: int) -> torch.Tensor:
    """Squares of ``cell`` pixels, ``grid`` pixels apart: (N, C · cell², H / grid, W / grid), edges repeated.

    The order within a square is pixel-unshuffle's, so that the patch codec's latents are ``cells_of(x, 4, 4)``.
    """
    height, width = pictures.shape[2] // grid, pictures.shape[3] // grid
    padded = F.pad(pictures, (0, cell - grid, 0, cell - grid), mode="replicate")
    return F.unfold(padded, cell, stride=grid).view(len(pictures), -1, height, width)


def gaussian_blur(pictures: torch.Tensor, deviation: float) -> torch.Tensor:
    """(N, C, H, W) through a Gaussian of ``deviation`` pixels, edges repeated; 0 changes nothing."""
    if not deviation:
        return pictures
    reach = math.ceil(3 * deviation)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32, device=pictures.device)
    row = torch.exp(-0.5 * (places / deviation).square())
    row = (row / row.sum()).to(pictures.dtype)
    channels = pictures.shape[1]
    padded = F.pad(pictures, (reach, reach, reach, reach), mode="replicate")
    wide = F.conv2d(padded, row.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(wide, row.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
