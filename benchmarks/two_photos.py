"""Two photos of a scene against the better one of them, on views whose depth is made up: as many as there are photos.

    python benchmarks/two_photos.py --photos DIR [--scenes 8] [--flat]

The middle of a photo (640 pixels) is the scene; hills and discs of random depth (``--flat``: none) are what moves when
the camera does. Two views of it, in perspective, with noise and other light, are the photos; its middle (384 pixels)
degraded × 4 (realesrgan, seed 0) and restored by the default generator is the picture. EPD and PSNR against no
reference for each view alone and both together, and by how much both are better than the better one, with a bootstrap
interval. Scenes that geometry does not find in both views are left out, and counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import rasr
from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import FloatImage, read_picture
from rasr.registration import SceneQuery, extract_reference, fuse
from rasr.registration.matching import transform
from rasr.restoration.settings import TargetSize
from same_scene import as_levels, centre, interval, low_quality

SIDE = 640
Plane = NDArray[np.float32]


def at(plane: Plane | FloatImage, places: NDArray[np.float32], border: int = cv2.BORDER_REPLICATE) -> Plane:
    """A plane at (H, W, 2) places."""
    found: Plane = cv2.remap(plane, places.astype(np.float32), None, cv2.INTER_CUBIC, borderMode=border)
    return found


def made_up_depth(random: np.random.Generator) -> Plane:
    """Hills, and two to five discs before them; in pixels that a camera moved by 1 moves them."""
    hills = cv2.GaussianBlur(random.standard_normal((SIDE, SIDE)).astype(np.float32), (0, 0), 60)
    depth = 3 * hills / hills.std()
    for _ in range(int(random.integers(2, 6))):
        disc = np.zeros((SIDE, SIDE), np.float32)
        middle, axes = (tuple(int(x) for x in random.integers(*ends, 2)) for ends in ((120, 520), (30, 110)))
        cv2.ellipse(disc, middle, axes, float(random.uniform(0, 180)), 0, 360, 1, -1)
        depth += cv2.GaussianBlur(disc, (0, 0), 3) * float(random.uniform(4, 12))
    return np.asarray(depth, np.float32)


def view(scene: FloatImage, depth: Plane, random: np.random.Generator) -> FloatImage:
    """The scene from elsewhere: parallax, perspective, light, lens, noise, 8 bits."""
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).astype(np.float32)
    moved = random.uniform(-1, 1, 2)
    moved *= random.uniform(0.5, 1.2) / np.linalg.norm(moved)
    away = np.zeros_like(grid)
    for _ in range(12):  # where each pixel of the view lies in the scene
        away = 0.5 * away - 0.5 * (at(depth, grid + away)[..., None] * moved).astype(np.float32)
    corners = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], np.float32)
    tilt = cv2.getPerspectiveTransform(corners, corners + random.uniform(-35, 35, (4, 2)).astype(np.float32))
    places = transform(np.linalg.inv(tilt), grid).astype(np.float32)
    seen = at(scene, places + at(away, places), cv2.BORDER_CONSTANT).clip(0, 1)
    seen = cv2.GaussianBlur(seen ** random.uniform(0.8, 1.25) * random.uniform(0.85, 1.1), (0, 0), 0.6)
    return as_levels(np.asarray(seen + random.normal(0, 0.015, seen.shape), np.float32))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--flat", action="store_true")
    asked = parser.parse_args()
    restorer, random = rasr.Restorer(), np.random.default_rng(0)
    metrics = {name: load_metric(name, MeasuringProtocol()) for name in ("EPD", "PSNR")}
    paths = sorted(path for path in asked.photos.rglob("*") if path.suffix in {".jpg", ".png"})
    gains: dict[str, list[float]] = {name: [] for name in metrics}
    left_out = 0
    for number in random.permutation(len(paths)):
        whole = read_picture(paths[number]).opaque()
        if len(gains["EPD"]) + left_out == asked.scenes or min(whole.shape[:2]) < SIDE:
            continue
        scene, own = centre(whole, SIDE), np.random.default_rng(int(number))
        depth = made_up_depth(own) * (0 if asked.flat else 1)
        photos, truth = [view(scene, depth, own) for _ in range(2)], centre(scene)
        with tempfile.TemporaryDirectory() as work:
            low = low_quality(truth, "query", Path(work))
            pixels = restorer(low, reference="none", size=TargetSize(scale=4)).picture.pixels
            lq = read_picture(low).pixels
        query = SceneQuery(pixels)
        found = [(one, query.compare(extract_reference(one), lambda one=one: one)) for one in photos]
        if not all(seen.same_scene for _, seen in found):
            left_out += 1
            continue
        found.sort(key=lambda one: (-one[1].covered, -one[1].matches))
        told: dict[str, list[float]] = {name: [] for name in metrics}
        begun = time.process_time()
        for used in ([], found[:1], found[1:], found):
            picture = pixels.copy()
            if used:
                fuse(picture, lq, used)
            for name, metric in metrics.items():
                told[name].append(metric.measure(as_levels(picture), truth))
        epd = [100 * (one / told["EPD"][0] - 1) for one in told["EPD"][1:]]
        psnr = [one - told["PSNR"][0] for one in told["PSNR"][1:]]
        gains["EPD"].append(epd[2] - min(epd[:2]))
        gains["PSNR"].append(psnr[2] - max(psnr[:2]))
        print(
            f"{paths[number].name}: EPD {', '.join(f'{one:+.1f}' for one in epd)} %,",
            f"PSNR {', '.join(f'{one:+.2f}' for one in psnr)} dB ({time.process_time() - begun:.1f} s)",
            flush=True,
        )
    for name, values in gains.items():
        print(f"both against the better one, {name}: {interval(values)}")
    print(f"not found in both views: {left_out}")


if __name__ == "__main__":
    main()
