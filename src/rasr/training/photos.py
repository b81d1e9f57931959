"""Training photos: found, measured, kept decoded on disk, and the neighbours of each.

A crop of a memory-mapped array costs a hundredth of decoding the JPEG again. The decoded photos live in the cache
folder, are shared by all runs and processes and survive them; a damaged one is decoded again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rasr.errors import ConfigError, OutputError, PictureError
from rasr.files import atomic_write, cache_dir, parse_json, write_bytes
from rasr.gallery import Gallery, open_gallery_or_folder
from rasr.images import read_header, read_picture, resize, walk_pictures
from rasr.progress import Progress
from rasr.training.views import Pixels, to_8_bit

Layout = Literal["folder", "lsdir", "flickr30"]
Neighbour = tuple[str, float]
"""Path and cosine similarity."""

CHUNK = 64
LSDIR_SKIPPED = {"x2", "x3", "x4", "val", "val1"}
"""LSDIR keeps low-resolution copies and its validation set beside the training shards."""


@dataclass(frozen=True, slots=True)
class TrainingPhoto:
    """Photo that training can use."""

    path: Path
    category: str
    """Folder below the root; empty in LSDIR, whose folders are shards."""
    identity: str
    """Changes when the file does; keys the caches."""

    @staticmethod
    @lru_cache(maxsize=100_000)
    def at(path: str) -> TrainingPhoto:
        """Return a gallery photo."""
        try:
            identity = _identity(Path(path))
        except OSError:
            identity = path
        return TrainingPhoto(Path(path), "", _digest(identity))


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """Photos of a run, and what was left out."""

    targets: tuple[TrainingPhoto, ...]
    gallery: tuple[Path, ...]
    """Photos that may be retrieved as references when no gallery is named."""
    left_out: tuple[str, ...]
    """One sentence each: file and reason."""

    def spread(self, count: int) -> list[TrainingPhoto]:
        """Pick ``count`` targets spread evenly over the sorted list."""
        places = np.linspace(0, len(self.targets) - 1, min(count, len(self.targets)))
        return [self.targets[round(float(place))] for place in places]


def find_photos(
    roots: Sequence[Path], layout: Layout, *, smallest: int, held_out: Sequence[TrainingPhoto] = ()
) -> PhotoSet:
    """List the photos whose shorter side is at least ``smallest`` pixels, sorted by path.

    ``folder``: everything below each root, the sub-folder being the category. ``lsdir``: the same without LSDIR's
    low-resolution copies and validation set. ``flickr30``: ``species/train`` are targets and ``species/reference`` the
    gallery; ``species/test`` is never touched. Photos ``held_out`` for validation are in neither list. Raises
    ConfigError when a root does not exist or nothing is usable.
    """
    found: list[tuple[Path, str]] = []
    gallery: list[Path] = []
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"data.photos: {root} is not a folder.")
        try:
            below = sorted(path for _, path in walk_pictures([root]))
        except PictureError as error:
            raise ConfigError(f"data.photos: {error}") from error
        for path in below:
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
    usable, left_out = _measure(found, smallest)
    if not usable:
        reason = f" The first of {len(left_out)} left out: {left_out[0]}" if left_out else ""
        raise ConfigError(f"data.photos: no usable photo (layout {layout}) in {', '.join(map(str, roots))}.{reason}")
    apart = {photo.path.resolve() for photo in held_out}
    targets = tuple(photo for photo in usable if photo.path.resolve() not in apart)
    if not targets:
        raise ConfigError("validation.photos: every training photo is used for validation. Lower validation.count.")
    retrievable = sorted(gallery) if layout == "flickr30" else [photo.path for photo in targets]
    return PhotoSet(targets, tuple(path for path in retrievable if path.resolve() not in apart), tuple(left_out))


class DecodedPhotos:
    """Reader of photos as 8-bit arrays, through a cache on disk while that has room."""

    def __init__(self, *, gigabytes: float, long_side: int = 0, folder: Path | None = None) -> None:
        """``long_side`` reduces larger photos to it; 0 keeps their size."""
        self._folder = folder or cache_dir("training") / "decoded"
        self._long_side = long_side
        self._budget = int(gigabytes * 1e9)
        self._used: int | None = None

    def read(self, photo: TrainingPhoto) -> Pixels:
        """Return the photo, (H, W, 3), read-only from the cache. Raises PictureError naming it."""
        entry = self._folder / f"{photo.identity}-{self._long_side}.npy"
        try:
            cached: Pixels = np.load(entry, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EOFError):
            entry.unlink(missing_ok=True)
        else:
            return cached
        pixels = read_picture(photo.path).opaque()
        height, width = pixels.shape[:2]
        if 0 < self._long_side < max(height, width):
            factor = self._long_side / max(height, width)
            pixels = resize(pixels, (max(1, round(width * factor)), max(1, round(height * factor))))
        decoded = to_8_bit(pixels)
        self._keep(entry, decoded)
        return decoded

    def _keep(self, entry: Path, pixels: Pixels) -> None:
        """Store unless the budget is used up; on a full or read-only disk nothing is stored."""
        if not self._budget:
            return
        if self._used is None:
            self._used = sum(file.stat().st_size for file in self._folder.glob("*.npy")) if self._folder.is_dir() else 0
        if self._used + pixels.nbytes > self._budget:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(entry, overwrite=True) as file:
                np.save(file, pixels)
        except (OSError, OutputError):
            self._budget = 0
        else:
            self._used += pixels.nbytes


def find_neighbours(
    targets: Sequence[TrainingPhoto],
    own: Sequence[Path],
    *,
    gallery: Path | None,
    encoder: str | None,
    top_k: int,
    progress: Progress = lambda *_: None,
) -> list[list[Neighbour]]:
    """Find the ``top_k`` photos most similar to each target: path and cosine, best first.

    ``gallery`` is a gallery or a folder of photos; without one the photos ``own`` become a gallery in the cache folder.
    The target itself and photos that show the same picture (near-duplicates) are excluded by the gallery's leak guard,
    and a gallery with fewer photos gives fewer. The answers are kept in the cache folder, part by part: what
    ``progress`` raises ends the search, and the next one goes on. Raises ConfigError when there is nothing to retrieve
    from.
    """
    if gallery is not None:
        opened = open_gallery_or_folder(gallery, encoder=encoder)
    elif len(own) < 2:
        raise ConfigError(
            f"references: there are {len(own)} photos to retrieve from. Name a references.gallery, add photos, or set "
            "'retrieved' to 0 in the mix."
        )
    else:
        key = _digest(json.dumps([[str(path) for path in own], encoder]))
        opened = Gallery(cache_dir("training") / f"photos-{key}", encoder=encoder)
        opened.add(own, progress=lambda _stage, done, total: progress("photos indexed", done, total))
    info = opened.info()
    if not info.photos:
        raise ConfigError(f"references.gallery: {gallery or 'the training photos'} holds no photo to retrieve.")
    facts = [[photo.identity for photo in targets], info.path, info.version, info.fingerprint, top_k]
    key = _digest(json.dumps(facts, default=str))
    paths = [photo.path for photo in targets]
    rows: list[Any] = []
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        rows += _remembered(f"neighbours-{key}-{start}", len(chunk), partial(_search, opened, chunk, top_k))
        progress("photos compared", len(rows), len(paths))
    return [[(path, score) for path, score in row] for row in rows]


def _remembered(key: str, count: int, make: Callable[[], list[Any]]) -> list[Any]:
    """Return the ``count`` rows in the cache folder's ``{key}.json``, or make and keep them."""
    path = cache_dir("training") / f"{key}.json"
    try:
        stored: Any = parse_json(path.read_bytes())
    except (OSError, ValueError):
        stored = None
    if isinstance(stored, list) and len(stored) == count:
        return stored
    rows = make()
    write_bytes(json.dumps(rows).encode(), path, overwrite=True)
    return rows


def _measure(found: Sequence[tuple[Path, str]], smallest: int) -> tuple[list[TrainingPhoto], list[str]]:
    """Read sizes from the headers, in threads, once for a list: LSDIR alone has 85 000 files."""
    identities = [_identity(path) for path, _ in found]

    def measure() -> list[Any]:
        with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
            return list(pool.map(_size, [path for path, _ in found]))

    sizes = _remembered(f"sizes-{_digest(chr(10).join(identities))}", len(found), measure)
    photos, left_out = [], []
    for (path, category), identity, size in zip(found, identities, sizes, strict=True):
        if isinstance(size, str):
            left_out.append(size)
        elif min(size) < smallest:
            left_out.append(f"{path}: {size[0]}x{size[1]} pixels, smaller than the {smallest}-pixel crop.")
        else:
            photos.append(TrainingPhoto(path, category, _digest(identity)))
    return photos, left_out


def _size(path: Path) -> list[int] | str:
    try:
        header = read_header(path)
    except PictureError as error:
        return str(error)
    return [header.width, header.height]


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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
