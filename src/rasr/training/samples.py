"""Samples: an endless sequence whose number n is always the same, and its batches."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from rasr.errors import PictureError
from rasr.gallery.encoders import load_encoder
from rasr.generator import GenerationSettings, load_generator
from rasr.images import FloatImage
from rasr.training.batch import TrainingSample, collate
from rasr.training.config import TrainingConfig
from rasr.training.photos import DecodedPhotos, Neighbour, TrainingPhoto
from rasr.training.rng import epoch_order, generator_for
from rasr.training.sample_cache import SampleCache
from rasr.training.views import (
    Box,
    Confidence,
    Pixels,
    degraded,
    registered_view,
    to_8_bit,
    turned,
    warped_view,
    whole_view,
)

TRIES = 50
KINDS = ("retrieved", "other_crop", "warped", "random", "null")
_cleaner, _encoder = cache(load_generator), cache(load_encoder)


@dataclass(slots=True)
class SampleMaker(Dataset[TrainingSample]):
    """Maker of sample n from the photos; cheap to send to data-loading processes."""

    config: TrainingConfig
    photos: Sequence[TrainingPhoto]
    neighbours: Sequence[Sequence[Neighbour]]
    """For each photo its retrievable references, path and similarity; empty lists when the mix retrieves none."""
    decoded: DecodedPhotos
    encoder: str = ""
    """Name of the retrieval encoder, when the model reads the LQ's embedding."""
    registered: bool = False
    """Whether warped references are brought back into place, for a branch that is tied to places."""
    cache: SampleCache | None = None
    """Views made once; without it every sample is cut, degraded and cleaned anew."""

    def __getitem__(self, index: int) -> TrainingSample:
        """Make sample ``index``; another photo replaces one that cannot be read (``skipped``).

        Raises PictureError when fifty photos in a row cannot be used.
        """
        if self.cache is not None:
            return self._from_cache(index, self.cache)
        distinct = self.config.data.distinct
        number = index % distinct if distinct else index
        random = generator_for(self.config.seed, "sample", number)
        skipped: list[str] = []
        position = self._place(number, len(self.photos))
        for _ in range(TRIES):
            try:
                return self._cut(index, number, position, random, skipped)
            except PictureError as error:
                skipped.append(str(error))
                position = int(random.integers(len(self.photos)))
        raise PictureError(f"{TRIES} photos in a row cannot be used. The last: {skipped[-1]}")

    def complete(self, sample: TrainingSample, lq: FloatImage) -> TrainingSample:
        """Add the cleaner's picture, where missing, and the encoder's input, if the model reads it."""
        if self.config.model.cleaner != "none" and sample.base is None:
            cleaner = _cleaner(self.config.model.cleaner)
            conditioning = cleaner.prepare(lq, (), GenerationSettings())
            sample = replace(sample, base=to_8_bit(cleaner.generate(lq[None], None, conditioning)[0]))
        if self.encoder:
            sample = replace(sample, embedder_input=_encoder(self.encoder).preprocess(lq))
        return sample

    def _cut(
        self, index: int, number: int, position: int, random: np.random.Generator, skipped: list[str]
    ) -> TrainingSample:
        """Cut, degrade and clean a part of a photo."""
        data, source = self.config.data, self.photos[position]
        photo = self.decoded.read(source)
        if min(photo.shape[:2]) < data.crop:
            size = f"{photo.shape[1]}x{photo.shape[0]}"
            raise PictureError(f"{source.path}: {size} pixels are too few for a crop of {data.crop}.")
        box = Box.anywhere(random, photo, data.crop)
        hr = box.cut(photo)
        reference, sure, kind, score = self._reference(number, position, photo, box, random, skipped)
        if data.flip and random.random() < 0.5:
            hr = np.ascontiguousarray(hr[:, ::-1])
            # Half of the references keep their direction, except the warped ones, whose point is to correspond.
            if reference is not None and (kind == "warped" or random.random() < 0.5):
                reference = np.ascontiguousarray(reference[:, ::-1])
                sure = None if sure is None else np.ascontiguousarray(sure[:, ::-1])
        lq = degraded(hr, data, seed=self.config.seed, name=f"{source.path.name}#{number}")
        sample = TrainingSample(
            index, source.path.name, to_8_bit(lq), hr, reference, kind, score, confidence=sure, skipped=tuple(skipped)
        )
        return self.complete(sample, lq)

    def _from_cache(self, index: int, cache: SampleCache) -> TrainingSample:
        """Cut a part of a view, turned in one of eight ways with all that corresponds to it."""
        random = generator_for(self.config.seed, "sample", index)
        view = cache.view(self._place(index, cache.count))
        source = self.photos[view.position]
        photo = self.decoded.read(source)
        scale, side = self.config.data.scale, self.config.data.crop
        left, top = (int(random.integers(0, (cache.side - side) // scale + 1)) for _ in range(2))
        box = Box(view.box.left + left * scale, view.box.top + top * scale, side)
        skipped: list[str] = []
        reference, sure, kind, score = self._reference(index, view.position, photo, box, random, skipped)
        turn = int(random.integers(8))
        if reference is not None and kind != "warped" and random.random() < 0.5:
            reference = reference[:, ::-1]
        inside = Box(left * scale, top * scale, side)
        return TrainingSample(
            index=index,
            name=source.path.name,
            lq=turned(Box(left, top, side // scale).cut(view.lq), turn),
            hr=turned(box.cut(photo), turn),
            reference=None if reference is None else turned(reference, turn),
            confidence=None if sure is None else turned(sure, turn),
            kind=kind,
            score=score,
            base=None if view.base is None else turned(inside.cut(view.base), turn),
            embedding=view.embedding,
            skipped=tuple(skipped),
        )

    def _place(self, number: int, count: int) -> int:
        """Return the photo or view of sample ``number``: each once an epoch, in the epoch's order."""
        epoch, place = divmod(number, count)
        return int(epoch_order(self.config.seed, epoch, count)[place])

    def _reference(
        self,
        number: int,
        position: int,
        photo: Pixels,
        box: Box,
        random: np.random.Generator,
        skipped: list[str],
    ) -> tuple[Pixels | None, Confidence | None, str, float]:
        """Draw the reference of a sample cut from ``box``: pixels, confidence if registered, kind and similarity."""
        mix = self.config.references.mix_at(number // self.config.loop.batch)
        kind = str(random.choice(KINDS, p=[getattr(mix, kind) for kind in KINDS]))
        view, sure, score = None, None, 0.0
        if kind == "warped" and self.registered:
            (view, sure), score = registered_view(random, photo, box), 1.0
        elif kind == "warped":
            view, score = warped_view(random, photo, box)[0], 1.0
        elif kind == "other_crop":
            view, score = box.elsewhere(random, photo).cut(photo), 1.0
        elif kind == "retrieved" and self.neighbours[position]:
            path, score = self.neighbours[position][int(random.integers(len(self.neighbours[position])))]
            view = self._view(TrainingPhoto.at(path), random, skipped)
        elif kind == "random" and len(self.photos) > 1:
            other = int(random.integers(len(self.photos) - 1))
            view = self._view(self.photos[other + (other >= position)], random, skipped)
        return (None, None, "null", 0.0) if view is None else (view, sure, kind, score)

    def _view(self, photo: TrainingPhoto, random: np.random.Generator, skipped: list[str]) -> Pixels | None:
        """Show another photo, whole or a crop; None when it cannot be used (``skipped``)."""
        whole, seed = random.random() < self.config.references.whole, random.integers(2**62)
        side = self.config.data.crop
        try:
            pixels = self.decoded.read(photo)
        except PictureError as error:
            skipped.append(str(error))
            return None
        if min(pixels.shape[:2]) < side:
            skipped.append(f"{photo.path}: too small for a reference of {side} pixels.")
            return None
        return (
            whole_view(pixels, side) if whole else Box.anywhere(np.random.default_rng(seed), pixels, side).cut(pixels)
        )


def batch_loader(
    maker: SampleMaker,
    steps: range,
    *,
    process: int = 0,
    processes: int = 1,
    pin: bool = False,
    before: Callable[[int], None] = lambda _end: None,
) -> DataLoader[TrainingSample]:
    """Load the batches of one process, portion by portion, made ahead by the config's workers.

    What comes out depends on the numbers alone, not on the workers: it can be stopped and started again anywhere.
    ``pin`` keeps batches in page-locked memory, for a GPU. ``before(end)`` is called in this process before the
    samples up to ``end`` are asked for; what it raises comes out of the loader.
    """
    workers = maker.config.data.workers
    # Not "fork": torch runs threads, which do not survive it. Not "forkserver": its workers do not see that the main
    # process was killed, and stay.
    options: dict[str, Any] = {"prefetch_factor": 4, "multiprocessing_context": "spawn"} if workers else {}
    mine = maker.config.loop.batch // processes
    size = mine // maker.config.loop.accumulation
    starts = ((step * processes + process) * mine + portion for step in steps for portion in range(0, mine, size))

    def portions() -> Iterator[list[int]]:
        for start in starts:
            before(start + size)
            yield list(range(start, start + size))

    return DataLoader(
        maker,
        batch_sampler=portions(),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_set_up_worker,
        pin_memory=pin,
        **options,
    )


def _set_up_worker(_worker: int) -> None:
    """Keep to one core and leave Ctrl-C to the main process, which finishes its step and saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
