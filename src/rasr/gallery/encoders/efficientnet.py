"""EfficientNet-Lite0, whose weights come with an installed package: plain, and with a head for degraded photos.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite variants
(no squeeze-and-excitation, ReLU6) are from the same authors' TPU repository. Apache-2.0.

The head is one linear map that makes a degraded photo embed where its clean version does, trained on pairs of clean and
degraded features (``runs/retrieval_head.py``; data, recipe, figures: ``effnet_lite0_robust.md`` beside its weights).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasr.gallery.encoders import Embeddings, LazyNetwork
from rasr.images import FloatImage, resize
from rasr.weights import entry, load_strictly, read_safetensors, read_weights, require

if TYPE_CHECKING:
    import torch

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


class Head:
    """Roots of the features, minus their mean over clean photos, through a matrix, scaled to length 1.

    The root evens out the few features that dominate every photo; the mean is what all photos share and says nothing.
    """

    def __init__(self, mean: NDArray[np.floating], matrix: NDArray[np.floating]) -> None:
        """``mean`` is (1280,), ``matrix`` (D, 1280)."""
        self._mean = mean.astype(np.float32)
        self._matrix = np.ascontiguousarray(matrix.T, dtype=np.float32)

    def __call__(self, features: NDArray[np.float32]) -> Embeddings:
        """Unit features (N, 1280), none negative, → unit embeddings (N, D)."""
        mapped = (np.sqrt(np.maximum(features, 0.0)) - self._mean) @ self._matrix
        unit: Embeddings = mapped / np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), np.float32(1e-12))
        return unit


class EffNetLite0Robust:
    """The ``effnet-lite0-robust`` encoder: :class:`EffNetLite0` and a :class:`Head`."""

    name = "effnet-lite0-robust"
    version = "1"
    dimension = 256
    input_size = EffNetLite0.input_size
    fingerprint = f"{name}/{version}/{entry(name).digest[:16]}/{EffNetLite0.fingerprint}"

    def __init__(self, *, device: str = "cpu") -> None:
        self._backbone = EffNetLite0(device=device)
        self._head: Head | None = None
        self._lock = threading.Lock()

    def preprocess(self, pixels: FloatImage) -> NDArray[np.float32]:
        """(H, W, 3) in [0, 1] → (3, 224, 224), as :meth:`EffNetLite0.preprocess`."""
        return self._backbone.preprocess(pixels)

    def embed(self, batch: NDArray[np.float32]) -> Embeddings:
        """(N, 3, 224, 224) → (N, 256), L2-normalised. Raises WeightsMissing or WeightsCorrupt."""
        with self._lock:
            self._head = self._head or _load_head()
        return self._head(self._backbone.embed(batch))


def _load_head() -> Head:
    tensors, _ = read_safetensors(require(EffNetLite0Robust.name), "numpy")
    return Head(tensors["mean"], tensors["matrix"])
