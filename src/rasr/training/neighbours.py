"""For every training photo, the most similar other photos, found once by the gallery and remembered."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rasr.errors import ConfigError, PictureError
from rasr.home import cache_dir
from rasr.training.photos import Photo

__all__ = ["Neighbour", "find_neighbours"]

Neighbour = tuple[str, float]
"""Path and cosine similarity."""

CHUNK = 64


def find_neighbours(
    targets: Sequence[Photo],
    pool: Sequence[Path],
    *,
    gallery: Path | None,
    encoder: str | None,
    top_k: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Neighbour]]:
    """The ``top_k`` gallery photos most similar to each target, best first; fewer where the gallery has fewer.

    ``gallery`` is a gallery or a folder of photos; without one the photos of ``pool`` become a gallery in the cache
    folder. The target itself and photos that show the same picture (near-duplicates) are excluded by the gallery's leak
    guard. The answer is kept in the cache folder. Raises ConfigError when there is nothing to retrieve from.
    """
    from rasr.gallery import Gallery, open_gallery_or_folder

    if gallery is None and len(pool) < 2:
        raise ConfigError(
            f"references: there are {len(pool)} photos to retrieve from. Name a references.gallery, add photos, or set "
            "'retrieved' to 0 in the mix."
        )
    if gallery is not None:
        opened = open_gallery_or_folder(gallery, encoder=encoder)
    else:
        key = _digest([str(path) for path in pool], encoder)
        opened = Gallery(cache_dir("training") / f"gallery-{key}", encoder=encoder)
        opened.add(pool)
    info = opened.info()
    if not info.photos:
        raise ConfigError(f"references.gallery: {gallery or 'the training photos'} holds no photo to retrieve.")
    key = _digest([photo.identity for photo in targets], info.path, info.version, info.fingerprint, top_k)
    remembered = cache_dir("training") / f"neighbours-{key}.json"
    try:
        stored: list[list[Neighbour]] = [[(p, s) for p, s in row] for row in json.loads(remembered.read_text("utf-8"))]
    except (OSError, ValueError):
        stored = []
    if len(stored) == len(targets):
        return stored
    rows: list[list[Neighbour]] = []
    for start in range(0, len(targets), CHUNK):
        rows += _search(opened, targets[start : start + CHUNK], top_k)
        if progress:
            progress(len(rows), len(targets))
    part = remembered.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(rows), encoding="utf-8")
    part.replace(remembered)
    return rows


def _search(gallery: object, photos: Sequence[Photo], top_k: int) -> list[list[Neighbour]]:
    paths = [photo.path for photo in photos]
    options = {"exclude": paths if len(paths) == 1 else (), "exclude_near_duplicates": True}
    try:
        answers = gallery.search_many(paths, top_k, **options)  # type: ignore[attr-defined]  # a Gallery, imported lazily
    except PictureError:
        if len(photos) == 1:  # an unreadable photo has no neighbours; it is named when it is drawn
            return [[]]
        return [row for photo in photos for row in _search(gallery, [photo], top_k)]
    return [
        [(str(r.path), float(r.score)) for r in answer if r.path.resolve() != p.resolve()]
        for p, answer in zip(paths, answers, strict=True)
    ]


def _digest(*parts: object) -> str:
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=16).hexdigest()
