"""Real-ESRGAN's last layers, trained further: which they are, and the small file that holds them.

The file holds whole layers by their number, ``{number}.weight`` and ``{number}.bias``, and nothing of the network that
they replace, which comes with its own package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.errors import WeightsCorrupt
from rasr.weights import read_safetensors, require, write_safetensors

__all__ = ["BLOCKS", "LAYERS", "read_tuned", "write_tuned"]

FORMAT = "rasr-realesrgan-1"
BLOCKS = 3
"""Of the 23 residual-in-residual blocks, those at the end that are trained further."""
LAYERS = 15 * BLOCKS + 5
"""Convolutions at the end of the network: 15 a block, the one after the last block, two enlargements, and two."""

Layers = dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Number → weight (O, I, 3, 3) and bias (O,)."""


def read_tuned(path: Path | None = None) -> Layers:
    """Layers from a file of :func:`write_tuned`, by default the package's. Raises WeightsMissing or WeightsCorrupt."""
    path = path or require("realesrgan-tuned")
    stored, metadata = read_safetensors(path, "numpy")
    if metadata.get("format") != FORMAT:
        raise WeightsCorrupt(f"{path} does not hold layers of Real-ESRGAN.")
    tensors = {name: tensor.astype(np.float32) for name, tensor in stored.items()}
    try:
        numbers = sorted({int(name.partition(".")[0]) for name in tensors})
        return {number: (tensors[f"{number}.weight"], tensors[f"{number}.bias"]) for number in numbers}
    except (KeyError, ValueError) as error:
        raise WeightsCorrupt(f"{path} cannot be read ({error}).") from error


def write_tuned(path: Path, layers: Layers, notes: Mapping[str, Any]) -> Path:
    """Weights as fp16, which is how the network they go into stores its own; biases as fp32."""
    tensors: dict[str, NDArray[Any]] = {}
    for number, (weight, bias) in layers.items():
        tensors[f"{number}.weight"] = np.ascontiguousarray(weight, np.float16)
        tensors[f"{number}.bias"] = np.ascontiguousarray(bias, np.float32)
    return write_safetensors(path, tensors, {"format": FORMAT, "notes": json.dumps(notes)})
