"""Encoders for retrieval: pictures in, unit vectors out, and an identity that a gallery can store.

An encoder of one's own is a file and a line: a class that meets :class:`Encoder`, made with ``device``, and its line in
:data:`ENCODERS`. Weights that it needs are registered in its file (:mod:`rasr.weights.catalogue`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rasr.device import choose_device
from rasr.errors import UsageError
from rasr.images import FloatImage

if TYPE_CHECKING:
    import torch

__all__ = ["DEFAULT_ENCODER", "ENCODERS", "Embeddings", "Encoder", "LazyNetwork", "load_encoder"]

DEFAULT_ENCODER = "effnet-lite0-robust"
ENCODERS = {
    "effnet-lite0-robust": "rasr.gallery.encoders.efficientnet:EffNetLite0Robust",
    "effnet-lite0": "rasr.gallery.encoders.efficientnet:EffNetLite0",
    "dinov2-small": "rasr.gallery.encoders.dinov2:small",
    "dinov2-base": "rasr.gallery.encoders.dinov2:base",
    "dinov2-large": "rasr.gallery.encoders.dinov2:large",
}
"""Name → ``module:class``, or another callable; besides them ``dinov2:FOLDER`` for DINOv2 weights in a local folder."""

DINOV2 = "rasr.gallery.encoders.dinov2:DinoV2"

Embeddings = NDArray[np.float32]
"""Vectors of shape (N, D), float32, each of length 1: their dot products are cosine similarities in [-1, 1]."""


def load_encoder(name: str = DEFAULT_ENCODER, *, device: str = "cpu") -> Encoder:
    """Make the encoder called ``name``.

    Nothing is read until its fingerprint or its first embedding is asked for, and nothing is ever downloaded: that is
    for ``rasr models download``. ``device`` is a name for :func:`rasr.device.choose_device`. Raises UsageError for an
    unknown name.
    """
    local = name.removeprefix("dinov2:") not in {name, ""}
    if not local and name not in ENCODERS:
        raise UsageError(f"Unknown encoder '{name}'. Choose one of: {', '.join(ENCODERS)}, or dinov2:FOLDER.")
    make = partial(resolve_name(DINOV2), name) if local else resolve_name(ENCODERS[name])
    encoder: Encoder = make(device=device)
    return encoder


@runtime_checkable
class Encoder(Protocol):
    """A picture encoder for retrieval. Cheap to build and to ask for its identity; weights load on first :meth:`embed`.

    Both methods may be called from several threads at once.
    """

    @property
    def name(self) -> str:
        """What ``load_encoder`` was asked for, for example ``effnet-lite0``."""
        ...

    @property
    def version(self) -> str:
        """Version of the weights as their publisher counts, for example the package's version."""
        ...

    @property
    def dimension(self) -> int:
        """Length D of an embedding."""
        ...

    @property
    def input_size(self) -> int:
        """Side S, in pixels, of the square the network sees."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of everything that shapes an embedding: name, version, preprocessing and weights.

        Two encoders with equal fingerprints give comparable embeddings; a gallery stores it and refuses any other.
        Raises WeightsMissing when the weights must be looked at and are not there.
        """
        ...

    def preprocess(self, pixels: FloatImage) -> NDArray[np.float32]:
        """Turn one picture (H, W, 3), RGB in [0, 1], into the network's input (3, S, S), float32, normalised.

        Runs without the weights, so that ingest can do it beside decoding.
        """
        ...

    def embed(self, batch: NDArray[np.float32]) -> Embeddings:
        """Embed preprocessed pictures (N, 3, S, S) → (N, D), float32, L2-normalised.

        Raises WeightsMissing or WeightsCorrupt when the weights cannot be loaded, UsageError for a device that this
        machine does not have.
        """
        ...


class LazyNetwork:
    """A feature network that is built by its first call.

    ``build`` makes the module, on the CPU; ``features`` runs it, (N, 3, S, S) → (N, D). Both work in fp32 on every
    device: embeddings are stored for years and compared across machines, and half precision would move them.
    """

    def __init__(
        self,
        build: Callable[[], torch.nn.Module],
        features: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor],
        *,
        size: int,
        device: str,
    ) -> None:
        self._build = build
        self._features = features
        self._size = size
        self._device_name = device
        self._lock = threading.Lock()
        self._loaded: tuple[torch.nn.Module, torch.device] | None = None

    def embed(self, batch: NDArray[np.float32], *, dimension: int) -> NDArray[np.float32]:
        """Run (N, 3, S, S) float32 and L2-normalise the answers: (N, ``dimension``) float32."""
        import torch

        expected = (3, self._size, self._size)
        if batch.shape[1:] != expected:
            raise ValueError(f"an encoder takes (N, 3, {self._size}, {self._size}), not {batch.shape}")
        if len(batch) == 0:
            return np.zeros((0, dimension), np.float32)
        network, device = self._load()
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):  # a caller may train in bf16
            inputs = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).to(device)
            features = self._features(network, inputs.contiguous(memory_format=torch.channels_last))
            unit = torch.nn.functional.normalize(features, dim=1)
        answer: NDArray[np.float32] = unit.cpu().numpy()
        return answer

    def _load(self) -> tuple[torch.nn.Module, torch.device]:
        import torch

        with self._lock:
            if self._loaded is None:
                device = choose_device(self._device_name, "fp32").device
                network = self._build().float().eval().requires_grad_(requires_grad=False).to(device)
                # Convolutions on the CPU are about 15 % faster with channels last; the numbers agree to 1e-6.
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
                self._loaded = network, device
            return self._loaded
