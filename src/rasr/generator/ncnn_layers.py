"""Convolutions in ncnn's two files, read and replaced without ncnn: a text of layers, and their weights end to end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rasr.errors import WeightsCorrupt

__all__ = ["Convolution", "read_convolutions", "replace_convolutions"]

HALF = 0x01306B47
"""ncnn's mark before a layer whose weights are stored as fp16; 0 is fp32."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """One 3×3 convolution and where it lies."""

    weight: NDArray[np.float32]
    """(O, I, 3, 3)."""
    bias: NDArray[np.float32]
    """(O,)."""
    place: int
    """Of its first weight in the file, in bytes: after the mark."""
    half: bool
    """Whether the weights are stored as fp16, padded to 4 bytes. The bias, fp32, follows them."""


def read_convolutions(param: Path, model: Path) -> Iterator[Convolution]:
    """In the order of the file, which is that of use. Raises WeightsCorrupt where the two files do not fit together."""
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
        yield Convolution(stored.astype(np.float32).reshape(channels, -1, 3, 3), bias.copy(), first, bool(mark))
    if place != len(raw):
        raise WeightsCorrupt(f"{model}: {len(raw)} bytes where the network needs {place}.")


def replace_convolutions(
    param: Path, model: Path, others: Mapping[int, tuple[NDArray[np.float32], NDArray[np.float32]]]
) -> bytes:
    """The bytes of ``model`` with the weight and bias of some convolutions, by number, in place of its own.

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
