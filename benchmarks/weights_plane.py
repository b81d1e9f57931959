"""Places in the plane of mini's three sets of weights, as defaults: PSNR, NIQE and EPD against the one that ships.

    python benchmarks/weights_plane.py [--photos ../shared/photos/extra] [--cache DIR] [--side 288] [PLACE ...]

A place says for groups of layers how far they go from the tuned weights to the smooth end (S) and to the published
network (P): ``first:S0.3,third:P0.2``. Groups are the three tuned blocks (first, second, third), the enlargements and
what follows (last), and all. Two further parts take from the smooth end's picture instead of its weights:
``coarse:2.5`` what is coarser than a Gaussian of 2.5 pixels, and ``lowest:16`` makes what is coarser than one of 16
pixels 0.7 the smooth end's and 0.25 the input's, in place of the colour match.

Photos are the 36 that ``runs/mini.sh`` holds out, their centre 512 px degraded × 4 by ``realesrgan``, seed 0; the
middle ``--side`` pixels are restored in bf16 and matched in colour as restoring does it. Rows: means, and the
difference to the default with its 95 % interval (1.96 standard errors of paired differences; EPD in per cent). The
frozen layers' features are computed once, into --cache. It chooses nothing by the 37 test photos.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from detail import HELD_OUT, SIDE, spread, views
from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.generator.realesrgan import Layers, read_convolutions, read_tuned, weight_files
from rasr.generator.rrdbnet import RRDBNet, load_rrdbnet
from rasr.images import FloatImage, resize
from rasr.restoration.colour import match_colour
from rasr.training.photos import find_photos
from rasr.weights import require
from runs.realesrgan_tune import FROZEN, Arrays
from runs.realesrgan_tune import views as features

METRICS = ("PSNR", "NIQE", "EPD")
GROUPS = {"first": range(301, 316), "second": range(316, 331), "third": range(331, 346), "last": range(347, 351),
          "all": range(301, 351)}  # fmt: skip
DEFAULTS = (
    "all:S0.25", "last:S0.3", "second:S0.3", "first:S0.3", "first:S1", "last:P0.3", "second:P0.5", "third:P0.3",
    "third:P1", "first:S0.6,third:P0.2", "first:S0.4,third:P0.7", "coarse:1", "coarse:1.6", "coarse:2.5", "coarse:4",
    "lowest:16", "lowest:32",
)  # fmt: skip
LEARNT, GIVEN = 0.7, 0.25
"""Shares of the smooth end's picture and of the input in what ``lowest`` puts into the lowest frequencies."""


def place(text: str, tuned: Layers, ends: dict[str, Layers]) -> Layers:
    """Return the layers at a place; parts that name no group of layers move none."""
    found = dict(tuned)
    for part in text.split(","):
        group, _, way = part.partition(":")
        for number in GROUPS.get(group, ()):
            end, share = ends[way[0]], np.float32(way[1:])
            weight, bias = (a + share * (b - c) for a, b, c in zip(
                found[number], end[number], tuned[number], strict=True))  # fmt: skip
            found[number] = weight, bias
    # Weights as a file stores them.
    return {number: (weight.astype(np.float16).astype(np.float32), bias) for number, (weight, bias) in found.items()}


def restore(network: RRDBNet, layers: Layers, arrays: Arrays, side: int) -> list[FloatImage]:
    """Pictures (side, side, 3), the middle of every view, before colours are matched."""
    for number, (weight, bias) in layers.items():
        network.layers[number].load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    size = side // 4
    edge = (SIDE // 4 - size) // 2
    pictures = []
    for row in range(len(arrays["hr"])):
        first, trunk = (
            torch.from_numpy(arrays[name][row : row + 1, :, edge : edge + size, edge : edge + size].astype(np.float32))
            .contiguous(memory_format=torch.channels_last) for name in ("first", "trunk")
        )  # fmt: skip
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            planes = network.finish(first, trunk, FROZEN).float().clamp(0, 1)
        pictures.append(np.ascontiguousarray(planes[0].permute(1, 2, 0).numpy()))
    return pictures


def finished(text: str, pixels: FloatImage, smooth: FloatImage, lq: FloatImage) -> FloatImage:
    """The picture of a place, its colours matched, as an 8-bit file would hold it."""
    parts = dict(part.split(":") for part in text.split(","))
    if "coarse" in parts:
        deviation = float(parts["coarse"])
        pixels = np.clip(pixels + gaussian_filter(smooth - pixels, (deviation, deviation, 0), mode="reflect"), 0, 1)
    if "lowest" in parts:
        deviation, given = float(parts["lowest"]), np.clip(resize(lq, pixels.shape[1::-1]), 0, 1)
        shift = LEARNT * (smooth - pixels) + GIVEN * (given - pixels)
        pixels = np.clip(pixels + gaussian_filter(shift, (deviation, deviation, 0), mode="reflect"), 0, 1)
    else:
        match_colour(pixels, lq, "lowest")
    levels: FloatImage = np.rint(pixels * 255).astype(np.float32) / np.float32(255)
    return levels


def main() -> None:
    """Measure the default and each place, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", default=DEFAULTS, metavar="PLACE")
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos/extra"))
    parser.add_argument("--cache", type=Path, default=Path("trained/realesrgan-views"))
    parser.add_argument("--side", type=int, default=288)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    metrics = [load_metric(name, MeasuringProtocol()) for name in METRICS]
    network = load_rrdbnet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    held = find_photos([options.photos], "folder", smallest=SIDE).spread(HELD_OUT)
    arrays = features("held-out", held, HELD_OUT, SIDE, options.cache, centre=True, network=network)
    edge, side = (SIDE - options.side) // 2, options.side
    middle = (slice(edge, edge + side),) * 2
    reduced = (slice(edge // 4, (edge + side) // 4),) * 2
    pairs = [(np.ascontiguousarray(hr[middle]), np.ascontiguousarray(lq[reduced])) for hr, lq in views(
        options.photos, HELD_OUT)]  # fmt: skip
    tuned, smooth = read_tuned(), read_tuned(require("mini-smooth"))
    own = [(one.weight, one.bias) for one in read_convolutions(*weight_files(None))]
    ends = {"S": smooth, "P": dict(enumerate(own))}
    softer = restore(network, smooth, arrays, side)

    def measured(text: str) -> NDArray[np.float64]:
        pictures = restore(network, place(text, tuned, ends), arrays, side)
        told = [finished(text, *two, lq) for *two, (_, lq) in zip(pictures, softer, pairs, strict=True)]
        rows = [[metric.measure(one, hr) for metric in metrics] for one, (hr, _) in zip(told, pairs, strict=True)]
        return np.array(rows)

    default = measured("all:S0")
    print("default:", ", ".join(f"{n} {v:.3f}" for n, v in zip(METRICS, default.mean(axis=0), strict=True)), flush=True)
    for text in options.places:
        found = measured(text)
        apart = found - default
        apart[:, 2] = (found[:, 2] / default[:, 2] - 1) * 100
        parts = [f"{name} {spread(apart[:, at])}" for at, name in enumerate(METRICS)]
        print(f"{text}: {', '.join(parts)} %", flush=True)


if __name__ == "__main__":
    main()
