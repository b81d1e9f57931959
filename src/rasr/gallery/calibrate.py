"""Calibration of one gallery by its own photos: what a bad picture's best unrelated photo reaches there.

A sample of the photos is degraded, cleaned and looked up like any query. Nobody says which photos belong together. But
what a query's own photo looks like is known, so the tenth of the gallery that is most like *it*, by clean embeddings,
is taken for related, and the rest for unrelated. The rule is that of :mod:`rasr.gallery.retrieval`: thresholds by
gallery size that unrelated photos pass in one of ten queries, a similarity that they pass in one of a hundred, and a
margin that hardly any good match falls short of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rasr.errors import GalleryError, PictureError
from rasr.gallery.database import now
from rasr.gallery.gallery import Gallery
from rasr.gallery.retrieval import SMALL_GALLERY, Calibration, calibration_of_gallery
from rasr.gallery.search import CleanQuery
from rasr.images import FloatImage, Picture, read_picture
from rasr.progress import Progress

Degrade = Callable[[FloatImage, str], Sequence[FloatImage]]
"""``degrade(pixels, name)``: low-quality versions of a photo (H, W, 3). Handed in, as galleries know no degradation."""

SAMPLE = 60
"""Photos that are degraded and looked up, if there are as many."""
FEWEST = 30
"""Photos a gallery must have: below, a sample of its own says less than the figures that come with the encoder."""
RELATED = 0.10
"""Share of the gallery that counts as related to a photo: those most like it (docs/retrieval.md on other shares)."""
TARGET, SURE, LOST = 0.10, 0.01, 0.01
"""Of queries: that may find an unrelated photo good enough, and surely so; of good matches, that may lack margin."""
SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000)
DRAWS = 10
"""Random galleries of each size, for every query."""


def calibrate(
    gallery: Gallery,
    degrade: Degrade,
    *,
    clean: CleanQuery | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Measure this gallery's calibration, keep it with the gallery, and return it.

    ``clean`` is what :func:`rasr.gallery.retrieve` gets. Photos that are near-duplicates or cannot be read are passed
    over. Raises GalleryError for fewer than :data:`FEWEST` photos, and what reading and writing a gallery raise.
    """
    photos, vectors = gallery.embeddings()
    if len(photos) < FEWEST:
        raise GalleryError(
            f"The gallery {gallery.address} has {len(photos)} photos; to calibrate takes at least {FEWEST}. "
            "The figures that come with its encoder are used."
        )
    random = np.random.default_rng(seed)
    scores: list[NDArray[np.float32]] = []
    own: list[int] = []
    for row in random.permutation(len(photos)).tolist():
        if len({*own}) == sample:
            break
        photo = photos[row]
        if photo.near_duplicate_of:
            continue
        try:
            pixels = read_picture(photo.path).opaque()
        except PictureError:
            continue
        pictures = [Picture(np.ascontiguousarray(low)) for low in degrade(pixels, photo.id)]
        for query in gallery.prepare(pictures, clean=clean):
            scores.append(vectors @ query.embedding)
            own.append(row)
        if progress:
            progress("queries", len({*own}), min(sample, len(photos)))
    if not scores:
        raise GalleryError(f"No photo of {gallery.address} could be read: nothing was calibrated.")
    table = figures(np.array(scores), np.array(own), vectors, random)
    facts = {"encoder": gallery.encoder.fingerprint, "photos": len(photos), "queries": len(scores), "measured": now()}
    gallery.calibration = json.dumps({**table, **facts})
    found = calibration_of_gallery(gallery)
    assert found is not None  # noqa: S101  (narrowing: just written, for this encoder)
    return found


def figures(
    scores: NDArray[np.float32], own: NDArray[np.intp], vectors: NDArray[np.float32], random: np.random.Generator
) -> dict[str, object]:
    """Thresholds, margin and sure from queries' scores (Q, N), rows of their own photos (Q,) and vectors (N, D)."""
    count = len(vectors)
    likeness = vectors[own] @ vectors.T  # of the clean photos
    likeness[np.arange(len(own)), own] = np.inf
    unrelated = likeness.argsort(axis=1)[:, : count - 1 - int(RELATED * count)]
    reached = np.take_along_axis(scores, unrelated, axis=1)
    sizes = [size for size in SIZES if size < reached.shape[1]] + [reached.shape[1]]
    thresholds = []
    for size in sizes:
        best = [random.permuted(reached, axis=1)[:, :size].max(axis=1) for _ in range(DRAWS)]
        thresholds.append([size, float(np.quantile(np.concatenate(best), 1 - TARGET))])
    sure = float(np.quantile(reached.max(axis=1), 1 - SURE))
    return {
        "thresholds": [[size, round(value, 4)] for size, value in thresholds],
        "margin": round(_margin(scores, own, likeness), 4),
        "sure": round(max(sure, thresholds[-1][1]), 4),
    }


def _margin(scores: NDArray[np.float32], own: NDArray[np.intp], likeness: NDArray[np.float32]) -> float:
    """How far all but few best matches stand above the median in the hardest gallery: the photo's own likes alone."""
    others = scores.copy()
    others[np.arange(len(own)), own] = -np.inf
    likes = (-likeness).argsort(axis=1)[:, 1 : 1 + SMALL_GALLERY]
    among = np.take_along_axis(others, likes, axis=1)
    return max(0.0, float(np.quantile(among.max(axis=1) - np.median(among, axis=1), LOST)))
