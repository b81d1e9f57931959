"""What an encoder is to the gallery: pictures in, unit vectors out, and an identity that a gallery can store."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage

__all__ = ["Embeddings", "Encoder"]

Embeddings = NDArray[np.float32]
"""Vectors of shape (N, D), float32, each of length 1: their dot products are cosine similarities in [-1, 1]."""


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
