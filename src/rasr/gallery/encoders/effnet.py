"""EfficientNet-Lite0, trained on ImageNet, whose weights come with an installed package: the embedded default.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variants
(no squeeze-and-excitation, ReLU6) are from the same authors' TPU repository. Apache-2.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasr.gallery.encoders.network import LazyNetwork
from rasr.gallery.encoders.protocol import Embeddings
from rasr.images import FloatImage, resize
from rasr.weights import entry, load_strictly, read_weights, require

if TYPE_CHECKING:
    import torch

__all__ = ["EffNetLite0"]

PREPROCESS = "crop224-bicubic-127-128"


class EffNetLite0:
    """The ``effnet-lite0`` encoder: 1280 average-pooled features of a 224×224 centre crop.

    The fingerprint is a constant because the weights are pinned by hash: a file that differs raises WeightsCorrupt
    instead of giving embeddings that would look comparable.
    """

    name = "effnet-lite0"
    version = "0.1.0"
    dimension = 1280
    input_size = 224
    fingerprint = f"{name}/{version}/{PREPROCESS}/{entry(name).digest[:16]}"

    def __init__(self, *, device: str = "cpu") -> None:
        self._network = LazyNetwork(_build, _features, size=self.input_size, device=device)

    def preprocess(self, pixels: FloatImage) -> NDArray[np.float32]:
        """(H, W, 3) in [0, 1] → (3, 224, 224), scaled as in training: (x − 127) / 128 of 0..255 values.

        The largest centred square is resized by antialiased bicubic on float32, on the CPU whatever the encoder's
        device is, so that a gallery built on one machine can be searched on another.
        """
        height, width = pixels.shape[:2]
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        square = resize(pixels, (self.input_size, self.input_size), box=(left, top, left + side, top + side))
        return np.ascontiguousarray((square.clip(0, 1) * 255.0 - 127.0).transpose(2, 0, 1) / 128.0, dtype=np.float32)

    def embed(self, batch: NDArray[np.float32]) -> Embeddings:
        """(N, 3, 224, 224) → (N, 1280), L2-normalised. Raises WeightsMissing or WeightsCorrupt."""
        return self._network.embed(batch, dimension=self.dimension)


def _build() -> torch.nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    path = require(EffNetLite0.name)
    network: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    load_strictly(network.state_dict(), read_weights(path), path)
    return network


def _features(network: Any, pictures: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = network.extract_features(pictures)
    return features.mean(dim=(2, 3))
