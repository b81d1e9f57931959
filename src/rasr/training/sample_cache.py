"""Cache of views cut, degraded and cleaned once, and cut into samples again and again.

A cleaner costs several times what the network behind it costs to train. So its pictures are made once for a fixed
number of views (``data.pool``), in batches on the training device, and every sample is cut from one of them, mirrored
and turned in one of eight ways. What is in the cache is a function of the photos, the seed and the settings; an
interrupted one goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rasr.errors import PictureError
from rasr.files import atomic_write, cache_dir, sha256_file
from rasr.gallery.encoders import Encoder
from rasr.generator.rrdbnet import load_rrdbnet
from rasr.training.config import TrainingConfig
from rasr.training.photos import DecodedPhotos, TrainingPhoto
from rasr.training.rng import generator_for
from rasr.training.views import Box, Pixels, degraded, to_8_bit
from rasr.weights import require

BATCH = 8
TRIES = 50


@dataclass(frozen=True, slots=True)
class View:
    """View of the cache."""

    position: int
    """Of the photo in the list of photos."""
    box: Box
    lq: Pixels
    """(side / scale, side / scale, 3)."""
    base: Pixels | None
    """The cleaner's picture of it, (side, side, 3)."""
    embedding: NDArray[np.float32] | None
    """Of the LQ, (D,), for models with a semantic context."""


@dataclass(frozen=True, slots=True)
class SampleCache:
    """Finished cache; cheap to send to data-loading processes, which map its files."""

    folder: Path
    count: int
    side: int
    cleaned: bool
    encoder: str = ""

    @classmethod
    def prepare(
        cls,
        config: TrainingConfig,
        photos: Sequence[TrainingPhoto],
        decoded: DecodedPhotos,
        *,
        clean: Callable[[Pixels], Pixels] | None,
        encoder: Encoder | None,
        log: Callable[[str], None],
    ) -> SampleCache:
        """Make ``data.pool`` views of ``data.pool_side``, or find them in the cache folder.

        ``clean`` is the config's cleaner, if it has one; ``encoder`` embeds the LQ of every view, for models with a
        semantic context. Photos are used in turn, those that cannot be read are passed over. Raises PictureError when
        none can be read.
        """
        data, cleaner = config.data, config.model.cleaner
        settings: dict[str, Any] = {
            "photos": [photo.identity for photo in photos],
            "data": data.model_dump(include={"pool", "pool_side", "scale", "degradation", "usm", "long_side"}),
            "seed": config.seed,
            "cleaner": cleaner,
            "dtype": str(_cleaner_dtype(config)) if cleaner != "none" else "",
        }
        if cleaner == "realesrgan-tuned":
            settings["tuned"] = sha256_file(require(cleaner))
        digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=12).hexdigest()
        folder = cache_dir("training") / f"pool-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        cache = cls(folder, data.pool, data.pool_side, clean is not None, encoder.name if encoder else "")
        _make_views(cache, config, photos, decoded, clean, log)
        if encoder and not (file := folder / f"{encoder.name}.npy").is_file():
            lq, rows = cache._array("lq"), []
            for start in range(0, cache.count, 4 * BATCH):
                pictures = lq[start : start + 4 * BATCH].astype(np.float32) / 255
                rows.append(encoder.embed(np.stack([encoder.preprocess(picture) for picture in pictures])))
            with atomic_write(file, overwrite=True) as stream:
                np.save(stream, np.concatenate(rows).astype(np.float32))
        return cache

    def view(self, number: int) -> View:
        """Return view ``number`` of ``count``."""
        position, left, top = self._array("places")[number].tolist()
        base = self._array("base")[number] if self.cleaned else None
        embedding = np.array(self._array(self.encoder)[number]) if self.encoder else None
        return View(position, Box(left, top, self.side), self._array("lq")[number], base, embedding)

    def _array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array


def batch_cleaner(config: TrainingConfig, device: torch.device) -> Callable[[Pixels], Pixels]:
    """Load the config's cleaner for batches on a device: LQ (N, h, w, 3) → (N, 4h, 4w, 3).

    Raises WeightsMissing or WeightsCorrupt.
    """
    cleaner, dtype = config.model.cleaner, _cleaner_dtype(config)
    network = load_rrdbnet(tuned=require(cleaner) if cleaner == "realesrgan-tuned" else None).to(device, dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs

    def clean(lq: Pixels) -> Pixels:
        with torch.inference_mode():
            planes = torch.from_numpy(np.ascontiguousarray(lq)).permute(0, 3, 1, 2).to(device).div(255)
            restored = network(planes.to(dtype, memory_format=torch.channels_last)).float().clamp(0, 1)
            rounded: Pixels = restored.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return rounded

    return clean


def _cleaner_dtype(config: TrainingConfig) -> torch.dtype:
    return torch.bfloat16 if config.loop.precision == "bf16" else torch.float32


def _make_views(
    cache: SampleCache,
    config: TrainingConfig,
    photos: Sequence[TrainingPhoto],
    decoded: DecodedPhotos,
    clean: Callable[[Pixels], Pixels] | None,
    log: Callable[[str], None],
) -> None:
    state = cache.folder / "made"
    made = int(state.read_text("ascii")) if state.is_file() else 0
    if made >= cache.count:
        log(f"pool: {cache.count} views of {cache.side} px, made before")
        return
    log(f"pool: making {cache.count - made} of {cache.count} views of {cache.side} px, kept in {cache.folder}")
    side, small, mode = cache.side, cache.side // config.data.scale, "r+" if made else "w+"
    kinds: dict[str, tuple[type, tuple[int, ...]]] = {"places": (np.int32, (3,)), "lq": (np.uint8, (small, small, 3))}
    if cache.cleaned:
        kinds["base"] = (np.uint8, (side, side, 3))
    arrays = {
        name: np.lib.format.open_memmap(cache.folder / f"{name}.npy", mode, kind, (cache.count, *shape))
        for name, (kind, shape) in kinds.items()
    }
    while made < cache.count:
        numbers = range(made, min(made + BATCH, cache.count))
        for number in numbers:
            arrays["places"][number], arrays["lq"][number] = _degraded(number, photos, decoded, config)
        if clean is not None:
            arrays["base"][made : numbers.stop] = clean(arrays["lq"][made : numbers.stop])
        made = numbers.stop
        for array in arrays.values():
            array.flush()
        state.write_text(str(made), "ascii")
        if made % (BATCH * 25) == 0:
            log(f"pool: {made} of {cache.count}")


def _degraded(
    number: int, photos: Sequence[TrainingPhoto], decoded: DecodedPhotos, config: TrainingConfig
) -> tuple[tuple[int, int, int], Pixels]:
    """Cut and degrade view ``number``: (photo, left, top) and the LQ."""
    side = config.data.pool_side
    random = generator_for(config.seed, "view", number)
    position = number % len(photos)
    for _ in range(TRIES):
        try:
            pixels = decoded.read(photos[position])
            if min(pixels.shape[:2]) >= side:
                break
        except PictureError:
            pass
        position = int(random.integers(len(photos)))
    else:
        raise PictureError(f"{TRIES} photos in a row cannot be used. The last: {photos[position].path}")
    box = Box.anywhere(random, pixels, side)
    lq = degraded(box.cut(pixels), config.data, seed=config.seed, name=f"{photos[position].path.name}@{number}")
    return (position, box.left, box.top), to_8_bit(lq)
