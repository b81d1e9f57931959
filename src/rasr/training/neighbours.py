"""Neighbours: the most similar other photos of every training photo, found once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rasr.errors import ConfigError, PictureError
from rasr.home import cache_dir
from rasr.training.photos import TrainingPhoto, remembered

if TYPE_CHECKING:
    from rasr.gallery import Gallery

__all__ = ["find_neighbours"]

Neighbour = tuple[str, float]
"""Path and cosine similarity."""

CHUNK = 64


def find_neighbours(
    targets: Sequence[TrainingPhoto], own: Sequence[Path], *, gallery: Path | None, encoder: str | None, top_k: int
) -> list[list[Neighbour]]:
    """Find the ``top_k`` photos most similar to each target: path and cosine, best first.

    ``gallery`` is a gallery or a folder of photos; without one the photos ``own`` become a gallery in the cache folder.
    The target itself and photos that show the same picture (near-duplicates) are excluded by the gallery's leak guard,
    and a gallery with fewer photos gives fewer. The answer is kept in the cache folder. Raises ConfigError when there
    is nothing to retrieve from.
    """
    from rasr.gallery import Gallery, open_gallery_or_folder

    if gallery is not None:
        opened = open_gallery_or_folder(gallery, encoder=encoder)
    elif len(own) < 2:
        raise ConfigError(
            f"references: there are {len(own)} photos to retrieve from. Name a references.gallery, add photos, or set "
            "'retrieved' to 0 in the mix."
        )
    else:
        key = _digest([str(path) for path in own], encoder)
        opened = Gallery(cache_dir("training") / f"photos-{key}", encoder=encoder)
        opened.add(own)
    info = opened.info()
    if not info.photos:
        raise ConfigError(f"references.gallery: {gallery or 'the training photos'} holds no photo to retrieve.")
    key = _digest([photo.identity for photo in targets], info.path, info.version, info.fingerprint, top_k)
    paths = [photo.path for photo in targets]
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    rows = remembered(
        f"neighbours-{key}", len(targets), lambda: [row for chunk in chunks for row in _search(opened, chunk, top_k)]
    )
    return [[(path, score) for path, score in row] for row in rows]


def _search(gallery: Gallery, paths: Sequence[Path], top_k: int) -> list[list[Neighbour]]:
    exclude = paths if len(paths) == 1 else ()
    try:
        answers = gallery.search_many(paths, top_k, exclude=exclude, exclude_near_duplicates=True)
    except PictureError:
        if len(paths) == 1:  # an unreadable photo has no neighbours; it is named when it is drawn
            return [[]]
        return [row for path in paths for row in _search(gallery, [path], top_k)]
    return [
        [(str(r.path), float(r.score)) for r in answer if r.path.resolve() != path.resolve()]
        for path, answer in zip(paths, answers, strict=True)
    ]


def _digest(*parts: object) -> str:
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=16).hexdigest()
