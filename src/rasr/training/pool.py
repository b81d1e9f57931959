"""A pool of views made once: cut, degraded and cleaned, kept on disk, and used again and again from new angles.

A cleaner costs several times what the network behind it costs to train. So its pictures are made once for a fixed
number of views, in batches on the training device, and every sample is cut from one of them, mirrored and turned in one
of eight ways. What is in a pool is a function of the photos, the seed and the settings; an interrupted pool goes on
where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from rasr.degrade import degrade_array, draw
from rasr.errors import PictureError
from rasr.files import sha256_file
from rasr.home import cache_dir
from rasr.training.config import DataConfig
from rasr.training.decoded import DecodedPhotos
from rasr.training.keyed import generator_for
from rasr.training.photos import Photo
from rasr.training.views import Box, crop_box, cut
from rasr.weights import require

if TYPE_CHECKING:
    from rasr.gallery.encoders import Encoder

__all__ = ["Clean", "Pool", "View", "batch_cleaner", "prepare_pool"]

Pixels = NDArray[np.uint8]
Say = Callable[[str], None]
Clean = Callable[[Pixels], Pixels]
"""LQ (N, h, w, 3) → what the cleaner makes of it, (N, 4h, 4w, 3)."""

BATCH = 8
TRIES = 50


@dataclass(frozen=True, slots=True)
class View:
    """One view of the pool."""

    position: int
    """Of the photo in the list of photos."""
    box: Box
    lq: Pixels
    """(side / scale, side / scale, 3)."""
    base: Pixels | None
    """What the cleaner made of it, (side, side, 3)."""
    embedding: NDArray[np.float32] | None
    """Of the LQ, (D,), for models with a semantic context."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A finished pool; cheap to send to data-loading processes, which map its files."""

    folder: Path
    count: int
    side: int
    cleaned: bool
    encoder: str = ""

    def view(self, number: int) -> View:
        """View ``number`` of ``count``."""
        position, left, top = np.load(self.folder / "places.npy", mmap_mode="r")[number].tolist()
        lq = np.load(self.folder / "lq.npy", mmap_mode="r")[number]
        base = np.load(self.folder / "base.npy", mmap_mode="r")[number] if self.cleaned else None
        embedding = None
        if self.encoder:
            embedding = np.array(np.load(self.folder / f"{self.encoder}.npy", mmap_mode="r")[number])
        return View(position, Box(left, top, self.side), lq, base, embedding)


def prepare_pool(
    photos: Sequence[Photo],
    decoded: DecodedPhotos,
    data: DataConfig,
    *,
    seed: int,
    cleaner: str,
    clean: Clean | None,
    dtype: torch.dtype,
    encoder: Encoder | None,
    say: Say,
) -> Pool:
    """Make the pool of ``data.pool`` views of ``data.pool_side``, or find it finished in the cache folder.

    ``clean`` is the cleaner called ``cleaner`` ("none" and None for none), run in ``dtype``; ``encoder`` embeds the LQ
    of every view, for models with a semantic context.

    Photos are used in turn, those that cannot be read are passed over. Raises PictureError when none can be read.
    """
    settings = {
        "photos": [photo.identity for photo in photos],
        "data": data.model_dump(include={"pool", "pool_side", "scale", "degradation", "usm", "long_side"}),
        "seed": seed,
        "cleaner": cleaner,
        "dtype": str(dtype) if cleaner != "none" else "",
    }
    if cleaner == "realesrgan-tuned":
        settings["tuned"] = sha256_file(require("realesrgan-tuned"))
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=12).hexdigest()
    folder = cache_dir("training") / f"pool-{digest}"
    pool = Pool(folder, data.pool, data.pool_side, clean is not None, encoder.name if encoder else "")
    folder.mkdir(parents=True, exist_ok=True)
    _make_views(pool, photos, decoded, data, seed=seed, clean=clean, say=say)
    if encoder is not None:
        _embed_views(pool, encoder)
    return pool


def _make_views(
    pool: Pool,
    photos: Sequence[Photo],
    decoded: DecodedPhotos,
    data: DataConfig,
    *,
    seed: int,
    clean: Clean | None,
    say: Say,
) -> None:
    state = pool.folder / "made"
    made = int(state.read_text("ascii")) if state.is_file() else 0
    if made >= pool.count:
        say(f"pool: {pool.count} views of {pool.side} px, made before")
        return
    say(f"pool: making {pool.count - made} of {pool.count} views of {pool.side} px, kept in {pool.folder}")
    places, lq, base = _files(pool, data.scale, fresh=made == 0)
    while made < pool.count:
        numbers = range(made, min(made + BATCH, pool.count))
        for number in numbers:
            places[number], lq[number] = _degraded(number, photos, decoded, data, seed)
        if clean is not None and base is not None:
            base[numbers.start : numbers.stop] = clean(lq[numbers.start : numbers.stop])
        made = numbers.stop
        for array in (places, lq, base):
            if array is not None:
                array.flush()
        state.write_text(str(made), "ascii")
        if made % (BATCH * 25) == 0:
            say(f"pool: {made} of {pool.count}")


def _embed_views(pool: Pool, encoder: Encoder) -> None:
    file = pool.folder / f"{encoder.name}.npy"
    if file.is_file():
        return
    lq = np.load(pool.folder / "lq.npy", mmap_mode="r")
    rows = []
    for start in range(0, pool.count, 4 * BATCH):
        pictures = lq[start : start + 4 * BATCH].astype(np.float32) / 255
        rows.append(encoder.embed(np.stack([encoder.preprocess(picture) for picture in pictures])))
    part = file.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as stream:
        np.save(stream, np.concatenate(rows).astype(np.float32))
    part.replace(file)


def _files(pool: Pool, scale: int, *, fresh: bool) -> tuple[np.memmap, np.memmap, np.memmap | None]:
    def mapped(name: str, shape: tuple[int, ...], kind: type) -> np.memmap:
        mode = "w+" if fresh else "r+"
        opened: np.memmap = np.lib.format.open_memmap(
            pool.folder / name, mode=mode, dtype=kind if fresh else None, shape=shape if fresh else None
        )
        return opened

    small = pool.side // scale
    places = mapped("places.npy", (pool.count, 3), np.int32)
    lq = mapped("lq.npy", (pool.count, small, small, 3), np.uint8)
    base = mapped("base.npy", (pool.count, pool.side, pool.side, 3), np.uint8) if pool.cleaned else None
    return places, lq, base


def _degraded(
    number: int, photos: Sequence[Photo], decoded: DecodedPhotos, data: DataConfig, seed: int
) -> tuple[tuple[int, int, int], Pixels]:
    """(photo, left, top) and the LQ of view ``number``."""
    random = generator_for(seed, "view", number)
    position = number % len(photos)
    for _ in range(TRIES):
        try:
            pixels = decoded.read(photos[position])
            if min(pixels.shape[:2]) >= data.pool_side:
                break
        except PictureError:
            pass
        position = int(random.integers(len(photos)))
    else:
        raise PictureError(f"{TRIES} photos in a row cannot be used. The last: {photos[position].path}")
    box = crop_box(random, pixels, data.pool_side)
    recipe = draw(
        data.degradation, scale=data.scale, seed=seed, name=f"{photos[position].path.name}@{number}", usm=data.usm
    )
    lq = degrade_array(np.divide(cut(pixels, box), 255, dtype=np.float32), recipe)
    return (position, box.left, box.top), np.rint(lq * 255).astype(np.uint8)


def batch_cleaner(cleaner: str, device: torch.device, dtype: torch.dtype) -> Clean:
    """Either Real-ESRGAN in batches on the training device. Raises WeightsMissing or WeightsCorrupt."""
    from rasr.generator.rrdbnet import load_rrdbnet

    network = load_rrdbnet(tuned=require(cleaner) if cleaner == "realesrgan-tuned" else None).to(device, dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs

    def clean(lq: Pixels) -> Pixels:
        with torch.inference_mode():
            planes = torch.from_numpy(np.ascontiguousarray(lq)).permute(0, 3, 1, 2).to(device).div(255)
            restored = network(planes.to(dtype, memory_format=torch.channels_last)).float().clamp(0, 1)
            rounded: Pixels = restored.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return rounded

    return clean
