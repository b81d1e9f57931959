"""Losses: every term against a slow, plain re-computation in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rasr.errors import ConfigError
from rasr.training.features import FeatureNetwork, load_feature_network
from rasr.training.losses import Discriminator, PerceptualDistance, diff_augment, gram_distance, gram_matrix, mse
from tests.training.standin import pictures


class Edges(FeatureNetwork):
    """Two small maps with known arithmetic, one of them dead in places."""

    def __init__(self) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def features(self, normalised: Tensor) -> list[Tensor]:
        shifted = torch.roll(normalised, 1, -1)
        first = torch.cat([normalised, shifted * normalised], 1)
        return [first, torch.relu(first[:, :, ::2, ::2])]


def features64(picture: Tensor) -> list[NDArray[np.float64]]:
    return [level.double().numpy() for level in Edges().freeze()(picture)]


def test_mse_is_on_the_minus_one_to_one_scale() -> None:
    a, b = pictures(0)
    for n in range(2):
        total = 0.0
        for x, y in zip(
            (2 * a[n].double() - 1).flatten().tolist(), (2 * b[n].double() - 1).flatten().tolist(), strict=True
        ):
            total += (x - y) ** 2
        assert math.isclose(float(mse(a, b)[n]), total / a[n].numel(), rel_tol=1e-5)


def test_the_perceptual_distance_matches_its_definition() -> None:
    a, b = pictures(1)
    got = PerceptualDistance(Edges().freeze())(a, b)
    for n in range(2):
        levels = []
        for fa, fb in zip(features64(a), features64(b), strict=True):
            _, _, height, width = fa.shape
            total = 0.0
            for y in range(height):
                for x in range(width):
                    u, v = fa[n, :, y, x], fb[n, :, y, x]
                    u, v = u / math.sqrt(u @ u + 1e-10), v / math.sqrt(v @ v + 1e-10)
                    total += float((u - v) @ (u - v))
            levels.append(total / (height * width))
        assert math.isclose(float(got[n]), sum(levels) / len(levels), rel_tol=1e-5)


def test_lpips_weights_are_used_when_given(tmp_path: Path) -> None:
    class Five(Edges):
        def features(self, normalised: Tensor) -> list[Tensor]:
            return [normalised * (level + 1) + level for level in range(5)]

    heads = {f"lin{level}.model.1.weight": torch.rand(1, 3, 1, 1) for level in range(5)}
    torch.save(heads, tmp_path / "vgg.pth")
    a, b = pictures(2)
    distance = PerceptualDistance(Five().freeze(), tmp_path / "vgg.pth")
    assert distance.described.startswith("LPIPS on ")
    expected = np.zeros(2)
    for level in range(5):
        weights = heads[f"lin{level}.model.1.weight"].flatten().double().numpy()
        fa, fb = ((2 * t.double().numpy() - 1) * (level + 1) + level for t in (a, b))
        fa, fb = (f / np.sqrt((f**2).sum(1, keepdims=True) + 1e-10) for f in (fa, fb))
        expected += ((fa - fb) ** 2 * weights[None, :, None, None]).sum(1).mean((1, 2))
    np.testing.assert_allclose(distance(a, b).numpy(), expected, rtol=1e-4)
    assert PerceptualDistance(Five()).described.startswith("LPIPS-shaped, on ")


def test_the_gram_matrix_and_distance_match_their_definitions() -> None:
    a, b = pictures(3, side=6)

    def gram(features: NDArray[np.float64]) -> NDArray[np.float64]:
        channels, height, width = features.shape
        result = np.zeros((channels, channels))
        for i in range(channels):
            for j in range(channels):
                result[i, j] = sum(
                    features[i, y, x] * features[j, y, x] for y in range(height) for x in range(width)
                ) / (channels * height * width)
        return result

    network = Edges().freeze()
    np.testing.assert_allclose(gram_matrix(network(a)[0])[1].numpy(), gram(features64(a)[0][1]), rtol=1e-5, atol=1e-7)
    got = gram_distance(network(a), network(b))
    for n in range(2):
        levels = []
        for fa, fb in zip(features64(a), features64(b), strict=True):
            ga, gb = gram(fa[n]), gram(fb[n])
            levels.append(((ga - gb) ** 2).sum() / ((gb**2).sum() + 1e-6))
        assert math.isclose(float(got[n]), sum(levels) / len(levels), rel_tol=1e-4)


def test_texture_not_place_is_what_gram_sees() -> None:
    network = Edges().freeze()
    a, _ = pictures(4, side=16)
    rolled = torch.roll(a, (4, 6), (2, 3))
    assert gram_distance(network(rolled), network(a)).max() < 1e-3
    assert PerceptualDistance(network)(rolled, a).min() > 0.1


@pytest.mark.parametrize("loss", ["mse", "perceptual", "gram"])
def test_gradients_match_finite_differences(loss: str) -> None:
    network = Edges().freeze().double()
    a, b = (p.double() for p in pictures(5, side=6, count=1))

    def value(picture: Tensor) -> Tensor:
        if loss == "mse":
            return mse(picture, b).sum()
        if loss == "gram":
            return gram_distance(network.features(picture), network.features(b)).sum()
        distance = PerceptualDistance(network)
        return distance.distance(network.features(picture), network.features(b)).sum()

    picture = a.clone().requires_grad_()
    value(picture).backward()  # type: ignore[no-untyped-call]
    assert picture.grad is not None
    for place in ((0, 0, 1, 1), (0, 2, 3, 5), (0, 1, 5, 0)):
        up, down = a.clone(), a.clone()
        up[place] += 1e-6
        down[place] -= 1e-6
        numeric = float(value(up) - value(down)) / 2e-6
        assert math.isclose(float(picture.grad[place]), numeric, rel_tol=1e-4, abs_tol=1e-8)


def test_equal_pictures_have_no_distance_and_a_finite_gradient() -> None:
    network = Edges().freeze()
    for a in (torch.full((1, 3, 8, 8), 0.5), pictures(6)[0]):
        picture = a.clone().requires_grad_()
        loss = PerceptualDistance(network)(picture, a) + gram_distance(network(picture), network(a)) + mse(picture, a)
        assert float(loss.detach().abs().max()) < 1e-9
        loss.sum().backward()  # type: ignore[no-untyped-call]
        assert picture.grad is not None
        assert torch.isfinite(picture.grad).all()


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
