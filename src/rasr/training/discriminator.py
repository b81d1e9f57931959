"""Vision-aided discriminator (Kumari et al., CVPR 2022): trained heads on frozen features.

Real and restored pictures are changed alike by DiffAug (Zhao et al., NeurIPS 2020) before they are judged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from rasr.errors import ConfigError
from rasr.training.features import FeatureNetwork

__all__ = ["Discriminator"]

WIDTH = 128
TRANSLATION = 0.125
CUTOUT = 0.5


class Discriminator(nn.Module):
    """Judge of pictures on several feature levels; only the heads are trained.

    On DINO ViT-B/16 the levels are blocks 5, 9 and 12 (1.869 M trained parameters); on a convolutional network its
    three deepest maps. Every convolution and linear layer of the heads is spectrally normalised.
    """

    def __init__(self, network: FeatureNetwork, *, crop: int, real_target: float = 0.8) -> None:
        """``crop``: side of the pictures in training; the heads' shape depends on their maps."""
        super().__init__()
        self.network = network
        self.real_target = real_target
        with torch.no_grad():
            probe = self._levels(torch.zeros(1, 3, crop, crop))
        smallest = min(min(level.shape[-2:]) for level in probe if level.ndim == 4)
        if smallest < 3:
            raise ConfigError(f"data.crop {crop} is too small for the discriminator on {network.name}: use 96 or more.")
        self.heads = nn.ModuleList(
            _MapHead(level.shape[1]) if level.ndim == 4 else _vector_head(level.shape[1]) for level in probe
        )

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return name → parameter of the heads."""
        return dict(self.heads.named_parameters(prefix="heads"))

    def forward(self, pictures: Tensor, generators: Sequence[np.random.Generator]) -> list[Tensor]:
        """Return every level's logits (N, positions) of pictures (N, 3, H, W) in [0, 1]."""
        levels = self._levels(diff_augment(pictures, generators))
        return [head(level).flatten(1) for head, level in zip(self.heads, levels, strict=True)]

    def generator_loss(self, restored: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Return λ3's term, (N,): how far the restored pictures are from passing as real."""
        return self._loss(self(restored, generators), self.real_target)

    def discriminator_loss(
        self,
        restored: Tensor,
        truth: Tensor,
        generators: Sequence[np.random.Generator],
        real_generators: Sequence[np.random.Generator],
    ) -> Tensor:
        """Return (N,) cross-entropies summed over levels: real target 0.8 (smoothed), fake 0."""
        fake = self._loss(self(restored.detach(), generators), 0.0)
        return fake + self._loss(self(truth, real_generators), self.real_target)

    def _levels(self, pictures: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.network(pictures)
        return features[-3:]

    @staticmethod
    def _loss(levels: Sequence[Tensor], target: float) -> Tensor:
        losses = [
            F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none").mean(1)
            for logits in levels
        ]
        return torch.stack(losses).sum(0)


class _MapHead(nn.Module):
    """Blur, 3×3 convolution, leaky ReLU, blur, 1×1 convolution, strides 2: 14×14 → 3×3 logits."""

    blur: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("blur", torch.outer(row, row)[None, None] / 16, persistent=False)
        self.inner = spectral_norm(nn.Conv2d(channels, WIDTH, 3, stride=2))
        self.outer = spectral_norm(nn.Conv2d(WIDTH, 1, 1, stride=2))

    def forward(self, features: Tensor) -> Tensor:
        x = F.leaky_relu(self.inner(self._smooth(features)), 0.2)
        logits: Tensor = self.outer(self._smooth(x))
        return logits

    def _smooth(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(
            F.pad(x, (1, 1, 1, 1), mode="replicate"), self.blur.to(x.dtype).expand(channels, 1, 3, 3), groups=channels
        )


def _vector_head(channels: int) -> nn.Module:
    return nn.Sequential(
        spectral_norm(nn.Linear(channels, WIDTH)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(WIDTH, 1))
    )


def diff_augment(pictures: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Apply DiffAug (colour, translation, cutout; differentiable) to (N, 3, H, W) in [0, 1].

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
