"""The project's own comparison (``make benchmark``).

Bicubic, Real-ESRGAN as published, and the default preset under four reference policies.

With a photo set at ``../shared/photos`` (``test/`` and ``train/``, folders of categories): the centre 512×512 of every
test photo, degraded ×4 with seed 0; references from ``train``. Without it: halves of scikit-image's installed photos,
the left half tested, the right half in the gallery. Resumes where it was interrupted.

    python benchmarks/compare_methods.py [--photos DIR] [--out DIR] [further options of rasr evaluate]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from rasr.cli.main import main

METHODS = ("bicubic", "realesrgan", "mini")
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "hubble_deep_field.jpg",
           "retina.jpg", "ihc.png", "moon.png", "grass.png", "brick.png", "gravel.png")  # fmt: skip


def packaged_photos(folder: Path) -> tuple[Path, Path]:
    """Left and right halves of scikit-image's photos: (test folder, gallery folder)."""
    import skimage.data

    source = Path(skimage.data.__file__).parent
    test, gallery = folder / "test", folder / "gallery"
    for side, place in (("left", test), ("right", gallery)):
        place.mkdir(parents=True, exist_ok=True)
        for name in SAMPLES:
            target = place / f"{Path(name).stem}.png"
            if not target.exists():
                pixels = np.asarray(Image.open(source / name).convert("RGB"))
                middle = pixels.shape[1] // 2
                Image.fromarray(pixels[:, :middle] if side == "left" else pixels[:, middle:]).save(target)
    return test, gallery


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path(__file__).parents[1] / ".." / "shared" / "photos")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    options, further = parser.parse_known_args()
    if (options.photos / "test").is_dir() and (options.photos / "train").is_dir():
        tested, references, crop = options.photos / "test", options.photos / "train", 512
    else:
        tested, references = packaged_photos(options.out / "photos")
        crop = 192
    print(f"Testing on {tested}, references from {references}, centre {crop}×{crop}", file=sys.stderr)
    begun = time.monotonic()
    arguments = ["evaluate", str(tested), "-g", str(references), "--crop", str(crop), "--scale", "4", "--seed", "0"]
    arguments += ["--baseline", "realesrgan"]  # what mini builds on
    for method in METHODS:
        arguments += ["--method", method]
    try:
        main([*arguments, "-o", str(options.out / "results"), *further])
    finally:
        print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
