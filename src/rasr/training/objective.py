"""Eq. 5 put together: which terms count, on which networks, and the discriminator's own loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rasr.training.batch import TrainingBatch
from rasr.training.config import TrainingConfig
from rasr.training.discriminator import Discriminator
from rasr.training.features import FeatureNetwork, load_feature_network
from rasr.training.losses import PerceptualDistance, gram_distance, mse
from rasr.training.rng import generator_for, seed_torch

__all__ = ["Objective"]


class Objective(nn.Module):
    """L = λ1·MSE + λ2·LPIPS + λ3·GAN + λ4·Gram, per sample."""

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
        """Network → sha256 of its weights; pinned by the checkpoints."""
        return {name: network.sha256 for name, network in self.networks.items()}

    def adversarial(self, step: int) -> Discriminator | None:
        """The discriminator, in the steps in which it plays."""
        return self.discriminator if step >= self.config.gan_after else None

    def terms(self, prediction: Tensor, batch: TrainingBatch, step: int) -> dict[str, Tensor]:
        """The unweighted terms, (N,) each, of predictions (N, 3, H, W) in fp32."""
        found = {"mse": mse(prediction, batch.hr)}
        shared = self.perceptual is not None and self.gram is self.perceptual.network
        if self.perceptual is not None:
            with torch.no_grad():
                wanted = self.perceptual.network(batch.hr)
            features = self.perceptual.network(prediction)
            found["perceptual"] = self.perceptual.distance(features, wanted)
            if shared:
                found["gram"] = gram_distance(features, wanted)
        if self.gram is not None and not shared:
            with torch.no_grad():
                wanted = self.gram(batch.hr)
            found["gram"] = gram_distance(self.gram(prediction), wanted)
        judge = self.adversarial(step)
        if judge is not None:
            found["gan"] = judge.generator_loss(prediction, self._random(step, batch, "generator"))
        return found

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum, averaged over the samples."""
        weighted = [getattr(self.config, name) * values for name, values in terms.items()]
        return torch.stack(weighted).sum(0).mean()

    def discriminator_loss(self, judge: Discriminator, prediction: Tensor, batch: TrainingBatch, step: int) -> Tensor:
        """The discriminator's loss on a batch it has just been shown, averaged over the samples."""
        fake, real = self._random(step, batch, "fake"), self._random(step, batch, "real")
        return judge.discriminator_loss(prediction, batch.hr, fake, real).mean()

    def _random(self, step: int, batch: TrainingBatch, purpose: str) -> list[np.random.Generator]:
        return [generator_for(self._seed, "augment", purpose, step, index) for index in batch.indices]

    def _network(self, name: str) -> FeatureNetwork:
        if name not in self.networks:
            self.networks[name] = load_feature_network(name, files=self.config.files, sha256=self.config.sha256)
        return self.networks[name]
