"""ETD and EKD: the definition written out plainly, and what each part sees and does not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from rasr.evaluation.metrics import load_metric
from rasr.evaluation.metrics.fid import KID
from rasr.evaluation.metrics.perceptual import _efficientnet
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import FloatImage
from tests.evaluation.patterned import astronaut, sample_pair


def measure(name: str, restored: FloatImage, truth: FloatImage) -> float:
    metric = load_metric(name, MeasuringProtocol())
    return metric.measure(restored, truth)  # type: ignore[union-attr]


def blurred(picture: FloatImage, sigma: float) -> FloatImage:
    return gaussian_filter(picture, (sigma, sigma, 0)).astype(np.float32)


def plain(restored: FloatImage, truth: FloatImage) -> tuple[float, float]:
    """Channel by channel, in numpy: 3 of the picture, then the positive and the negative part of each feature."""
    network, pictures = _efficientnet("cpu"), np.stack([restored, truth]).astype(np.float64)
    x = torch.from_numpy(((np.stack([restored, truth]) * 255 - 127) / 128).transpose(0, 3, 1, 2).copy())
    channels = list(pictures.transpose(3, 0, 1, 2))
    with torch.no_grad():
        x = network._swish(network._bn0(network._conv_stem(x)))
        for index, block in enumerate(network._blocks):
            x = block(x)
            if index in (0, 2, 4, 10, 15):
                for channel in x.double().numpy().transpose(1, 0, 2, 3):
                    channels += [np.maximum(channel, 0), np.maximum(-channel, 0)]
    texture, structure = [], []
    for a, b in channels:
        texture.append((2 * a.mean() * b.mean() + 1e-6) / (a.mean() ** 2 + b.mean() ** 2 + 1e-6))
        structure.append((2 * np.cov(a.ravel(), b.ravel(), bias=True)[0, 1] + 1e-6) / (a.var() + b.var() + 1e-6))
    return 1 - float(np.mean(texture)), 1 - float(np.mean(structure))


def test_etd_equals_its_definition() -> None:
    restored, truth = sample_pair()
    texture, structure = plain(restored, truth)
    assert measure("ETD_TEXTURE", restored, truth) == pytest.approx(texture, rel=1e-4)
    assert measure("ETD_STRUCTURE", restored, truth) == pytest.approx(structure, rel=1e-4)
    assert measure("ETD", restored, truth) == pytest.approx((texture + structure) / 2, rel=1e-4)
    assert measure("ETD", truth, restored) == pytest.approx((texture + structure) / 2, rel=1e-4)  # and is symmetric


def test_the_texture_part_does_not_see_where_and_the_structure_part_does() -> None:
    grass = np.random.default_rng(0).random((128, 128, 3)).astype(np.float32)
    moved = np.roll(grass, (32, 32), (0, 1))
    texture, structure = measure("ETD_TEXTURE", moved, grass), measure("ETD_STRUCTURE", moved, grass)
    assert structure > 0.5
    assert texture < 0.2 * structure  # not zero: features at the edges see what is beyond them


def test_texture_that_is_lost_counts_more_than_texture_that_is_another_draw() -> None:
    rng = np.random.default_rng(1)
    grass, other = (rng.random((128, 128, 3)).astype(np.float32) for _ in range(2))
    smooth = blurred(grass, 2)
    assert measure("ETD_TEXTURE", other, grass) < 0.5 * measure("ETD_TEXTURE", smooth, grass)
    # An average does better by pixels, which is why pixels cannot measure texture.
    assert measure("PSNR", smooth, grass) > measure("PSNR", other, grass)


def test_ekd_grows_with_what_is_lost_and_is_about_zero_between_halves() -> None:
    metric = load_metric("EKD", MeasuringProtocol())
    whole = astronaut()
    tiles = [whole[y : y + 128, x : x + 128] for y in range(0, 512, 128) for x in range(0, 512, 128)]
    sets = [np.stack([metric.features(f(tile)) for tile in tiles]) for f in (  # type: ignore[union-attr]
        lambda t: t, lambda t: blurred(t, 0.7), lambda t: blurred(t, 2.0)
    )]  # fmt: skip
    assert sets[0].shape == (16, 1280)
    distances = [metric.distance(one, sets[0]) for one in sets]  # type: ignore[union-attr]
    assert distances[0] < distances[1] < distances[2]
    rng = np.random.default_rng(0)
    a, b = rng.random((6, 12)), rng.random((5, 12))
    assert metric.compare(a, b) == KID.compare(metric, a, b)  # type: ignore[union-attr, arg-type]
