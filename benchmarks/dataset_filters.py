"""What the dataset filters' figures mean: measured on real photos, and on the same photos made worse or copied.

    python benchmarks/dataset_filters.py [FOLDER] [--photos 110]

Prints quantiles of blur and blockiness for photos as they are, blurred, and saved at low JPEG qualities (also again at
a high one); of hash distance and cosine for copies; and the largest cosines between different photos of one category.
"""

from __future__ import annotations

import argparse
import io
import platform
import random
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from rasr.dataset.measure import blockiness, blur
from rasr.gallery.encoders import load_encoder
from rasr.gallery.photo import perceptual_hash
from rasr.images import find_pictures

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]."""
    return np.asarray(image.convert("RGB"), np.float32) / 255


def saved(image: Image.Image, quality: int) -> Image.Image:
    """The picture as a JPEG gives it back."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def worse(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """The picture, and the picture made worse."""
    yield "as it is", image
    for radius in (1, 2, 3, 5):
        yield f"blurred, sigma {radius}", image.filter(ImageFilter.GaussianBlur(radius))
    for quality in (10, 20, 30, 50, 70, 85):
        yield f"JPEG quality {quality}", saved(image, quality)
    yield "JPEG 20, then 95", saved(saved(image, 20), 95)


def copies(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Copies that a near-duplicate search should find."""
    width, height = image.size
    yield "half size", image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    yield "JPEG quality 50", saved(image, 50)
    for part in (5, 15):
        x, y = width * part // 100, height * part // 100
        yield f"cropped by {part} %", image.crop((x, y, width - x, height - y))
    yield "20 % brighter", image.point(lambda value: min(255, int(value * 1.2)))
    yield "mirrored", ImageOps.mirror(image)


def show(name: str, values: list[float]) -> None:
    """One row of quantiles."""
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    row = f"min {min(values):6.3f}  5% {low:6.3f}  median {middle:6.3f}  95% {high:6.3f}  max {max(values):6.3f}"
    print(f"{name:32} {row}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--photos", type=int, default=110)
    chosen = parser.parse_args()
    files = find_pictures([chosen.folder])
    files = random.Random(0).sample(files, min(chosen.photos, len(files)))
    encoder = load_encoder()
    figures: dict[str, list[float]] = defaultdict(list)
    known: dict[str, list[np.ndarray]] = defaultdict(list)
    for file in files:
        image = Image.open(file).convert("RGB")
        for name, changed in worse(image):
            luma = pixels(changed) @ LUMA
            figures[f"blur, {name}"].append(blur(luma))
            figures[f"blockiness, {name}"].append(blockiness(luma))
        own_hash = perceptual_hash(pixels(image))
        own = encoder.embed(encoder.preprocess(pixels(image))[None])[0]
        for name, copy in copies(image):
            figures[f"hash bits, {name}"].append((own_hash ^ perceptual_hash(pixels(copy))).bit_count())
            other = encoder.embed(encoder.preprocess(pixels(copy))[None])[0]
            figures[f"cosine, {name}"].append(float(own @ other))
        figures["cosine, another photo"] += [float(own @ other) for other in known[file.parent.name]]
        known[file.parent.name].append(own)
    print(f"{len(files)} photos; {encoder.name}; scikit-image {version('scikit-image')}; {platform.machine()}")
    for name in sorted(figures):
        show(name, figures[name])


if __name__ == "__main__":
    main()
