"""Semantic context for generators that read an embedding in place of a text: a gallery encoder's, of the LQ picture."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.gallery.encoders import Encoder, load_encoder
from rasr.generator import PRESETS
from rasr.images import FloatImage

__all__ = ["context_options"]


class _Embedder:
    """``embed(pixels)`` → (D,), with the encoder loaded on first use."""

    def __init__(self, encoder: str) -> None:
        self._name = encoder

    @cached_property
    def _encoder(self) -> Encoder:
        return load_encoder(self._name)

    def __call__(self, pixels: FloatImage) -> NDArray[np.float32]:
        vectors = self._encoder.embed(self._encoder.preprocess(pixels)[None])
        return np.asarray(vectors[0])


def context_options(preset: str) -> dict[str, Any]:
    """The option ``embed`` for presets that want one. It is the same encoder whatever the gallery was built with."""
    entry = PRESETS.get(preset)
    return {"embed": _Embedder(entry.context_encoder)} if entry is not None and entry.context_encoder else {}
