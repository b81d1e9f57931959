"""Leak check: no test picture, nor a near-duplicate of one, may be among the references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rasr.errors import LeakFound
from rasr.evaluation.inputs import TestInput
from rasr.gallery.photo import NEAR_BITS, NEAR_COSINE, content_hash, hamming, perceptual_hash
from rasr.images import read_picture
from rasr.progress import Progress

if TYPE_CHECKING:
    from rasr.gallery import Gallery

__all__ = ["Leak", "find_leaks", "refuse_leaks"]


@dataclass(frozen=True, slots=True)
class Leak:
    """A gallery photo that shows a test picture."""

    name: str
    photo: Path
    why: str
    exact: bool = False
    """Whether it is the same file, not only a near-duplicate."""


def find_leaks(inputs: Sequence[TestInput], gallery: Gallery, progress: Progress | None = None) -> list[Leak]:
    """Every gallery photo that equals a test picture by content, or nearly by perceptual hash or embedding.

    The whole original picture and the crop that is restored are both looked for.
    """
    photos = gallery.list()
    by_id = {photo.id: photo for photo in photos}
    hashes = np.array([photo.phash for photo in photos], dtype=np.uint64)
    leaks: dict[tuple[str, Path], Leak] = {}
    for done, item in enumerate(inputs):
        for path, what in ((item.source, "test picture"), (item.truth, "crop of the test picture")):
            same = by_id.get(content_hash(path.read_bytes()))
            if same:
                leaks.setdefault(
                    (item.name, same.path), Leak(item.name, same.path, f"is the {what} itself", exact=True)
                )
            picture = read_picture(path)
            distances = hamming(hashes, perceptual_hash(picture.pixels))
            for row in np.flatnonzero(distances <= NEAR_BITS):
                why = f"looks like the {what}: {distances[row]} of 64 hash bits differ"
                leaks.setdefault((item.name, photos[row].path), Leak(item.name, photos[row].path, why))
            for near in gallery.search(gallery.embedding_of(picture), 3, min_score=NEAR_COSINE):
                why = f"looks like the {what}: similarity {near.score:.3f}"
                leaks.setdefault((item.name, near.path), Leak(item.name, near.path, why))
        if progress:
            progress("leak check", done + 1, len(inputs))
    return list(leaks.values())


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raise LeakFound, naming the first three, if there are any."""
    if not leaks:
        return
    named = "; ".join(f"{leak.photo} {leak.why} '{leak.name}'" for leak in leaks[:3])
    more = f"; and {len(leaks) - 3} more" if len(leaks) > 3 else ""
    raise LeakFound(
        f"{len(leaks)} gallery photos show test pictures: {named}{more}. Remove them from the gallery, or run with "
        "--exclude-leaks, which never shows them to any method."
    )
