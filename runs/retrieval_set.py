"""Photo set of the retrieval recipes: photos, degraded queries and cached embeddings.

A photo set is a folder with ``manifest.csv`` (columns id, category, split) and ``SPLIT/CATEGORY/ID.*`` below it.
Queries are made from every photo; the photo itself is left out of the gallery when its own query is answered.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.degrade import crop_to_multiple, degrade
from rasr.files import hash_json
from rasr.gallery.encoders import Encoder
from rasr.images import FloatImage, resize

KINDS = ("clean", "crop", "whole", "light")
"""clean: the photo itself. crop: its centre 512×512 px, degraded by ``realesrgan`` ×4 to 128×128. whole: all of it, at
long side 1024, degraded by ``realesrgan`` ×4 to long side 256. light: all of it, at 1024, degraded by ``light`` ×4."""
CROP, LONG_SIDE = 512, 1024


@dataclass(frozen=True, slots=True)
class Photo:
    """Row of the manifest."""

    id: str
    category: str
    split: str
    path: Path

    def read(self) -> FloatImage:
        """Read the photo, (H, W, 3) float32 in [0, 1]."""
        with Image.open(self.path) as image:
            return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)


def photos(root: Path, *, misc: bool = False) -> list[Photo]:
    """List the photos, sorted; ``misc``, in which nothing belongs together, only on request."""
    with (root / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if misc or row["category"] != "misc"]
    found = [
        Photo(r["id"], r["category"], r["split"], next((root / r["split"] / r["category"]).glob(f"{r['id']}.*")))
        for r in rows
    ]
    return sorted(found, key=lambda photo: photo.id)


def query(photo: Photo, kind: str, seed: int) -> FloatImage:
    """Make the low-quality picture that asks for ``photo``'s like."""
    pixels = photo.read()
    if kind == "clean":
        return pixels
    height, width = pixels.shape[:2]
    if kind == "crop":
        side = min(CROP, height // 4 * 4, width // 4 * 4)
        top, left = (height - side) // 2, (width - side) // 2
        return degrade(pixels[top : top + side, left : left + side], seed=seed, name=photo.id)[0]
    shrink = LONG_SIDE / max(height, width)
    small = resize(pixels, (round(width * shrink), round(height * shrink)), filter="lanczos").clip(0, 1)
    preset = "light" if kind == "light" else "realesrgan"
    return degrade(crop_to_multiple(small, 4), preset=preset, seed=seed, name=photo.id)[0]


def embeddings(
    encoder: Encoder, key: str, photos_: Sequence[Photo], pixels: Callable[[Photo], FloatImage], cache: Path
) -> NDArray[np.floating]:
    """Embed ``pixels(photo)`` of every photo, (N, D), kept by ``key``, encoder and photos."""

    def embed() -> NDArray[np.float32]:
        return np.concatenate([encoder.embed(encoder.preprocess(pixels(photo))[None]) for photo in photos_])

    return kept(embed, key, encoder, photos_, cache)


def kept(
    make: Callable[[], NDArray[np.floating]], key: str, encoder: Encoder, photos_: Sequence[Photo], cache: Path
) -> NDArray[np.floating]:
    """Return what ``make`` makes of photos with an encoder, made once and kept in ``cache``."""
    which = hash_json([CROP, LONG_SIDE, [(photo.id, photo.path.stat().st_size) for photo in photos_]])[:16]
    path = cache / "embeddings" / encoder.fingerprint.replace("/", "_") / f"{key}-{which}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, make())
    stored: NDArray[np.floating] = np.load(path)
    return stored


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Make the options that all retrieval scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"), help="folder with manifest.csv")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/retrieval"), help="where to keep what is slow to make"
    )
    parser.add_argument("--encoder", default="effnet-lite0")
    return parser
