"""Real-ESRGAN's last layers, trained further: which they are, and the small file that holds them.

The file holds whole layers by their number, ``{number}.weight`` and ``{number}.bias``, and nothing of the network that
they replace, which comes with its own package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.errors import WeightsCorrupt, WeightsMissing

__all__ = ["BLOCKS", "LAYERS", "PACKAGED", "TUNED", "read_tuned", "write_tuned"]

FORMAT = "rasr-realesrgan-1"
BLOCKS = 3
"""Of the 23 residual-in-residual blocks, those at the end that are trained further."""
LAYERS = 15 * BLOCKS + 5
"""Convolutions at the end of the network: 15 a block, the one after the last block, two enlargements, and two."""
PACKAGED = Path(str(files("rasr.generator"))) / "trained"
"""The folder of the weights that ship with the package."""
TUNED = PACKAGED / "realesrgan-tuned.safetensors"
"""The layers that ship with the package."""

Layers = dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Number → weight (O, I, 3, 3) and bias (O,)."""


def read_tuned(path: Path = TUNED) -> Layers:
    """Layers from a file of :func:`write_tuned`. Raises WeightsMissing or WeightsCorrupt."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsMissing(f"{path} is missing. Reinstall RASR.")
    try:
        with safe_open(path, "numpy") as stored:
            if (stored.metadata() or {}).get("format") != FORMAT:
                raise WeightsCorrupt(f"{path} does not hold layers of Real-ESRGAN.")
            tensors = {name: stored.get_tensor(name).astype(np.float32) for name in stored.keys()}  # noqa: SIM118
        numbers = sorted({int(name.partition(".")[0]) for name in tensors})
        return {number: (tensors[f"{number}.weight"], tensors[f"{number}.bias"]) for number in numbers}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsCorrupt(f"{path} cannot be read ({error}).") from error


def write_tuned(path: Path, layers: Layers, notes: Mapping[str, Any]) -> Path:
    """Weights as fp16, which is how the network they go into stores its own; biases as fp32."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {}
    for number, (weight, bias) in layers.items():
        tensors[f"{number}.weight"] = np.ascontiguousarray(weight, np.float16)
        tensors[f"{number}.bias"] = np.ascontiguousarray(bias, np.float32)
    path.write_bytes(save(tensors, {"format": FORMAT, "notes": json.dumps(notes)}))
    return path
