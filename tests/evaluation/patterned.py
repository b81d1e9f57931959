"""Weights that anyone can make again: normal numbers from numpy's seeded generator, tensor by tensor in sorted order.

The golden values of the tests were computed by the metrics' reference implementations (lpips 0.1.4, DISTS-pytorch 0.1,
pytorch-fid 0.3.0, pyiqa 0.1.16) with these weights on :func:`sample_pair`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rasr.evaluation.metrics import MetricWeights
from rasr.images import FloatImage


def patterned(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A state dict with the given tensor names and shapes; integer counters are left out."""
    state = {}
    for number, key in enumerate(sorted(shapes)):
        generator, shape = np.random.default_rng([20261123, number]), shapes[key]
        if key.endswith("running_var"):
            values = generator.uniform(0.5, 1.5, shape)
        elif key == "logit_scale":
            values = np.asarray(4.0)
        else:
            fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
            values = generator.standard_normal(shape, dtype=np.float32) * (1.4 / np.sqrt(fan_in) if fan_in > 1 else 0.1)
            if len(shape) == 1 and key.endswith("weight"):
                values = 1.0 + values
        state[key] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return state


class InMemory(MetricWeights):
    """Weights without files."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__(Path())
        self.state = state

    def find(self, name: str) -> Path:
        return Path(name)

    def load(self, name: str) -> dict[str, torch.Tensor]:
        return self.state


def sample_pair() -> tuple[FloatImage, FloatImage]:
    """A photo of 200×150 pixels, and it after JPEG-like coarsening: (restored, truth)."""
    import skimage.data

    pixels = np.asarray(Image.open(Path(skimage.data.__file__).with_name("chelsea.png")).convert("RGB"))[
        80:230, 120:320
    ]
    coarse = (pixels // 24) * 24 + 12
    return coarse.clip(0, 255).astype(np.float32) / 255, pixels.astype(np.float32) / 255


def astronaut() -> FloatImage:
    """scikit-image's portrait, 512×512."""
    import skimage.data

    picture = Image.open(Path(skimage.data.__file__).with_name("astronaut.png")).convert("RGB")
    return np.asarray(picture, np.float32) / 255
