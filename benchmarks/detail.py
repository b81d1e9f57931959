"""What the dial ``--detail`` does: PSNR, EPD, NIQE and texture distance along it, and that a flat picture stays flat.

    python benchmarks/detail.py [--photos ../shared/photos/extra] [--count 12] [--check]
    python benchmarks/detail.py --flat [--check]
    python benchmarks/detail.py --picture docs/images/detail.jpg

Photos that trained nothing (those that ``runs/mini.sh`` holds out): the centre 512 px, degraded × 4 by ``realesrgan``,
seed 0, restored by ``mini`` at five places of the dial. Rows: mean, and the difference to the default with its 95 %
interval (1.96 standard errors of paired differences), and CPU seconds; and the steps of NIQE from place to place.
Pictures of 600 × 1 pixels, of three colours, are restored at each place: the largest step from their own colour, in
levels of 255; ``--flat`` restores these only. ``--check`` exits 1 unless NIQE falls all along the dial and the flat
pictures stay within 4 levels.

``--picture`` measures nothing: it draws parts of scikit-image's photos (Chelsea by Stéfan van der Walt and the coffee
by Rachel Michetti, both CC0, the astronaut by NASA, public domain), degraded in the same way.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rasr.degrade import degrade
from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.generator import GenerationSettings
from rasr.images import FloatImage, Picture, read_picture, resize
from rasr.restoration import Restorer
from rasr.training.photos import find_photos

PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
METRICS = ("PSNR", "EPD", "NIQE", "ETD")
SIDE, SCALE, HELD_OUT = 512, 4, 36
FLAT = ((1, 0, 0), (0.5, 0.5, 0.5), (0.8, 0.3, 0.2))
FLAT_BAR = 4.0
WINDOW = 150
DRAWN = (("chelsea", 60, 100), ("coffee", 100, 230), ("astronaut", 250, 60))
"""Photos that are drawn, and the upper left corner of the 256 px that are degraded."""
DRAWN_SIDE = 256


def views(folder: Path, count: int) -> list[tuple[FloatImage, FloatImage]]:
    """Truths (512, 512, 3) and inputs (128, 128, 3), as 8-bit files would hold them."""
    held = find_photos([folder], "folder", smallest=SIDE).spread(HELD_OUT)
    pairs = []
    for photo in [held[round(i * (len(held) - 1) / (count - 1))] for i in range(count)]:
        pixels = read_picture(photo.path).pixels
        top, left = ((side - SIDE) // 2 for side in pixels.shape[:2])
        hr = np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE])
        lq, _ = degrade(hr, preset="realesrgan", scale=SCALE, seed=0, name=photo.path.name)
        pairs.append((hr, np.rint(lq * 255).astype(np.float32) / np.float32(255)))
    return pairs


def flat_steps(restorer: Restorer) -> list[float]:
    """For each place of the dial, how far a flat picture gets off its colour, in levels: the worst of all colours."""
    worst = []
    for place in PLACES:
        steps = []
        for colour in FLAT:
            flat = np.broadcast_to(np.float32(colour), (1, 600, 3)).copy()
            restored = restorer(Picture(flat), detail=place).picture.pixels
            steps.append(float(np.abs(restored - np.float32(colour)).max()) * 255)
        worst.append(max(steps))
    return worst


def flat_within(restorer: Restorer) -> bool:
    """Print :func:`flat_steps`; True where all are within the bar."""
    flat = flat_steps(restorer)
    print("flat, levels:", ", ".join(f"{place:g}: {step:.1f}" for place, step in zip(PLACES, flat, strict=True)))
    return max(flat) <= FLAT_BAR


def draw(path: Path, restorer: Restorer) -> None:
    """Draw the middle of inputs and of the results along the dial, and the truth: a row a photo."""
    import skimage.data

    columns, height = len(PLACES) + 2, WINDOW + 4
    sheet = Image.new("RGB", (columns * height, len(DRAWN) * height + 20), "white")
    pen = ImageDraw.Draw(sheet)
    for number, title in enumerate(["input", *(f"--detail {place:g}" for place in PLACES), "the photo"]):
        pen.text((number * height + 4, 4), title, fill="black")
    edge = (DRAWN_SIDE - WINDOW) // 2
    for row, (name, top, left) in enumerate(DRAWN):
        whole = getattr(skimage.data, name)().astype(np.float32) / np.float32(255)
        hr = np.ascontiguousarray(whole[top : top + DRAWN_SIDE, left : left + DRAWN_SIDE])
        lq, _ = degrade(hr, preset="realesrgan", scale=SCALE, seed=0, name=name)
        results = [restorer(Picture(lq), detail=place).picture.pixels for place in PLACES]
        for column, pixels in enumerate([np.clip(resize(lq, (DRAWN_SIDE, DRAWN_SIDE)), 0, 1), *results, hr]):
            part = pixels[edge : edge + WINDOW, edge : edge + WINDOW]
            sheet.paste(Image.fromarray(np.rint(part * 255).astype(np.uint8)), (column * height, 20 + row * height))
    sheet.save(path, quality=90)


def spread(differences: NDArray[np.float64]) -> str:
    """Mean ± half of the 95 % interval."""
    return f"{differences.mean():+.3f} ± {1.96 * differences.std(ddof=1) / len(differences) ** 0.5:.3f}"


def main() -> int:
    """Measure, print, draw; the exit code says whether the bars are met where ``--check`` asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos/extra"))
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--flat", action="store_true", help="restore the flat pictures only")
    parser.add_argument("--picture", type=Path, help="draw scikit-image's photos along the dial there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    restorer = Restorer("mini", device="cpu", threads=1)
    if options.picture:
        draw(options.picture, restorer)
        return 0
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if options.flat:
        return 1 if not flat_within(restorer) and options.check else 0
    metrics = [load_metric(name, MeasuringProtocol()) for name in METRICS]
    pairs = views(options.photos, options.count)
    results: list[list[FloatImage]] = [[] for _ in pairs]
    seconds = []
    for place in PLACES:  # one after the other: a network is loaded once for each
        restorer.generator.prepare(pairs[0][1], [], GenerationSettings(detail=place))
        begun = time.process_time()
        for (_, lq), row in zip(pairs, results, strict=True):
            pixels = restorer(Picture(lq), detail=place).picture.pixels
            row.append(np.rint(pixels * 255).astype(np.float32) / np.float32(255))
        seconds.append((time.process_time() - begun) / len(pairs))
    found = np.array(
        [
            [[metric.measure(one, hr) for metric in metrics] for one in row]
            for (hr, _), row in zip(pairs, results, strict=True)
        ]
    )
    default = PLACES.index(0.5)
    for number, place in enumerate(PLACES):
        parts = [
            f"{name} {found[:, number, at].mean():.3f} ({spread(found[:, number, at] - found[:, default, at])})"
            for at, name in enumerate(METRICS)
        ]
        print(f"detail {place:g}: {', '.join(parts)}, {seconds[number]:.1f} CPU s a picture", flush=True)
    niqe = found[:, :, METRICS.index("NIQE")]
    print("steps of NIQE:", ", ".join(spread(step) for step in np.diff(niqe, axis=1).T))
    met = bool((np.diff(niqe.mean(axis=0)) < 0).all()) & flat_within(restorer)
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
