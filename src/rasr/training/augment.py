"""DiffAug (Zhao et al., NeurIPS 2020): real and restored pictures are changed alike before they are judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["diff_augment"]

TRANSLATION = 0.125
CUTOUT = 0.5


def diff_augment(pictures: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Colour, translation and cutout, differentiable; (N, 3, H, W) in [0, 1] → the same shape.

    Brightness ±0.5 and grey borders are on the [-1, 1] scale; saturation 0..2, contrast 0.5..1.5, translation by up to
    an eighth, a cut-out square of half the side. One numpy generator a sample decides, so that a sample is changed
    alike however the batch is cut.
    """
    return torch.cat([_augment(picture[None], random) for picture, random in zip(pictures, generators, strict=True)])


def _augment(picture: Tensor, random: np.random.Generator) -> Tensor:
    brightness, saturation, contrast = random.uniform(-0.5, 0.5), random.uniform(0, 2), random.uniform(0.5, 1.5)
    x = picture * 2 - 1 + brightness
    gray = x.mean(1, keepdim=True)
    x = gray + saturation * (x - gray)
    level = x.mean((1, 2, 3), keepdim=True)
    x = level + contrast * (x - level)
    height, width = x.shape[-2:]
    reach = [round(side * TRANSLATION) for side in (height, width)]
    down, right = (int(random.integers(-r, r + 1)) for r in reach)
    x = F.pad(x, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    x = x[:, :, max(-down, 0) : max(-down, 0) + height, max(-right, 0) : max(-right, 0) + width]
    cut = [round(side * CUTOUT) for side in (height, width)]
    top = int(random.integers(-(cut[0] // 2), height - cut[0] // 2))
    left = int(random.integers(-(cut[1] // 2), width - cut[1] // 2))
    mask = torch.ones_like(x[:, :1])
    mask[:, :, max(top, 0) : max(top + cut[0], 0), max(left, 0) : max(left + cut[1], 0)] = 0
    return (x * mask + 1) / 2
