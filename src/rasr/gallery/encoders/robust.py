"""EfficientNet-Lite0 with a small head that makes a degraded photo embed where its clean version does.

The head is one linear map, trained on pairs of clean and degraded features (``runs/retrieval_head.py``; data,
recipe and figures are in ``effnet_lite0_robust.md`` beside its weights). The network itself is unchanged.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from rasr.gallery.encoders.effnet import EffNetLite0
from rasr.gallery.encoders.protocol import Embeddings
from rasr.images import FloatImage
from rasr.weights import entry, read_safetensors, require

__all__ = ["EffNetLite0Robust", "Head"]


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
