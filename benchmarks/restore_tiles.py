"""How much tiling shows: tiled against untiled Real-ESRGAN, by overlap; and what tiles that fit the picture save.

python benchmarks/restore_tiles.py [--photos ../shared/photos] [--count 4] [--side 160] [--overlaps 0 8 ...]
python benchmarks/restore_tiles.py --fit [--photos ../shared/photos/extra] [--count 8] [--side 192]

Difference is mean and largest |tiled − whole| in levels of 255. The seam metric is the mean gradient across the places
where tiles are blended over the mean gradient elsewhere, divided by the same of the untiled result: 1 means that the
borders cannot be told from the rest.

``--fit``: photos degraded x 4 by ``realesrgan``, restored by ``mini`` in tiles of the generator's own size and in tiles
as small as their number allows; CPU seconds, and EPD and PSNR against the truth with paired 95 % intervals.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data

from rasr.degrade import degrade
from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.generator import GenerationSettings
from rasr.generator.realesrgan import RealESRGAN
from rasr.images import FloatImage, Picture, find_pictures, read_picture, resize
from rasr.restoration import Restorer
from rasr.restoration.tiles import generate_tiled, plan_axis
from rasr.training.photos import find_photos


def pictures(folder: Path, count: int, side: int) -> list[FloatImage]:
    """Squares of ``side`` pixels, photos shrunk to a quarter."""
    if folder.is_dir():
        files = find_pictures(folder)
        chosen = [read_picture(file).pixels for file in files[7 :: max(1, len(files) // count)][:count]]
    else:
        chosen = [(sample / 255).astype(np.float32) for sample in (data.astronaut(), data.coffee(), data.rocket())]
    return [np.clip(resize(photo[: 4 * side, : 4 * side], (side, side)), 0, 1) for photo in chosen]


def seam(canvas: FloatImage, borders: NDArray[np.bool_]) -> float:
    """Mean gradient on the borders over that elsewhere, both directions together."""
    ratios = []
    for axis in (0, 1):
        gradient = np.abs(np.diff(canvas, axis=axis)).mean(axis=(1 - axis, 2))
        ratios.append(gradient[borders].mean() / gradient[~borders].mean())
    return float(np.mean(ratios))


def fit(folder: Path, count: int, side: int) -> None:
    """Compare tiles of one size with tiles that fit, on degraded photos whose truth is known."""
    torch.set_num_threads(1)
    epd, psnr = (load_metric(name, MeasuringProtocol()) for name in ("EPD", "PSNR"))
    restorer = Restorer("mini", device="cpu", threads=1)
    hints = restorer.generator.info.tile
    rows = []
    for photo in find_photos([folder], "folder", smallest=4 * side).spread(count):
        whole = read_picture(photo.path).pixels
        top, left = ((length - 4 * side) // 2 for length in whole.shape[:2])
        truth = np.ascontiguousarray(whole[top : top + 4 * side, left : left + 4 * side])
        lq, _ = degrade(truth, preset="realesrgan", scale=4, seed=0, name=photo.path.name)
        row = []
        for fixed in (True, False):
            restorer.generator.info = replace(restorer.generator.info, tile=replace(hints, fixed=fixed))
            begun = time.process_time()
            pixels = restorer(Picture(lq), tile=hints.default).picture.pixels
            took = time.process_time() - begun
            told = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.float32) / np.float32(255)
            row += [took, epd.measure(told, truth), psnr.measure(told, truth)]
        rows.append(row)
    table = np.array(rows)
    half = 1.96 * (table[:, 3:] - table[:, :3]).std(axis=0, ddof=1) / len(rows) ** 0.5
    print(f"{time.strftime('%Y-%m-%d')}, {len(rows)} photos, input {side} px, tiles of {hints.default}: CPU seconds "
          f"{table[:, 0].mean():.1f} → {table[:, 3].mean():.1f}, EPD {table[:, 1].mean():.4f}, "
          f"{(table[:, 4] - table[:, 1]).mean():+.4f} ± {half[1]:.4f}, PSNR {table[:, 2].mean():.2f}, "
          f"{(table[:, 5] - table[:, 2]).mean():+.3f} ± {half[2]:.3f} dB; {platform.machine()}, "
          f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")  # fmt: skip


def main() -> None:
    """Measure and print one line an overlap."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    arguments.add_argument("--count", type=int, default=4)
    arguments.add_argument("--side", type=int, default=160)
    arguments.add_argument("--overlaps", type=int, nargs="+", default=[0, 8, 16, 24, 32])
    arguments.add_argument("--fit", action="store_true", help="compare tiles that fit the picture with others")
    options = arguments.parse_args()
    side = options.side
    if options.fit:
        fit(options.photos, options.count, side)
        return
    generator = RealESRGAN(device="cpu")
    photos = pictures(options.photos, options.count, side)
    conditioning = generator.prepare(photos[0], [], GenerationSettings())
    wholes = [generator.generate(photo[None], None, conditioning)[0] for photo in photos]
    print(f"{len(photos)} pictures of {side} px, 2² tiles; {platform.machine()}, {os.cpu_count()} cores, "
          f"ncnn {version('ncnn')}")  # fmt: skip
    for overlap in options.overlaps:
        generator.info = replace(generator.info, tile=replace(generator.info.tile, overlap=overlap))
        tile = (side + overlap + 1) // 2  # two tiles a side that share exactly the overlap
        strips = plan_axis(side, 4 * side, tile, overlap, scale=4)
        borders = np.zeros(4 * side - 1, np.bool_)
        for left, right in pairwise(strips):
            borders[right.first - 1 : left.stop] = True
        rows = []
        begun = time.perf_counter()
        for photo, whole in zip(photos, wholes, strict=True):
            canvas, _ = generate_tiled(generator, conditioning, photo, (4 * side, 4 * side), tile=tile)
            difference = np.abs(canvas - whole) * 255
            rows.append((difference.mean(), difference.max(), seam(canvas, borders) / seam(whole, borders)))
        mean, _, ratio = np.mean(rows, axis=0)
        print(f"overlap {overlap:3d}: tiles of {tile}, mean difference {mean:.3f}, largest "
              f"{max(row[1] for row in rows):.1f}, seam {ratio:.3f} (worst {max(row[2] for row in rows):.3f}), "
              f"{(time.perf_counter() - begun) / len(photos):.1f} s a picture")  # fmt: skip


if __name__ == "__main__":
    main()
