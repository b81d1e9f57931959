"""Finding the training photos: plain folders, LSDIR's layout, RASR-Flickr30's; leaving out what cannot serve."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rasr.errors import ConfigError, PictureError
from rasr.home import cache_dir
from rasr.images import read_header, walk_pictures

__all__ = ["Photo", "PhotoSet", "find_photos"]

Layout = Literal["folder", "lsdir", "flickr30"]
LSDIR_SKIPPED = {"x2", "x3", "x4", "val", "val1"}
"""LSDIR keeps low-resolution copies and its validation set beside the training shards."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One usable photo."""

    path: Path
    width: int
    height: int
    category: str
    """Folder below the root; empty in LSDIR, whose folders are shards."""
    identity: str
    """Changes when the file does; keys the caches."""


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """The photos of a run, and what was left out."""

    targets: tuple[Photo, ...]
    gallery: tuple[Path, ...]
    """Photos that may be retrieved as references when no gallery is named."""
    left_out: tuple[str, ...]
    """One sentence each: file and reason."""


def find_photos(roots: Sequence[Path], layout: Layout, *, smallest: int) -> PhotoSet:
    """List the photos whose shorter side is at least ``smallest`` pixels, sorted by path.

    ``folder``: everything below each root, the sub-folder being the category. ``lsdir``: the same without LSDIR's
    low-resolution copies and validation set. ``flickr30``: ``species/train`` are targets and ``species/reference`` the
    gallery; ``species/test`` is never touched. Raises ConfigError when a root does not exist or nothing is usable.
    """
    found: list[tuple[Path, str]] = []
    gallery: list[Path] = []
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"data.photos: {root} is not a folder.")
        for path in _pictures_below(root):
            parts = path.relative_to(root).parts[:-1]
            if layout == "flickr30":
                split = parts[1] if len(parts) > 1 else ""
                if split == "train":
                    found.append((path, parts[0]))
                elif split == "reference":
                    gallery.append(path)
            elif layout == "lsdir":
                if not LSDIR_SKIPPED & {part.lower() for part in parts}:
                    found.append((path, ""))
            else:
                found.append((path, "/".join(parts)))
    photos, left_out = _measure(found, smallest)
    if not photos:
        reason = f" The first of {len(left_out)} left out: {left_out[0]}" if left_out else ""
        raise ConfigError(f"data.photos: no usable photo (layout {layout}) in {', '.join(map(str, roots))}.{reason}")
    own = tuple(photo.path for photo in photos)
    return PhotoSet(tuple(photos), tuple(sorted(gallery)) if layout == "flickr30" else own, tuple(left_out))


def _pictures_below(root: Path) -> list[Path]:
    try:
        return sorted(path for _, path in walk_pictures([root]))
    except PictureError as error:
        raise ConfigError(f"data.photos: {error}") from error


def _measure(found: Sequence[tuple[Path, str]], smallest: int) -> tuple[list[Photo], list[str]]:
    """Sizes from the headers, in threads, remembered in the cache folder: LSDIR alone has 85 000."""
    identities = []
    for path, _ in found:
        status = path.stat()
        identities.append(f"{path}|{status.st_size}|{status.st_mtime_ns}")
    listing = hashlib.blake2b("\n".join(identities).encode(), digest_size=16).hexdigest()
    remembered = cache_dir("training") / f"sizes-{listing}.json"
    sizes = _remembered(remembered, len(found))
    if sizes is None:
        with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
            sizes = list(pool.map(_size, [path for path, _ in found]))
        part = remembered.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(sizes), encoding="utf-8")
        part.replace(remembered)
    photos, left_out = [], []
    for (path, category), identity, size in zip(found, identities, sizes, strict=True):
        if isinstance(size, str):
            left_out.append(f"{path}: {size}" if str(path) not in size else size)
        elif min(size) < smallest:
            left_out.append(f"{path}: {size[0]}x{size[1]} pixels, smaller than the {smallest}-pixel crop.")
        else:
            key = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
            photos.append(Photo(path, size[0], size[1], category, key))
    return photos, left_out


def _remembered(path: Path, count: int) -> list[list[int] | str] | None:
    try:
        sizes: list[list[int] | str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return sizes if len(sizes) == count else None


def _size(path: Path) -> list[int] | str:
    try:
        header = read_header(path)
    except PictureError as error:
        return str(error)
    return [header.width, header.height]
