"""Which colour match keeps the input's colours: ΔE of the reduced result against the input, by method.

python benchmarks/restore_colour.py [--photos ../shared/photos] [--count 12] [--preset realesrgan]

Photos are cut to 512 px, degraded to 128, restored four times larger, matched by each method, reduced to 128 again and
compared with the input: CIEDE2000, mean and 95th percentile over pixels, also with both blurred by 2 px so that removed
noise does not count as a colour error. PSNR is against the photo.
"""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.color import deltaE_ciede2000, rgb2lab

from rasr.degrade import degrade
from rasr.generator import GenerationSettings, load_generator
from rasr.images import FloatImage, find_pictures, read_picture, resize
from rasr.restoration.colour import match_colour
from rasr.restoration.settings import COLOUR_METHODS

SIDE = 512


def photos(folder: Path, count: int) -> list[FloatImage]:
    """Central squares of evenly chosen photos, or of scikit-image's samples when there is no folder."""
    if folder.is_dir():
        files = find_pictures(folder)
        pictures = [read_picture(file).pixels for file in files[:: max(1, len(files) // count)][:count]]
    else:
        samples = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0])
        pictures = [(sample / 255).astype(np.float32) for sample in samples]
    squares = []
    for pixels in pictures:
        side = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        squares.append(np.clip(resize(pixels[top : top + side, left : left + side], (SIDE, SIDE)), 0, 1))
    return squares


def blurred(pixels: FloatImage) -> FloatImage:
    """Low frequencies only."""
    soft: FloatImage = gaussian_filter(pixels, (2, 2, 0))
    return soft


def main() -> None:
    """Measure and print one line a degradation and method."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    arguments.add_argument("--count", type=int, default=12)
    arguments.add_argument("--preset", default="realesrgan")
    options = arguments.parse_args()
    generator = load_generator(options.preset)
    squares = photos(options.photos, options.count)
    print(f"{len(squares)} photos, {generator.info.name}; {platform.machine()}, {os.cpu_count()} cores, "
          f"numpy {version('numpy')}, ncnn {version('ncnn')}")  # fmt: skip
    for kind in ("light", "realesrgan"):
        figures: dict[str, list[tuple[float, ...]]] = {method: [] for method in COLOUR_METHODS}
        for number, hr in enumerate(squares):
            lq, _ = degrade(hr, preset=kind, scale=4, seed=0, name=str(number))
            conditioning = generator.prepare(lq, [], GenerationSettings())
            tile = lq if generator.info.grid == "input" else np.clip(resize(lq, (SIDE, SIDE)), 0, 1)
            restored = generator.generate(tile[None], None, conditioning)[0]
            for method in COLOUR_METHODS:
                matched = restored.copy()
                match_colour(matched, lq, method)
                reduced = np.clip(resize(matched, (lq.shape[1], lq.shape[0])), 0, 1)
                error = deltaE_ciede2000(rgb2lab(lq), rgb2lab(reduced))
                soft = deltaE_ciede2000(rgb2lab(blurred(lq)), rgb2lab(blurred(reduced)))
                psnr = -10 * np.log10(np.square(matched - hr).mean())
                figures[method].append(
                    (error.mean(), np.percentile(error, 95), soft.mean(), np.percentile(soft, 95), psnr)
                )
        for method, rows in figures.items():
            mean, high, soft_mean, soft_high, psnr = np.mean(rows, axis=0)
            worst = max(row[2] for row in rows)
            print(f"{kind:<10} {method:<8} dE {mean:5.2f} (p95 {high:5.2f})  low frequencies {soft_mean:5.2f} "
                  f"(p95 {soft_high:5.2f}, worst photo {worst:5.2f})  PSNR {psnr:5.2f} dB")  # fmt: skip


if __name__ == "__main__":
    main()
