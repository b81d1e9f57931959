"""Does it pay to restore a query before it is embedded? The measurement behind ``--query-restore auto``.

    python -m benchmarks.retrieval_query_restore [--kinds crop whole] [--split test]

For every way of treating the low-quality query: P@1 over categories (is the best match of the query's category?),
P@5 (share of the five best), and how often the photo itself is found when it is in the gallery. The gallery is the
whole set, without the query's own photo except for the last figure. Restored pictures are kept in --cache: making them
takes about two seconds each, once.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from rasr.files import sha256_file
from rasr.gallery.encoders import load_encoder
from rasr.generator import clean_query, load_generator
from rasr.generator.protocol import GenerationSettings, Generator
from rasr.images import FloatImage, resize
from rasr.weights import require
from runs import machine
from runs.retrieval_set import Photo, arguments, embeddings, photos, query


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


@functools.cache
def tuned_version() -> str:
    """Of the layers of ``mini``: what is kept of their making carries it."""
    return sha256_file(require("mini"))[:8]


@functools.cache
def _generator(name: str) -> Generator:
    return load_generator(name)


def filtered(pixels: FloatImage, how: ImageFilter.Filter) -> FloatImage:
    """A Pillow filter on 8-bit levels."""
    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).filter(how)
    return np.asarray(image, np.float32) / np.float32(255)


def halved(pixels: FloatImage) -> FloatImage:
    """Half the size: noise and compression go, fine detail was not there anyway."""
    return resize(pixels, (max(1, pixels.shape[1] // 2), max(1, pixels.shape[0] // 2))).clip(0, 1)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length 1."""
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def main() -> None:
    """Print one table per kind of query."""
    parser = arguments(__doc__)
    parser.add_argument("--kinds", nargs="+", default=["crop", "whole"])
    parser.add_argument("--split", default="", help="only queries of this split (the gallery is always everything)")
    parser.add_argument("--limit", type=int, default=0, help="only the first so many queries")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    everything = photos(options.photos)
    asked = [p for p in everything if options.split in {"", p.split}][: options.limit or None]
    index = np.array([everything.index(photo) for photo in asked])
    category = np.array([photo.category for photo in everything])
    gallery = embeddings(encoder, "clean", everything, Photo.read, options.cache)
    print(f"{encoder.fingerprint}\n{len(asked)} queries, {len(everything)} photos; {machine()}")

    for kind in options.kinds:

        def made(name: str, pixels: Callable[[Photo], FloatImage], kind: str = kind) -> NDArray[np.float32]:
            key = f"{kind}-0-{options.split}{name}"
            return embeddings(encoder, key, asked, pixels, options.cache)

        def lq(photo: Photo, kind: str = kind) -> FloatImage:
            return query(photo, kind, 0)

        def clean(photo: Photo, cleaner: str = "realesrgan", kind: str = kind) -> FloatImage:
            return restored(photo, kind, 0, options.cache, cleaner)

        start = time.perf_counter()
        plain = made("", lq)
        better = made("-restored", clean)
        ways = {
            "as it is": plain,
            "Real-ESRGAN": better,
            "Real-ESRGAN, tuned": made(f"-tuned-{tuned_version()}", lambda p: clean(p, "mini")),
            "as rasr search does": made(f"-search-{tuned_version()}", lambda p: clean_query(lq(p), encoder.input_size)),
            "mean of both": unit(plain + better),
            "Real-ESRGAN, halved": made("-restored-halved", lambda p: halved(clean(p))),
            "median 3×3": made("-median", lambda p: filtered(lq(p), ImageFilter.MedianFilter(3))),
            "Gauss 1 px": made("-gauss", lambda p: filtered(lq(p), ImageFilter.GaussianBlur(1))),
            "halved": made("-halved", lambda p: halved(lq(p))),
        }
        print(f"\n{kind} ({time.perf_counter() - start:.0f} s)\n{'':22}P@1    P@5    itself")
        for way, vectors in ways.items():
            scores = vectors @ gallery.T
            itself = (scores.argmax(axis=1) == index).mean()
            scores[np.arange(len(index)), index] = -np.inf
            order = np.argsort(-scores, axis=1)
            hits = category[order] == category[index][:, None]
            print(f"{way:22}{hits[:, 0].mean():.3f}  {hits[:, :5].mean():.3f}  {itself:.3f}")


if __name__ == "__main__":
    main()
