"""A fast, deterministic encoder for tests of the store: colour layout, projected at random once and for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class ColourLayout:
    name = "colour-layout"
    version = "1"
    dimension = 64
    input_size = 8
    fingerprint = "colour-layout/1/8x8"

    def __init__(self, version: str = "1") -> None:
        self.version = version
        self.fingerprint = f"colour-layout/{version}/8x8"
        self._projection = np.random.default_rng(7).standard_normal((192, 64)).astype(np.float32)
        self.embedded = 0

    def preprocess(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        image = Image.fromarray((pixels * 255).round().astype(np.uint8)).resize((8, 8), Image.Resampling.BOX)
        return np.asarray(image, np.float32).transpose(2, 0, 1) / 255 - 0.5

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.embedded += len(batch)
        vectors = np.stack([picture.reshape(-1) @ self._projection for picture in batch])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_picture(path: Path, seed: int, size: tuple[int, int] = (48, 32), **save: object) -> Path:
    """A small picture of random blobs; different seeds look different."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize(size, Image.Resampling.BICUBIC).save(path, **save)
    return path
