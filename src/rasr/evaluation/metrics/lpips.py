"""LPIPS v0.1 with AlexNet (Zhang et al., CVPR 2018)."""

from __future__ import annotations

import torch
from torch import nn

from rasr.evaluation.metrics.metric import MeasuringProtocol, MetricInfo, crop
from rasr.evaluation.metrics.weights import MetricWeights, packaged
from rasr.images import FloatImage

__all__ = ["LPIPS", "AlexNetFeatures"]


class AlexNetFeatures(nn.Module):
    """AlexNet's convolutions (torchvision's ``features``, same tensor names), giving the five ReLU outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, 3, H, W), normalised → five maps of 64, 192, 384, 256 and 256 channels."""
        maps = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps.append(x)
        return maps


class LPIPS:
    """Learned perceptual image patch similarity: AlexNet features, the published linear weights of v0.1."""

    def __init__(self, protocol: MeasuringProtocol, weights: MetricWeights, device: str = "cpu") -> None:
        self._border = protocol.crop_border
        self._device = device
        self._network = weights.build(AlexNetFeatures, "alexnet").to(device)
        linear = packaged("lpips_alex_linear.safetensors")
        self._linear = [linear[f"lin{i}.model.1.weight"].to(device).flatten() for i in range(5)]
        self.info = MetricInfo(
            "LPIPS",
            "lower",
            "full-reference",
            0.0,
            float("inf"),
            4,
            f"AlexNet, version 0.1, RGB in [-1, 1], {self._border} px border cropped",
            "Zhang et al., CVPR 2018; richzhang/PerceptualSimilarity 0.1.4",
            ("alexnet",),
        )

    def measure(self, restored: FloatImage, truth: FloatImage | None) -> float:
        """LPIPS of one pair."""
        if truth is None or restored.shape != truth.shape:
            raise ValueError("LPIPS needs a ground truth of the same size")
        shift = torch.tensor([-0.030, -0.088, -0.188], device=self._device).view(1, 3, 1, 1)
        scale = torch.tensor([0.458, 0.448, 0.450], device=self._device).view(1, 3, 1, 1)
        pair = torch.stack([torch.from_numpy(crop(p, self._border).copy()).permute(2, 0, 1) for p in (restored, truth)])
        total = 0.0
        with torch.inference_mode():
            for features, weight in zip(
                self._network((pair.to(self._device) * 2 - 1 - shift) / scale), self._linear, strict=True
            ):
                unit = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
                difference = (unit[0] - unit[1]).square()
                total += float(torch.einsum("chw,c->hw", difference, weight).mean())
        return total
