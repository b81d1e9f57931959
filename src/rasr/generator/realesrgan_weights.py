"""Real-ESRGAN's weights: ncnn's two files, read and rewritten, and the layers tuned further.

The two files are a text of layers, and their weights end to end. The last layers can be trained further: a small file
holds such layers whole, as ``{number}.weight`` and ``{number}.bias``, and nothing of the network around them, which
comes with its own package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.errors import WeightsCorrupt
from rasr.weights import entry, read_safetensors, require, verify, write_safetensors

__all__ = [
    "TUNED_BLOCKS",
    "TUNED_LAYERS",
    "read_convolutions",
    "read_tuned",
    "replace_convolutions",
    "weight_files",
    "write_tuned",
]

HALF = 0x01306B47
"""ncnn's mark before a layer whose weights are stored as fp16; 0 is fp32."""
FORMAT = "rasr-realesrgan-1"
TUNED_BLOCKS = 3
"""Of the 23 residual-in-residual blocks, those at the end that are trained further."""
TUNED_LAYERS = 15 * TUNED_BLOCKS + 5
"""Convolutions at the end of the network: 15 a block, the one after the last block, two enlargements, and two."""

Layers = Mapping[int, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Number of a convolution → weight (O, I, 3, 3) and bias (O,)."""


@dataclass(frozen=True, slots=True)
class _Convolution:
    """3×3 convolution and where it lies."""

    weight: NDArray[np.float32]
    """(O, I, 3, 3)."""
    bias: NDArray[np.float32]
    """(O,)."""
    place: int
    """Of its first weight in the file, in bytes: after the mark."""
    half: bool
    """True where the weights are stored as fp16, padded to 4 bytes. The bias, fp32, follows them."""


def weight_files(folder: Path | None) -> tuple[Path, Path]:
    """Find description and weights, hashes checked. Raises WeightsMissing or WeightsCorrupt."""
    folder = require("realesrgan", folder)
    param, model = (folder / name for name in entry("realesrgan").files)
    for file in (param, model):
        verify(file, "realesrgan")
    return param, model


def read_convolutions(param: Path, model: Path) -> Iterator[_Convolution]:
    """Yield convolutions in order of use. Raises WeightsCorrupt where the files do not fit."""
    raw, place = model.read_bytes(), 0
    for line in param.read_text(encoding="ascii").splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        if kind != "Convolution":
            continue
        options = dict(part.split("=", 1) for part in rest[int(inputs) + int(outputs) :])
        channels, count = int(options["0"]), int(options["6"])
        mark = int.from_bytes(raw[place : place + 4], "little")
        if mark not in {0, HALF}:
            raise WeightsCorrupt(f"{model}: the weights are stored in a form that is not known here ({mark:#x}).")
        first = place + 4
        stored = np.frombuffer(raw, np.float16 if mark else np.float32, count, first)
        place = first + (stored.nbytes + 3) // 4 * 4
        bias = np.frombuffer(raw, np.float32, channels, place)
        place += bias.nbytes
        yield _Convolution(stored.astype(np.float32).reshape(channels, -1, 3, 3), bias.copy(), first, bool(mark))
    if place != len(raw):
        raise WeightsCorrupt(f"{model}: {len(raw)} bytes where the network needs {place}.")


def replace_convolutions(param: Path, model: Path, others: Layers) -> bytes:
    """Return the bytes of ``model`` with some convolutions in place of its own.

    Raises WeightsCorrupt for a number or a shape that the network does not have.
    """
    raw, convolutions = bytearray(model.read_bytes()), list(read_convolutions(param, model))
    for number, (weight, bias) in others.items():
        own = convolutions[number] if 0 <= number < len(convolutions) else None
        if own is None or own.weight.shape != weight.shape or own.bias.shape != bias.shape:
            raise WeightsCorrupt(f"{model} has no convolution {number} of shape {weight.shape}.")
        stored = weight.astype("<f2" if own.half else "<f4").tobytes()
        after = own.place + (len(stored) + 3) // 4 * 4
        raw[own.place : own.place + len(stored)] = stored
        raw[after : after + 4 * len(bias)] = bias.astype("<f4").tobytes()
    return bytes(raw)


def read_tuned(path: Path | None = None) -> Layers:
    """Read tuned layers, by default the package's. Raises WeightsMissing or WeightsCorrupt."""
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
    """Write tuned layers: weights as fp16, as the network stores its own, biases as fp32."""
    tensors: dict[str, NDArray[Any]] = {}
    for number, (weight, bias) in layers.items():
        tensors[f"{number}.weight"] = np.ascontiguousarray(weight, np.float16)
        tensors[f"{number}.bias"] = np.ascontiguousarray(bias, np.float32)
    return write_safetensors(path, tensors, {"format": FORMAT, "notes": json.dumps(notes)})
