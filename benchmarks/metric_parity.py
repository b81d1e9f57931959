"""Do the metrics reproduce published values? A folder with gt/, restored/ and published.csv (image,PSNR,SSIM,...) says.

    python benchmarks/metric_parity.py PARITY_FOLDER [--weights FOLDER] [--download]

Every column of the file whose metric can be measured here is compared, picture by picture; the others say what they
need. EPD and ETD, which nobody publishes, are compared with LPIPS and DISTS by rank.
"""

from __future__ import annotations

import argparse
import csv
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from rasr.evaluation.metrics import METRICS, ImageMetric, MetricWeights, load_metrics
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import read_picture

BARS = {"PSNR": 5e-4, "SSIM": 5e-4, "NIQE": 5e-3}
"""Largest relative error allowed; the others must agree within 0.001 absolute."""
RANKED = {"EPD": "LPIPS", "ETD": "DISTS", "ETD_TEXTURE": "DISTS", "ETD_STRUCTURE": "DISTS"}
"""Metrics of this project, and the published one whose form each has."""


def main() -> int:
    """Print one line a metric; 1 when one misses its bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--download", action="store_true")
    options = parser.parse_args()
    with (options.folder / "published.csv").open(encoding="utf-8") as file:
        published = list(csv.DictReader(file))
    names = [name for name in METRICS if name in published[0] or name in RANKED]
    weights = MetricWeights(options.weights, download=options.download)
    metrics, unavailable = load_metrics(names, MeasuringProtocol(), weights)
    pairs = [
        [read_picture(options.folder / side / f"{row['image']}.png").pixels for side in ("restored", "gt")]
        for row in published
    ]
    print(
        f"{len(pairs)} pictures, rasr {version('rasr')}, numpy {version('numpy')}, Python {platform.python_version()}"
    )
    missed = False
    for metric in metrics:
        if not isinstance(metric, ImageMetric):
            continue
        name = metric.info.name
        measured = [metric.measure(restored, truth) for restored, truth in pairs]
        if name in RANKED:
            against = [float(row[RANKED[name]]) for row in published]
            rank = spearmanr(measured, against).statistic
            draws = np.random.default_rng(0).integers(0, len(pairs), (2000, len(pairs)))
            ranks = [spearmanr(np.take(measured, draw), np.take(against, draw)).statistic for draw in draws]
            low, high = np.nanquantile(ranks, [0.025, 0.975])
            print(f"{name:<13} Spearman {rank:.3f} [{low:.2f}, {high:.2f}] with published {RANKED[name]}")
            continue
        wanted = [float(row[name]) for row in published]
        absolute = max(abs(a - b) for a, b in zip(measured, wanted, strict=True))
        relative = max(abs(a / b - 1) for a, b in zip(measured, wanted, strict=True))
        good = relative <= BARS[name] if name in BARS else absolute <= 1e-3
        missed |= not good
        verdict = "ok" if good else "MISSED"
        print(f"{name:<8} largest error {absolute:.6f} absolute, {relative:.2e} relative: {verdict}")
    for column in unavailable:
        print(f"{column.name:<8} not checked: {column.reason}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
