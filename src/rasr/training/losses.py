"""Losses of eq. 5: MSE, perceptual distance, adversarial term and Gram, and their sum.

Every term takes prediction and truth (N, 3, H, W) on the [0, 1] scale and gives one value per sample, (N,), so that a
batch cut into portions or spread over processes adds up to the same mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from rasr.errors import ConfigError, WeightsCorrupt
from rasr.training.batch import TrainingBatch
from rasr.training.config import TrainingConfig
from rasr.training.features import FeatureNetwork, load_feature_network
from rasr.training.rng import generator_for, seed_torch
from rasr.weights import read_weights

WIDTH = 128
TRANSLATION = 0.125
CUTOUT = 0.5


class Objective(nn.Module):
    """Objective per sample: L = λ1·MSE + λ2·LPIPS + λ3·GAN + λ4·Gram."""

    def __init__(self, config: TrainingConfig, log: Callable[[str], None]) -> None:
        """Load the networks of the terms whose weight is not 0 and say which they are.

        Raises ExtraMissing, WeightsMissing, WeightsCorrupt or ConfigError (crop too small).
        """
        super().__init__()
        self.config = config.loss
        self._seed = config.seed
        self.networks: dict[str, FeatureNetwork] = {}
        self.perceptual: PerceptualDistance | None = None
        self.gram: FeatureNetwork | None = None
        self.discriminator: Discriminator | None = None
        if self.config.perceptual:
            heads = self.config.files.get("lpips-heads") if self.config.perceptual_network == "vgg16" else None
            network = self._network(self.config.perceptual_network)
            self.perceptual = PerceptualDistance(network, Path(heads) if heads else None)
            log(f"perceptual loss: {self.perceptual.described}")
        if self.config.gram:
            self.gram = self._network(self.config.gram_network)
            log(f"Gram loss: on {self.gram.described}")
        if self.config.gan:
            network = self._network(self.config.discriminator_network)
            seed_torch(config.seed, "discriminator")
            self.discriminator = Discriminator(network, crop=config.data.crop, real_target=self.config.real_target)
            log(f"discriminator: on {network.described}, from step {self.config.gan_after}")

    @property
    def facts(self) -> dict[str, str]:
        """Return network → sha256 of its weights; pinned by the checkpoints."""
        return {name: network.sha256 for name, network in self.networks.items()}

    def adversarial(self, step: int) -> Discriminator | None:
        """Return the discriminator, in the steps in which it plays."""
        return self.discriminator if step >= self.config.gan_after else None

    def terms(self, prediction: Tensor, batch: TrainingBatch, step: int) -> dict[str, Tensor]:
        """Compute the unweighted terms, (N,) each, of predictions (N, 3, H, W) in fp32."""

        @cache  # both terms may stand on one network
        def features(network: FeatureNetwork) -> tuple[list[Tensor], list[Tensor]]:
            with torch.no_grad():
                wanted = network(batch.hr)
            return network(prediction), wanted

        found = {"mse": mse(prediction, batch.hr)}
        if self.perceptual is not None:
            found["perceptual"] = self.perceptual.distance(*features(self.perceptual.network))
        if self.gram is not None:
            found["gram"] = gram_distance(*features(self.gram))
        if judge := self.adversarial(step):
            found["gan"] = judge.generator_loss(prediction, self._random(step, batch, "generator"))
        return found

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum, averaged over the samples."""
        weighted = [getattr(self.config, name) * values for name, values in terms.items()]
        return torch.stack(weighted).sum(0).mean()

    def discriminator_loss(self, judge: Discriminator, prediction: Tensor, batch: TrainingBatch, step: int) -> Tensor:
        """Return the discriminator's loss on a batch, averaged over the samples."""
        fake, real = self._random(step, batch, "fake"), self._random(step, batch, "real")
        return judge.discriminator_loss(prediction, batch.hr, fake, real).mean()

    def _random(self, step: int, batch: TrainingBatch, purpose: str) -> list[np.random.Generator]:
        return [generator_for(self._seed, "augment", purpose, step, index) for index in batch.indices]

    def _network(self, name: str) -> FeatureNetwork:
        if name not in self.networks:
            self.networks[name] = load_feature_network(name, files=self.config.files, sha256=self.config.sha256)
        return self.networks[name]


def mse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return λ1's term, (N,): mean squared difference in [-1, 1], 4 × that in [0, 1].

    On this scale the published weights (OSEDiff, S3Diff) were chosen.
    """
    return 4 * (prediction - truth).square().flatten(1).mean(1)


class PerceptualDistance(nn.Module):
    """Perceptual distance, λ2's term: LPIPS (Zhang et al., CVPR 2018, eq. 1) on any network.

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
        """Name what is computed, for the log."""
        return f"LPIPS on {self.network.described}" if self.heads else f"LPIPS-shaped, on {self.network.described}"

    def forward(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """Return (N,) distances; the gradient flows to ``prediction`` only."""
        with torch.no_grad():
            wanted = self.network(truth)
        return self.distance(self.network(prediction), wanted)

    def distance(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """Return (N,) distances from features already computed."""
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
    """Return (N, C, C) inner products of channels over positions / C·h·w (Gatys et al., 2016)."""
    count, channels = features.shape[:2]
    flat = features.reshape(count, channels, -1)
    return flat @ flat.transpose(1, 2) / (channels * flat.shape[2])


def gram_distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return λ4's term, (N,): ‖G_l(ŷ) − G_l(y)‖²_F / ‖G_l(y)‖²_F averaged over levels l.

    Dividing by the truth's own norm makes levels and networks comparable: 0 is equal texture, 1 no texture at all. The
    paper prints no w_l.
    """
    levels = []
    for a, b in zip(found, wanted, strict=True):
        wanted_gram = gram_matrix(b).detach()
        size = wanted_gram.square().sum((1, 2)) + 1e-6
        levels.append((gram_matrix(a) - wanted_gram).square().sum((1, 2)) / size)
    return torch.stack(levels).mean(0)


class Discriminator(nn.Module):
    """Vision-aided discriminator (Kumari et al., CVPR 2022): trained heads on frozen features.

    Real and restored pictures are changed alike by DiffAug (Zhao et al., NeurIPS 2020) before they are judged.

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
