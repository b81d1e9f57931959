"""Cache of views cut, degraded and cleaned once, and cut into samples again and again.

A cleaner costs several times what the network behind it costs to train. So its pictures are made once for a fixed
number of views (``data.pool``), in batches on the training device, and every sample is cut from one of them, mirrored
and turned in one of eight ways. What is in the cache is a function of the photos, the seed and the settings; an
interrupted one goes on where it stopped.

The first epoch asks for every view once, in an order that the seed tells. So views are made in that order, in batches
that are always the same, and training begins with the first of them while most are still to be made: which view a
sample is cut from, and what is in it, depends on numbers and never on the clock.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rasr.errors import PictureError
from rasr.files import cache_dir, sha256_file, whole_number, write_bytes
from rasr.gallery.encoders import Encoder
from rasr.generator.rrdbnet import load_rrdbnet
from rasr.training.config import TrainingConfig
from rasr.training.photos import DecodedPhotos, TrainingPhoto
from rasr.training.rng import epoch_order, generator_for
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
    """Cache on disk; cheap to send to data-loading processes, which map its files.

    A view may be asked for once its maker has made it.
    """

    folder: Path
    count: int
    side: int
    cleaned: bool
    encoder: str = ""

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
    network = load_rrdbnet(tuned=require(cleaner) if cleaner == "mini" else None).to(device, dtype)
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


class MakingStopped(Exception):
    """Raised between two batches of views when it is time to stop; what was made is kept."""


class ViewMaker:
    """Maker of a cache's views: ``data.pool`` of ``data.pool_side``, found in the cache folder or made there."""

    def __init__(
        self,
        config: TrainingConfig,
        photos: Sequence[TrainingPhoto],
        decoded: DecodedPhotos,
        *,
        clean: Callable[[Pixels], Pixels] | None,
        encoder: Encoder | None,
        log: Callable[[str], None],
    ) -> None:
        """``clean`` is the config's cleaner, if it has one; ``encoder`` embeds the LQ, for a semantic context.

        Photos are used in turn, those that cannot be read are passed over.
        """
        self._config, self._photos, self._decoded = config, photos, decoded
        self._clean, self._encoder, self._log = clean, encoder, log
        folder, count, side = _folder(config, photos), config.data.pool, config.data.pool_side
        folder.mkdir(parents=True, exist_ok=True)
        self.cache = SampleCache(folder, count, side, clean is not None, encoder.name if encoder else "")
        self.stopping: Callable[[], bool] = lambda: False
        """Asked after every batch of views; MakingStopped is raised when it says so."""
        self._order = epoch_order(config.seed, 0, count)
        small = side // config.data.scale
        self._views = _Columns(
            folder,
            "made-in-order",
            {"places": (np.int32, (3,)), "lq": (np.uint8, (small, small, 3))}
            | ({"base": (np.uint8, (side, side, 3))} if clean is not None else {}),
            count,
            whole=(folder / "made").is_file() and whole_number((folder / "made").read_text("latin-1")) == count,
        )
        self._embeddings: _Columns | None = None
        self._first, self._seconds, self._told = self._views.made, 0.0, 0.0
        kept = f"{count} views of {side} px, {self._views.made} of them made before"
        log(f"pool: {kept}" if self._views.made == count else f"pool: {kept}, kept in {folder}")

    def ensure(self, wanted: int) -> None:
        """Make what is missing of the first ``wanted`` views that samples ask for.

        Raises PictureError when no photo can be read, OutputError when the disk is full, MakingStopped.
        """
        wanted = min(wanted, self.cache.count)
        while self._views.made < wanted:
            begun = time.monotonic()
            numbers = self._order[self._views.made : self._views.made + BATCH]
            lq = self._views.arrays["lq"]
            for number in numbers:
                self._views.arrays["places"][number], lq[number] = _degraded(
                    int(number), self._photos, self._decoded, self._config
                )
            if self._clean is not None:
                self._views.arrays["base"][numbers] = self._clean(lq[numbers])
            self._views.add(len(numbers))
            self._seconds += time.monotonic() - begun
            self._tell()
            if self.stopping():
                raise MakingStopped
        if self._encoder is not None:
            self._embed(self._encoder, wanted)

    def _tell(self) -> None:
        """Say how far it is and how long the rest takes: after the first batch, then three times a minute."""
        made, count = self._views.made, self.cache.count
        if time.monotonic() - self._told < 20 and made < count:
            return
        self._told = time.monotonic()
        each = self._seconds / (made - self._first)
        left = f", {each:.2f} s each, {in_words(each * (count - made))} of making left" if made < count else ""
        self._log(f"pool: {made} of {count} views{left}")

    def _embed(self, encoder: Encoder, wanted: int) -> None:
        if self._embeddings is None:
            name, folder = encoder.name, self.cache.folder
            width = encoder.embed(self._prepared(encoder, self._order[:1])).shape[1]
            state = f"{name}-in-order"
            whole = (folder / f"{name}.npy").is_file() and not (folder / state).exists()  # as it was made before
            self._embeddings = _Columns(folder, state, {name: (np.float32, (width,))}, self.cache.count, whole=whole)
        while self._embeddings.made < wanted:
            numbers = self._order[self._embeddings.made : self._embeddings.made + BATCH]
            self._embeddings.arrays[encoder.name][numbers] = encoder.embed(self._prepared(encoder, numbers))
            self._embeddings.add(len(numbers))

    def _prepared(self, encoder: Encoder, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        pictures = self._views.arrays["lq"][numbers].astype(np.float32) / 255
        return np.stack([encoder.preprocess(picture) for picture in pictures])


class _Columns:
    """Arrays on disk that are filled row by row, and how many rows are: the count is written after the rows."""

    def __init__(
        self, folder: Path, state: str, kinds: Mapping[str, tuple[type, tuple[int, ...]]], count: int, *, whole: bool
    ) -> None:
        self._state = folder / state
        said = whole_number(self._state.read_text("latin-1")) if self._state.is_file() else None
        self.made = count if whole else min(said or 0, count)
        shapes = {name: (np.dtype(kind), (count, *shape)) for name, (kind, shape) in kinds.items()}
        try:
            self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in shapes}
            fit = all((array.dtype, array.shape) == shapes[name] for name, array in self.arrays.items())
        except (OSError, ValueError, EOFError):
            fit = False
        if not fit or not self.made:  # nothing, or what belongs to no count
            self.made = 0
            self.arrays = {
                name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, shape)
                for name, (kind, shape) in shapes.items()
            }

    def add(self, rows: int) -> None:
        """Count rows that were written. Raises OutputError."""
        self.made += rows
        for array in self.arrays.values():
            array.flush()
        write_bytes(str(self.made).encode(), self._state, overwrite=True)


def _folder(config: TrainingConfig, photos: Sequence[TrainingPhoto]) -> Path:
    """Folder of the cache that belongs to these photos and settings."""
    data, cleaner = config.data, config.model.cleaner
    settings: dict[str, Any] = {
        "photos": [photo.identity for photo in photos],
        "data": data.model_dump(include={"pool", "pool_side", "scale", "degradation", "usm", "long_side"}),
        "seed": config.seed,
        "cleaner": cleaner,
        "dtype": str(_cleaner_dtype(config)) if cleaner != "none" else "",
    }
    if cleaner == "mini":
        settings["tuned"] = sha256_file(require(cleaner))
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=12).hexdigest()
    return cache_dir("training") / f"pool-{digest}"


def in_words(seconds: float) -> str:
    """Say about how long something takes."""
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


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
