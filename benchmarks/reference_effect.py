"""What a reference of the same scene gives: the truth itself, the same place seen from elsewhere, a stereo partner.

    python benchmarks/reference_effect.py [--photos DIR] [--count 12]

The centre 512×512 of ``--count`` photos spread over DIR, degraded ×4 (``realesrgan``, seed 0), is restored by the
default generator without a reference, with the truth, and with a warped view of its surroundings: shifted by up to a
quarter, turned by up to 15°, up to 1.4 times further, recoloured. The stereo pair is scikit-image's: the left photo is
degraded as in ``rasr demo``, the right one is the reference. Differences to no reference, mean ± 1.96 standard errors.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

import rasr
from rasr.degrade import degrade
from rasr.evaluation.metrics import load_metric
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import FloatImage, read_picture
from rasr.training.photos import DecodedPhotos, find_photos
from rasr.training.views import Box, warped_view

SIDE = 512
METRICS = ("EPD", "PSNR", "SSIM")
Pixels = NDArray[np.uint8]
Rows = dict[str, list[float]]


def save(pixels: Pixels, path: Path) -> Path:
    """As PNG."""
    Image.fromarray(pixels).save(path)
    return path


def scores(restorer: rasr.Restorer, truth: FloatImage, references: dict[str, Path], name: str, work: Path) -> Rows:
    """EPD, PSNR and SSIM by reference; "none" is always among them."""
    lq = degrade(truth, preset="realesrgan", scale=4, seed=0, name=name)[0]
    low = save(np.rint(lq * 255).astype(np.uint8), work / f"{name}-low.png")
    metrics = [load_metric(metric, MeasuringProtocol()) for metric in METRICS]
    found = {}
    for kind, reference in {"none": "none", **references}.items():
        pixels = restorer(low, reference=reference).picture.pixels
        rounded = np.rint(pixels.clip(0, 1) * 255).astype(np.float32) / 255
        found[kind] = [metric.measure(rounded, truth) for metric in metrics]
    low.unlink()
    return found


def report(rows: list[Rows]) -> None:
    """Print the differences to no reference."""
    none = np.array([row["none"] for row in rows])
    print(f"{'none':8} " + ", ".join(f"{n} {v:.3f}" for n, v in zip(METRICS, none.mean(0), strict=True)))
    for kind in rows[0]:
        if kind == "none":
            continue
        values = np.array([row[kind] for row in rows])
        relative, gain = (values[:, 0] / none[:, 0] - 1) * 100, values - none
        wide = 1.96 / max(len(rows) - 1, 1) ** 0.5
        print(
            f"{kind:8} EPD {relative.mean():+.1f} % ± {wide * relative.std():.1f}, PSNR {gain[:, 1].mean():+.2f} ± "
            f"{wide * gain[:, 1].std():.2f} dB, SSIM {gain[:, 2].mean():+.3f}"
        )


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path(__file__).parents[1] / ".." / "shared" / "photos" / "extra")
    parser.add_argument("--of", type=int, default=36, help="photos held out of training, of which --count are used")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/out/reference-effect"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    restorer = rasr.Restorer()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {restorer.generator.info.name}, {restorer.generator.info.device}")
    stereo = Path(skimage.data.__file__).parent
    left = read_picture(stereo / "motorcycle_left.png").pixels[:500, :740]
    print("stereo pair, 740×500:")
    right = {"right": stereo / "motorcycle_right.png"}
    report([scores(restorer, np.ascontiguousarray(left), right, "motorcycle", options.work)])
    if not options.photos.is_dir():
        return
    held = find_photos([options.photos], "folder", smallest=SIDE).spread(options.of)
    decoded, rows = DecodedPhotos(gigabytes=0.5, long_side=1440), []
    for number, photo in enumerate(held[:: max(1, len(held) // options.count)][: options.count]):
        pixels = decoded.read(photo)
        box = Box.centre(pixels, SIDE)
        truth = box.cut(pixels)
        references = {
            "truth": save(truth, options.work / "truth.png"),
            "warped": save(warped_view(np.random.default_rng(number), pixels, box), options.work / "warped.png"),
        }
        rows.append(scores(restorer, truth / np.float32(255), references, photo.path.stem, options.work))
    print(f"{len(rows)} photos held out of training, 512×512:")
    report(rows)


if __name__ == "__main__":
    main()
