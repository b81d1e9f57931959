"""How far the colours of results are from the truth's, below 16 pixels' blur, and what each colour match changes.

    rasr evaluate PHOTOS --crop 512 --method mini -o out
    python benchmarks/colour_truth.py out mini
    python benchmarks/colour_truth.py out mini --colours     input and outputs as they are, ΔE alone: a minute

Reads the pictures of an evaluation: inputs, truths, and one method's outputs. Rows: CIEDE2000 of the low frequencies to
the truth, and PSNR and EPD against the outputs as they are, mean ± 1.96 standard errors. Matches say something of
outputs that had none.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.color import deltaE_ciede2000, rgb2lab

from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import FloatImage, read_picture, resize
from rasr.restoration.colour import match_colour
from rasr.restoration.settings import COLOUR_METHODS

BLUR = 16


def low_frequency_distance(one: FloatImage, other: FloatImage) -> float:
    """Mean CIEDE2000 of two pictures (H, W, 3) under a Gaussian of 16 pixels."""
    labs = [rgb2lab(gaussian_filter(picture, (BLUR, BLUR, 0), mode="nearest")) for picture in (one, other)]
    return float(deltaE_ciede2000(*labs).mean())


def spread(values: NDArray[np.float64]) -> str:
    """Mean ± 1.96 standard errors."""
    return f"{values.mean():+.3f} ± {1.96 * values.std(ddof=1) / len(values) ** 0.5:.3f}"


def tell_colours(out: Path, method: str) -> None:
    """Print ΔE of the low frequencies to the truth, of the inputs and of the outputs as they are."""
    found = []
    for path in sorted((out / "outputs" / method).rglob("*.png")):
        truth, lq = (read_picture(out / "inputs" / kind / path.name).pixels for kind in ("hr", "lq"))
        enlarged = np.clip(resize(lq, (truth.shape[1], truth.shape[0])), 0, 1)
        found.append([low_frequency_distance(one, truth) for one in (enlarged, read_picture(path).pixels)])
    table = np.array(found)
    print(f"input ΔE {table[:, 0].mean():.3f}, {method} {table[:, 1].mean():.3f} "
          f"({spread(table[:, 1] - table[:, 0])}); {len(table)} pictures")  # fmt: skip


def main() -> None:
    """Measure every picture under every match, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of an evaluation")
    parser.add_argument("method")
    parser.add_argument("--colours", action="store_true", help="ΔE of input and outputs only")
    options = parser.parse_args()
    if options.colours:
        tell_colours(options.out, options.method)
        return
    epd, psnr = (load_metric(name, MeasuringProtocol()) for name in ("EPD", "PSNR"))
    rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for path in sorted((options.out / "outputs" / options.method).rglob("*.png")):
        truth, lq = (read_picture(options.out / "inputs" / kind / path.name).pixels for kind in ("hr", "lq"))
        restored = read_picture(path).pixels
        enlarged = np.clip(resize(lq, (truth.shape[1], truth.shape[0])), 0, 1)
        for title in ("input", *COLOUR_METHODS):
            pixels = enlarged if title == "input" else restored.copy()
            if title != "input":
                match_colour(pixels, lq, title)
            pixels = np.rint(pixels * 255).astype(np.float32) / np.float32(255)
            rows[title].append(
                (low_frequency_distance(pixels, truth), psnr.measure(pixels, truth), epd.measure(pixels, truth))
            )
    plain = np.array(rows["none"])
    for title, values in rows.items():
        found = np.array(values)
        relative = (found[:, 2] / plain[:, 2] - 1) * 100
        means, gain = found.mean(axis=0), spread(found[:, 1] - plain[:, 1])
        print(f"{title:8s} ΔE {means[0]:.3f}  PSNR {means[1]:.2f} ({gain})  EPD {means[2]:.4f} ({spread(relative)} %)")
    print(f"{len(plain)} pictures")


if __name__ == "__main__":
    main()
