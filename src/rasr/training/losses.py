"""The terms of eq. 5 that need no second player: MSE, a perceptual distance and Gram.

Every term takes prediction and truth (N, 3, H, W) on the [0, 1] scale and gives one value per sample, (N,), so that a
batch cut into portions or spread over processes adds up to the same mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rasr.errors import WeightsCorrupt
from rasr.training.features import FeatureNetwork
from rasr.weights import read_weights

__all__ = ["PerceptualDistance", "gram_distance", "gram_matrix", "mse"]


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """λ1's term: mean squared difference of pictures in [-1, 1], hence 4 × that in [0, 1]; (N,).

    On this scale the published weights (OSEDiff, S3Diff) were chosen.
    """
    return 4 * (prediction - truth).square().flatten(1).mean(1)


class PerceptualDistance(nn.Module):
    """λ2's term: LPIPS (Zhang et al., CVPR 2018, eq. 1) on any feature network.

    Features are scaled to unit length along the channels; squared differences are weighted by channel, summed, and
    averaged over positions. With VGG-16 and LPIPS's learned weights (``heads``, lpips' ``vgg.pth``) the maps are summed
    and this is LPIPS. Without them all weights are 1, the maps are averaged, and it is LPIPS-shaped, not LPIPS.
    """

    def __init__(self, network: FeatureNetwork, heads: Path | None = None) -> None:
        super().__init__()
        self.network = network
        self.heads: list[Tensor] | None = None
        if heads is not None:
            state = read_weights(heads)
            try:
                self.heads = [state[f"lin{level}.model.1.weight"].flatten() for level in range(5)]
            except KeyError as error:
                raise WeightsCorrupt(f"{heads} does not hold LPIPS's linear weights: {error} is missing.") from error

    @property
    def described(self) -> str:
        """What is computed, for the log."""
        return f"LPIPS on {self.network.described}" if self.heads else f"LPIPS-shaped, on {self.network.described}"

    def forward(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """(N,) distances; the gradient flows to ``prediction`` only."""
        with torch.no_grad():
            wanted = self.network(truth)
        return self.distance(self.network(prediction), wanted)

    def distance(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """(N,) from features already computed."""
        levels = []
        for level, (a, b) in enumerate(zip(found, wanted, strict=True)):
            difference = (_unit(a) - _unit(b)).square()
            if self.heads:
                difference = difference * self.heads[level].to(a).view(1, -1, 1, 1)
            levels.append(difference.sum(1).flatten(1).mean(1))
        total = torch.stack(levels)
        return total.sum(0) if self.heads else total.mean(0)


def _unit(features: Tensor) -> Tensor:
    # The small constant stands inside the root: at a dead position the gradient of a bare norm is not a number.
    return features / (features.square().sum(1, keepdim=True) + 1e-10).sqrt()


def gram_matrix(features: Tensor) -> Tensor:
    """(N, C, h, w) → (N, C, C): inner products of channels over positions, divided by C·h·w (Gatys et al., 2016)."""
    count, channels = features.shape[:2]
    flat = features.reshape(count, channels, -1)
    return flat @ flat.transpose(1, 2) / (channels * flat.shape[2])


def gram_distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """λ4's term, Σ_l w_l ‖G_l(ŷ) − G_l(y)‖²_F with w_l = 1 / ‖G_l(y)‖²_F averaged over levels; (N,).

    Dividing by the truth's own norm makes levels and networks comparable: 0 is equal texture, 1 no texture at all. The
    paper prints no w_l.
    """
    levels = []
    for a, b in zip(found, wanted, strict=True):
        wanted_gram = gram_matrix(b).detach()
        size = wanted_gram.square().sum((1, 2)) + 1e-6
        levels.append((gram_matrix(a) - wanted_gram).square().sum((1, 2)) / size)
    return torch.stack(levels).mean(0)
