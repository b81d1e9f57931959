"""LPIPS, DISTS, EPD and ETD: full-reference distances on features of image classifiers."""

from collections.abc import Iterator
from functools import cache
from math import inf
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from rasr.evaluation.metrics import ImageMetric, MetricInfo, MetricWeights
from rasr.evaluation.metrics.networks.convnets import AlexNetFeatures, VGG16Features
from rasr.images import FloatImage
from rasr.weights import load_strictly, read_weights, require

_STAGE_ENDS = (0, 2, 4, 10, 15)
"""Last block of EfficientNet-Lite0 at strides 2, 4, 8, 16 and 32."""


class LPIPS(ImageMetric):
    """Learned perceptual image patch similarity v0.1 (Zhang et al., CVPR 2018) on AlexNet."""

    protocol = "AlexNet, version 0.1, RGB in [-1, 1], {border} px border cropped"
    source = "Zhang et al., CVPR 2018; richzhang/PerceptualSimilarity 0.1.4"
    facts = MetricInfo("LPIPS", "lower", "full-reference", 0.0, inf, 4, protocol, source, ("alexnet",))

    def prepare(self, weights: MetricWeights) -> None:
        """Load AlexNet and the linear weights."""
        self._network = weights.build(AlexNetFeatures, "alexnet").to(self.device)
        linear = read_weights(require("lpips-alex-linear"))
        self._linear = [linear[f"lin{i}.model.1.weight"].to(self.device).flatten() for i in range(5)]

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """LPIPS of one pair."""
        shift = torch.tensor([-0.030, -0.088, -0.188], device=self.device).view(1, 3, 1, 1)
        scale = torch.tensor([0.458, 0.448, 0.450], device=self.device).view(1, 3, 1, 1)
        total = 0.0
        with torch.inference_mode():
            maps = self._network((self.batch(restored, truth) * 2 - 1 - shift) / scale)
            for features, weight in zip(maps, self._linear, strict=True):
                unit = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
                difference = (unit[0] - unit[1]).square()
                total += float(torch.einsum("chw,c->hw", difference, weight).mean())
        return total


class DISTS(ImageMetric):
    """Deep image structure and texture similarity (Ding et al., TPAMI 2020)."""

    protocol = "VGG-16, RGB at full size, {border} px border cropped"
    source = "Ding et al., TPAMI 2020; DISTS-pytorch 0.1"
    facts = MetricInfo("DISTS", "lower", "full-reference", 0.0, 1.0, 4, protocol, source, ("vgg16",))

    def prepare(self, weights: MetricWeights) -> None:
        """Load VGG-16, α and β."""
        self._network = weights.build(VGG16Features, "vgg16").to(self.device)
        tensors = read_weights(require("dists-alpha-beta"))
        alpha, beta = tensors["alpha"].flatten(), tensors["beta"].flatten()
        total = alpha.sum() + beta.sum()
        self._alpha, self._beta = (alpha / total).to(self.device), (beta / total).to(self.device)

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """DISTS of one pair."""
        texture, structure = [], []
        with torch.inference_mode():
            for x, y in self._network(self.batch(restored, truth)):
                mean_x, mean_y = x.mean((1, 2)), y.mean((1, 2))
                texture.append((2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6))
                variance_x = (x - mean_x[:, None, None]).square().mean((1, 2))
                variance_y = (y - mean_y[:, None, None]).square().mean((1, 2))
                covariance = (x * y).mean((1, 2)) - mean_x * mean_y
                structure.append((2 * covariance + 1e-6) / (variance_x + variance_y + 1e-6))
            return float(1 - (self._alpha * torch.cat(texture) + self._beta * torch.cat(structure)).sum())


class EPD(ImageMetric):
    """EfficientNet perceptual distance: LPIPS's form with equal weights, on EfficientNet-Lite0.

    Features of the five resolutions are scaled to unit length along the channels; the squared differences are summed
    over channels, averaged over positions and then over the five. It needs nothing downloaded. Not LPIPS and never
    printed under that name: it ranks pictures much like it (Spearman 0.87 with published LPIPS on the twelve parity
    pictures).
    """

    protocol = "RGB, EfficientNet-Lite0 features at strides 2..32, {border} px border cropped"
    source = "this project; the form is that of Zhang et al., CVPR 2018 (LPIPS) with uniform weights"
    facts = MetricInfo("EPD", "lower", "full-reference", 0.0, 4.0, 4, protocol, source)
    smallest = 32

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """EPD of one pair."""
        distances = []
        for x in _stages(restored, truth, device=self.device):
            a, b = _unit(x[0]), _unit(x[1])
            distances.append((a - b).square().sum(0).mean().item())
        return float(np.mean(distances))


class ETD(ImageMetric):
    """EfficientNet texture distance: DISTS's form with equal weights, on EfficientNet-Lite0.

    Each channel of the picture and of the features of five resolutions has a texture, the similarity of its means over
    the picture, and a structure, its correlation from place to place; ETD is one minus the mean of both over all
    channels. Feature channels are signed where DISTS's are not, so each counts as two, its positive and its negative
    part. Not DISTS and never printed under that name: it ranks pictures somewhat like it (Spearman 0.80 with published
    DISTS on the twelve parity pictures).
    """

    protocol = "RGB, EfficientNet-Lite0 features at strides 2..32 and the picture, {border} px border cropped"
    source = "this project; the form is that of Ding et al., TPAMI 2020 (DISTS) with uniform weights"
    facts = MetricInfo("ETD", "lower", "full-reference", 0.0, 1.5, 4, protocol, source)
    smallest = 32

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """ETD of one pair."""
        return sum(_texture_and_structure(restored, truth, self.device)) / 2


class ETD_TEXTURE(ETD):  # noqa: N801 (classes are called as the table's columns)
    """Texture part of ETD: blind to where in the picture its textures are."""

    facts = MetricInfo("ETD_TEXTURE", "lower", "full-reference", 0.0, 1.0, 4, ETD.protocol, ETD.source)

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """Texture distance of one pair."""
        return _texture_and_structure(restored, truth, self.device)[0]


class ETD_STRUCTURE(ETD):  # noqa: N801
    """Structure part of ETD: blind to how strong a texture is."""

    facts = MetricInfo("ETD_STRUCTURE", "lower", "full-reference", 0.0, 2.0, 4, ETD.protocol, ETD.source)

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """Structure distance of one pair."""
        return _texture_and_structure(restored, truth, self.device)[1]


_last: dict[tuple[str, str], tuple[float, float]] = {}
"""Digest of the pair and device → its parts: the three columns share one pass of the network."""


def _texture_and_structure(restored: FloatImage, truth: FloatImage, device: str) -> tuple[float, float]:
    """One minus the mean similarity of textures, and of structures, over all channels."""
    digest = xxhash.xxh3_128(np.ascontiguousarray(restored).data)
    digest.update(np.ascontiguousarray(truth).data)
    key = (digest.hexdigest(), device)
    if key not in _last:
        texture: list[torch.Tensor] = []
        structure: list[torch.Tensor] = []
        picture = (_normalised(restored, truth, device) * 128 + 127) / 255
        for features in (picture, *_stages(restored, truth, device=device)):
            for sign in (1, -1) if texture else (1,):
                x, y = (part.double() for part in (sign * features).clamp_min(0))
                mean_x, mean_y = x.mean((1, 2)), y.mean((1, 2))
                variance_x, variance_y = x.var((1, 2), correction=0), y.var((1, 2), correction=0)
                covariance = (x * y).mean((1, 2)) - mean_x * mean_y
                texture.append((2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6))
                structure.append((2 * covariance + 1e-6) / (variance_x + variance_y + 1e-6))
        _last.clear()
        _last[key] = 1 - float(torch.cat(texture).mean()), 1 - float(torch.cat(structure).mean())
    return _last[key]


def _normalised(restored: FloatImage, truth: FloatImage, device: str) -> torch.Tensor:
    """(2, 3, H, W) as EfficientNet-Lite was trained: about [−1, 1]."""
    pair = np.stack([restored, truth])
    return torch.from_numpy(((pair * 255.0 - 127.0) / 128.0).transpose(0, 3, 1, 2).copy()).to(device)


def _stages(restored: FloatImage, truth: FloatImage, *, device: str) -> Iterator[torch.Tensor]:
    """Yield features of both pictures, (2, C, h, w), at strides 2, 4, 8, 16 and 32."""
    network = _efficientnet(device)
    with torch.inference_mode():
        x = network._swish(network._bn0(network._conv_stem(_normalised(restored, truth, device))))
        for index, block in enumerate(network._blocks):
            x = block(x, drop_connect_rate=0.0)
            if index in _STAGE_ENDS:
                yield x


def pooled_features(picture: FloatImage, device: str) -> NDArray[np.float32]:
    """EfficientNet-Lite0's last features, (1280,), averaged over a picture at its own size."""
    network = _efficientnet(device)
    with torch.inference_mode():
        features = network.extract_features(_normalised(picture, picture, device)[:1])
    return np.asarray(features.mean((2, 3))[0].cpu().numpy(), np.float32)


def _unit(features: torch.Tensor) -> torch.Tensor:
    return features / (features.square().sum(0, keepdim=True).sqrt() + 1e-8)


@cache
def _efficientnet(device: str) -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    path = require("effnet-lite0")
    network = EfficientNet.from_name("efficientnet-lite0")
    load_strictly(network.state_dict(), read_weights(path), path)
    return network.eval().requires_grad_(requires_grad=False).to(device)
