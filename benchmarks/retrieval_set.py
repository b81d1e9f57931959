"""The photos, degraded queries and cached embeddings that the retrieval benchmarks share.

A photo set is a folder with ``manifest.csv`` (columns id, category, split) and ``SPLIT/CATEGORY/ID.*`` below it.
Queries are made from every photo; the photo itself is left out of the gallery when its own query is answered.
"""

from __future__ import annotations

import argparse
import csv
import functools
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.degrade import crop_to_multiple, degrade
from rasr.files import sha256_file
from rasr.gallery.encoders import Encoder
from rasr.generator.presets import load_generator
from rasr.generator.protocol import GenerationSettings, Generator
from rasr.images import FloatImage, resize
from rasr.weights import require

KINDS = ("clean", "crop", "whole", "light")
"""clean: the photo itself. crop: its centre 512×512 px, degraded by ``realesrgan`` ×4 to 128×128. whole: all of it, at
long side 1024, degraded by ``realesrgan`` ×4 to long side 256. light: all of it, at 1024, degraded by ``light`` ×4."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One row of the manifest."""

    id: str
    category: str
    split: str
    path: Path

    def read(self) -> FloatImage:
        """(H, W, 3) float32 in [0, 1]."""
        with Image.open(self.path) as image:
            return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)


def photos(root: Path, *, misc: bool = False) -> list[Photo]:
    """Every photo of the set, sorted; the category ``misc``, in which nothing belongs together, only on request."""
    with (root / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if misc or row["category"] != "misc"]
    found = [
        Photo(r["id"], r["category"], r["split"], next((root / r["split"] / r["category"]).glob(f"{r['id']}.*")))
        for r in rows
    ]
    return sorted(found, key=lambda photo: photo.id)


def query(photo: Photo, kind: str, seed: int) -> FloatImage:
    """The low-quality picture that asks for ``photo``'s like."""
    pixels = photo.read()
    if kind == "clean":
        return pixels
    height, width = pixels.shape[:2]
    if kind == "crop":
        side = min(512, height // 4 * 4, width // 4 * 4)
        top, left = (height - side) // 2, (width - side) // 2
        return degrade(pixels[top : top + side, left : left + side], seed=seed, name=photo.id)[0]
    shrink = 1024 / max(height, width)
    small = resize(pixels, (round(width * shrink), round(height * shrink)), filter="lanczos").clip(0, 1)
    preset = "light" if kind == "light" else "realesrgan"
    return degrade(crop_to_multiple(small, 4), preset=preset, seed=seed, name=photo.id)[0]


def restored(photo: Photo, kind: str, seed: int, cache: Path, cleaner: str = "realesrgan") -> FloatImage:
    """:func:`query` enlarged four times by Real-ESRGAN or its tuned form, kept as PNG in ``cache``."""
    tag = "" if cleaner == "realesrgan" else f"-{cleaner}-{tuned_version()}"
    path = cache / "restored" / f"{kind}-{seed}{tag}" / f"{photo.id}.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        lq = query(photo, kind, seed)
        generator = _generator(cleaner)
        answer = generator.generate(lq[None], None, generator.prepare(lq, (), GenerationSettings()))[0]
        Image.fromarray(np.rint(answer * 255).astype(np.uint8)).save(path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)


def embeddings(
    encoder: Encoder, key: str, photos_: Sequence[Photo], pixels: Callable[[Photo], FloatImage], cache: Path
) -> NDArray[np.float32]:
    """Embed ``pixels(photo)`` of every photo: (N, D), kept in ``cache`` under ``key`` and the encoder's fingerprint."""
    path = cache / "embeddings" / encoder.fingerprint.replace("/", "_") / f"{key}-{len(photos_)}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        inputs = (encoder.preprocess(pixels(photo)) for photo in photos_)
        np.save(path, np.concatenate([encoder.embed(one[None]) for one in inputs]))
    stored: NDArray[np.float32] = np.load(path)
    return stored


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options all retrieval benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"), help="folder with manifest.csv")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/retrieval"), help="where to keep what is slow to make"
    )
    parser.add_argument("--encoder", default="effnet-lite0")
    return parser


def machine() -> str:
    """Date, machine and versions, for the head of every table."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pillow", "ncnn"))
    return f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}, {packages}"


@functools.cache
def tuned_version() -> str:
    """Of the layers in ``realesrgan-tuned``: what is kept of their making carries it."""
    return sha256_file(require("realesrgan-tuned"))[:8]


@functools.cache
def _generator(name: str) -> Generator:
    return load_generator(name)
