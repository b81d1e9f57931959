"""Large soft photos: what reducing them to the resolution they have changes, against restoring all their pixels.

    python benchmarks/blurred.py [--photos ../shared/photos/extra] [--count 36 [--others]] [--sigma 2 3 4 6] [--check]

Photos that trained nothing (those that ``runs/mini.sh`` holds out) are blurred whole by a Gaussian of sigma pixels, get
noise of 2 levels and are saved as JPEG 92. Their resolution is estimated whole; then a window of 192 pixels in the
middle is restored at its own size (``--scale 1``), once with the step and once without, in one tile, and compared with
the photo. Rows: EPD and PSNR of both, the relative change of EPD with its 95 % interval (1.96 standard errors over
photos), and seconds. Then the sharp photos: how many would be reduced, and those degraded by ``realesrgan`` × 4.
``--check`` exits 1 unless, at every sigma, the interval lies below 0 and the time is lower, no sharp photo is reduced,
and a sharp window comes out bit-equal with the step and without.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from rasr.degrade import degrade
from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import FloatImage, Picture, read_picture, resize
from rasr.restoration import Restorer, TargetSize
from rasr.restoration.resolution import estimate_blur, put_back, reduce_blurred, sharp_size
from rasr.training.photos import find_photos

SIDE, HELD_OUT, WIDE = 192, 36, 512
NOISE, QUALITY = 2 / 255, 92


def spoil(photo: FloatImage, sigma: float) -> FloatImage:
    """Blur a photo, (H, W, 3), add a little noise, and save it as a camera or a scanner does."""
    soft = gaussian_filter(photo, (sigma, sigma, 0), mode="reflect")
    soft += np.random.default_rng(0).normal(0, NOISE, soft.shape).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(_levels(soft)).save(file, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(file), np.float32) / np.float32(255)


def window(pixels: FloatImage, size: tuple[int, int] | None = None) -> FloatImage:
    """The middle of a photo, (192, 192, 3), or that part reduced as the whole is to ``size`` (width, height)."""
    top, left = ((side - SIDE) // 2 for side in pixels.shape[:2])
    part = pixels[top : top + SIDE, left : left + SIDE]
    if size is None:
        return np.ascontiguousarray(part)
    reduced = round(SIDE * size[0] / pixels.shape[1])
    return np.clip(resize(part, (reduced, reduced)), 0, 1)


def _levels(pixels: FloatImage) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def same_without(restorer: Restorer, sharp: Picture) -> bool:
    """True where a sharp picture comes out bit-equal with the step and without."""
    size = TargetSize(scale=1)
    on, off = (restorer(sharp, size=size, tile=SIDE, reduce=reduce).picture.pixels for reduce in (True, False))
    return bool(np.array_equal(on, off))


def restored(restorer: Restorer, soft: FloatImage, size: tuple[int, int] | None, blur: float) -> FloatImage:
    """Restore the middle of a photo, as it is or reduced as the whole is to ``size``, to (192, 192, 3)."""
    lq = Picture(window(soft, size))
    pixels = restorer(lq, size=TargetSize(width=SIDE), tile=SIDE, reduce=False).picture.pixels
    put_back(pixels, window(soft), blur if size else 0.0)
    return pixels


def main() -> int:
    """Measure and print; the exit code says whether the bars are met where ``--check`` asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos/extra"))
    parser.add_argument("--count", type=int, default=36)
    parser.add_argument("--others", action="store_true", help="measure on those that the count leaves out")
    parser.add_argument("--sigma", type=float, nargs="+", default=[2.0, 3.0, 4.0, 6.0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    epd, psnr = (load_metric(name, MeasuringProtocol()) for name in ("EPD", "PSNR"))
    restorer = Restorer("mini", device="cpu", threads=1)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    found = find_photos([options.photos], "folder", smallest=WIDE).spread(HELD_OUT)
    held = [(photo.path.name, read_picture(photo.path).pixels) for photo in found]
    picked = {round(i * (len(held) - 1) / (options.count - 1)) for i in range(options.count)}
    chosen = [pixels for number, (_, pixels) in enumerate(held) if (number in picked) != options.others]

    blurs = sorted((estimate_blur(pixels), name) for name, pixels in held)
    sharp_kept = all(sharp_size(pixels) is None for _, pixels in held)
    print(f"sharp photos: {len(held)}, blur estimated {blurs[0][0]:.2f} to {blurs[-1][0]:.2f} ({blurs[-1][1]}); "
          f"{'none' if sharp_kept else 'SOME'} reduced", flush=True)  # fmt: skip
    touched = 0
    for name, pixels in held:
        height, width = (side // 4 * 4 for side in pixels.shape[:2])
        lq, _ = degrade(np.ascontiguousarray(pixels[:height, :width]), preset="realesrgan", scale=4, seed=0, name=name)
        touched += sharp_size(lq, 4.0) is not None
    print(f"degraded by realesrgan × 4 ({SIDE} pixels a side and more are looked at): {touched} reduced", flush=True)
    equal = same_without(restorer, Picture(window(chosen[0])))
    met = sharp_kept and equal
    print(f"a sharp window with and without the step: {'bit-equal' if equal else 'DIFFERENT'}")

    for sigma in options.sigma:
        rows, kept = [], 0
        for photo in chosen:
            soft = spoil(photo, sigma)
            begun = time.perf_counter()
            reduced, blur = reduce_blurred(soft)
            looked = (time.perf_counter() - begun) * SIDE**2 / (soft.shape[0] * soft.shape[1])
            kept += not blur
            row: list[float] = []
            for size in (None, (reduced.shape[1], reduced.shape[0])):
                if row and not blur:
                    row += row[:3]  # the step leaves this photo as it is
                    continue
                begun = time.perf_counter()
                pixels = restored(restorer, soft, size, blur)
                took = time.perf_counter() - begun + (looked if row else 0)
                told, truth = _levels(pixels).astype(np.float32) / np.float32(255), window(photo)
                row += [epd.measure(told, truth), psnr.measure(told, truth), took]
            rows.append(row)
        table = np.array(rows)
        relative = (table[:, 3] / table[:, 0] - 1) * 100
        half = 1.96 * relative.std(ddof=1) / len(relative) ** 0.5
        before, after = table[:, :3].mean(axis=0), table[:, 3:].mean(axis=0)
        met &= bool(relative.mean() + half < 0) and after[2] < before[2]
        print(
            f"sigma {sigma:g}: EPD {before[0]:.3f} → {after[0]:.3f} ({relative.mean():+.1f} % ± {half:.1f}), "
            f"PSNR {before[1]:.2f} → {after[1]:.2f}, {before[2]:.1f} → {after[2]:.1f} s; {kept} of {len(chosen)} not "
            f"reduced; each {', '.join(f'{one:+.0f} %' for one in relative)}", flush=True
        )  # fmt: skip
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
