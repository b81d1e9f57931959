"""The discriminator: its losses by their definition, its heads, and DiffAug."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rasr.errors import ConfigError
from rasr.training.discriminator import Discriminator, diff_augment
from rasr.training.features import load_feature_network
from tests.training.standin import pictures


def randoms(*seeds: int) -> Sequence[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def test_the_adversarial_loss_matches_its_definition() -> None:
    network = load_feature_network("effnet-lite2")
    judge = Discriminator(network, crop=96).eval()
    fake, real = pictures(7, side=96)
    logits_fake = [level.detach().double().numpy() for level in judge(fake, randoms(1, 2))]
    logits_real = [level.detach().double().numpy() for level in judge(real, randoms(3, 4))]

    def entropy(logits: list[NDArray[np.float64]], target: float) -> NDArray[np.float64]:
        total = np.zeros(2)
        for level in logits:
            for n in range(2):
                probability = 1 / (1 + np.exp(-level[n]))
                total[n] += np.mean(-target * np.log(probability) - (1 - target) * np.log(1 - probability))
        return total

    got = judge.discriminator_loss(fake, real, randoms(1, 2), randoms(3, 4)).detach().numpy()
    np.testing.assert_allclose(got, entropy(logits_fake, 0.0) + entropy(logits_real, 0.8), rtol=1e-4)
    got = judge.generator_loss(fake, randoms(1, 2)).detach().numpy()
    np.testing.assert_allclose(got, entropy(logits_fake, 0.8), rtol=1e-4)
    with pytest.raises(ConfigError, match="too small"):
        Discriminator(network, crop=64)


def test_diffaug_treats_a_sample_alike_however_the_batch_is_cut() -> None:
    a, _ = pictures(8, side=32, count=3)
    together = diff_augment(a, randoms(1, 2, 3))
    apart = torch.cat([diff_augment(a[n : n + 1], randoms(n + 1)) for n in range(3)])
    assert torch.equal(together, apart)
    assert not torch.equal(diff_augment(a[:1], randoms(9)), together[:1])
    assert together.shape == a.shape
    picture = a.clone().requires_grad_()
    diff_augment(picture, randoms(1, 2, 3)).sum().backward()  # type: ignore[no-untyped-call]
    assert picture.grad is not None
    assert float(picture.grad.abs().sum()) > 0


def test_diffaug_cuts_translates_and_recolours_within_its_limits() -> None:
    """On a picture with one bright square: how far it moves, and how much is blanked."""
    shifts, blanked = [], []
    for seed in range(200):
        a = torch.full((1, 3, 32, 32), 0.5)
        a[:, :, 14:18, 14:18] = 1.0
        out = diff_augment(a, randoms(seed))[0, 0]
        blanked.append(float((out == 0.5).float().mean()))
        rows = torch.nonzero((out == out.max()).any(1)).flatten()
        if out.max() > 0.52 and len(rows) == 4:
            shifts.append(int(rows[0]) - 14)
    assert set(shifts) <= set(range(-4, 5))
    assert min(shifts) == -4
    assert max(shifts) == 4
    assert 0.2 < np.mean(blanked) < 0.6


def test_heads_are_spectrally_normalised() -> None:
    judge = Discriminator(load_feature_network("effnet-lite2"), crop=96)
    for _ in range(20):  # power iteration converges
        judge([torch.rand(1, 3, 96, 96)][0], [np.random.default_rng(0)])
    weights = [m.weight for m in judge.heads.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(weights) == 6
    for weight in weights:
        assert abs(float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) - 1) < 0.05
