"""DISTS (Ding et al., TPAMI 2020): structure and texture similarity of VGG-16 features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rasr.evaluation.metrics.metric import MeasuringProtocol, MetricInfo, crop
from rasr.evaluation.metrics.weights import MetricWeights, packaged
from rasr.images import FloatImage

__all__ = ["DISTS", "VGG16Features"]

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16Features(nn.Module):
    """VGG-16's convolutions (torchvision's ``features``, same tensor names) with DISTS's blurred pooling.

    Returns the picture itself and the last ReLU output of each of the five stages.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in _STAGES:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.Identity())  # keeps torchvision's numbering, where the max-pool stands
        self.features = nn.Sequential(*layers)

    def forward(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W) in [0, 1] → maps of 3, 64, 128, 256, 512 and 512 channels."""
        mean = picture.new_tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        deviation = picture.new_tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        x, maps = (picture - mean) / deviation, [picture]
        for layer in self.features:
            if isinstance(layer, nn.Identity):
                maps.append(x)
                x = _l2_pool(x)
            else:
                x = layer(x)
        return maps


def _l2_pool(x: torch.Tensor) -> torch.Tensor:
    """Half size: root of the squares blurred with a 3×3 Hann window."""
    window = x.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(window, window).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


class DISTS:
    """Deep image structure and texture similarity with the published α and β; 0 for identical pictures."""

    def __init__(self, protocol: MeasuringProtocol, weights: MetricWeights, device: str = "cpu") -> None:
        self._border = protocol.crop_border
        self._device = device
        self._network = weights.build(VGG16Features, "vgg16").to(device)
        tensors = packaged("dists_alpha_beta.safetensors")
        alpha, beta = tensors["alpha"].flatten(), tensors["beta"].flatten()
        total = alpha.sum() + beta.sum()
        self._alpha, self._beta = (alpha / total).to(device), (beta / total).to(device)
        self.info = MetricInfo(
            "DISTS",
            "lower",
            "full-reference",
            0.0,
            1.0,
            4,
            f"VGG-16, RGB at full size, {self._border} px border cropped",
            "Ding et al., TPAMI 2020; DISTS-pytorch 0.1",
            ("vgg16",),
        )

    def measure(self, restored: FloatImage, truth: FloatImage | None) -> float:
        """DISTS of one pair."""
        if truth is None or restored.shape != truth.shape:
            raise ValueError("DISTS needs a ground truth of the same size")
        pair = torch.stack([torch.from_numpy(crop(p, self._border).copy()).permute(2, 0, 1) for p in (restored, truth)])
        texture, structure = [], []
        with torch.inference_mode():
            for x, y in self._network(pair.to(self._device)):
                mean_x, mean_y = x.mean((1, 2)), y.mean((1, 2))
                texture.append((2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6))
                variance_x = (x - mean_x[:, None, None]).square().mean((1, 2))
                variance_y = (y - mean_y[:, None, None]).square().mean((1, 2))
                covariance = (x * y).mean((1, 2)) - mean_x * mean_y
                structure.append((2 * covariance + 1e-6) / (variance_x + variance_y + 1e-6))
            return float(1 - (self._alpha * torch.cat(texture) + self._beta * torch.cat(structure)).sum())
