"""The endless sequence of samples: number n is always the same, whoever makes it and whenever."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rasr.degrade import degrade_array, draw
from rasr.errors import PictureError
from rasr.images import FloatImage
from rasr.training.batch import Pixels, Sample
from rasr.training.config import DataConfig, ReferencesConfig
from rasr.training.decoded import DecodedPhotos
from rasr.training.keyed import generator_for
from rasr.training.neighbours import Neighbour
from rasr.training.photos import Photo
from rasr.training.pool import Pool
from rasr.training.views import Box, Turn, crop_box, cut, distant_box, warped_view, whole_view

if TYPE_CHECKING:
    from rasr.gallery.encoders import Encoder
    from rasr.generator import Generator

__all__ = ["SampleMaker"]

TRIES = 50
KINDS = ("retrieved", "other_crop", "warped", "random", "null")


@dataclass(slots=True)
class SampleMaker:
    """Makes sample n from the photos; cheap to send to data-loading processes."""

    photos: Sequence[Photo]
    neighbours: Sequence[Sequence[Neighbour]]
    """For each photo its retrievable references; empty lists when the mix retrieves none."""
    data: DataConfig
    references: ReferencesConfig
    seed: int
    batch: int
    """Samples of one step: tells which phase of the curriculum sample n belongs to."""
    decoded: DecodedPhotos
    cleaner: str = "none"
    """Preset that runs before the model, loaded in each process when first used."""
    encoder: str = ""
    """Name of the retrieval encoder, when the model reads the LQ's embedding."""
    pool: Pool | None = None
    """Views made once; without it every sample is cut, degraded and cleaned anew."""

    @property
    def side(self) -> int:
        """Side of the references."""
        return self.references.side or self.data.crop

    def make(self, index: int) -> Sample:
        """Sample ``index``. A photo that cannot be read is named in ``skipped`` and another one takes its place.

        Raises PictureError when fifty photos in a row cannot be used.
        """
        if self.pool is not None:
            return self._from_pool(index, self.pool)
        number = index % self.data.distinct if self.data.distinct else index
        random = generator_for(self.seed, "sample", number)
        skipped: list[str] = []
        position = self._position(number)
        for _ in range(TRIES):
            photo = self.photos[position]
            try:
                return self._cut(index, number, position, self.decoded.read(photo), random, skipped)
            except PictureError as error:
                skipped.append(f"{photo.path}: {error}" if str(photo.path) not in str(error) else str(error))
                position = int(random.integers(len(self.photos)))
        raise PictureError(f"{TRIES} photos in a row cannot be used. The last: {skipped[-1]}")

    def _from_pool(self, index: int, pool: Pool) -> Sample:
        """A part of a view, mirrored or turned in one of eight ways together with all that corresponds to it."""
        random = generator_for(self.seed, "sample", index)
        epoch, place = divmod(index, pool.count)
        view = pool.view(int(_order(self.seed, epoch, pool.count)[place]))
        photo = self.decoded.read(self.photos[view.position])
        scale, side = self.data.scale, self.data.crop
        left, top = (int(random.integers(0, (pool.side - side) // scale + 1)) for _ in range(2))
        box = Box(view.box.left + left * scale, view.box.top + top * scale, side)
        skipped: list[str] = []
        reference, kind, score = self._reference(index, view.position, photo, box, random, skipped)
        turn = Turn(int(random.integers(8)))
        if reference is not None and kind != "warped" and random.random() < 0.5:
            reference = reference[:, ::-1]
        return Sample(
            index=index,
            name=self.photos[view.position].path.name,
            lq=turn(cut(view.lq, Box(left, top, side // scale))),
            hr=turn(cut(photo, box)),
            reference=None if reference is None else turn(reference),
            kind=kind,
            score=score,
            base=None if view.base is None else turn(cut(view.base, Box(left * scale, top * scale, side))),
            embedding=view.embedding,
            skipped=tuple(skipped),
        )

    def _position(self, number: int) -> int:
        """Every photo once an epoch, each epoch in its own order."""
        epoch, place = divmod(number, len(self.photos))
        return int(_order(self.seed, epoch, len(self.photos))[place])

    def _cut(
        self, index: int, number: int, position: int, photo: Pixels, random: np.random.Generator, skipped: list[str]
    ) -> Sample:
        side = self.data.crop
        if min(photo.shape[:2]) < side:
            raise PictureError(f"{photo.shape[1]}x{photo.shape[0]} pixels are too few for a crop of {side}.")
        box = crop_box(random, photo, side)
        hr = cut(photo, box)
        reference, kind, score = self._reference(number, position, photo, box, random, skipped)
        if self.data.flip and random.random() < 0.5:
            hr = hr[:, ::-1]
            # Half of the references keep their direction, except the warped ones, whose point is to correspond.
            if reference is not None and (kind == "warped" or random.random() < 0.5):
                reference = reference[:, ::-1]
        name = self.photos[position].path.name
        recipe = draw(
            self.data.degradation,
            scale=self.data.scale,
            seed=self.seed,
            name=f"{name}#{number}",
            usm=self.data.usm,
        )
        lq = degrade_array(np.divide(hr, 255, dtype=np.float32), recipe)
        sample = Sample(
            index=index,
            name=name,
            lq=_to_8_bit(lq),
            hr=np.ascontiguousarray(hr),
            reference=None if reference is None else np.ascontiguousarray(reference),
            kind=kind,
            score=score,
            skipped=tuple(skipped),
        )
        return self.complete(sample, lq)

    def complete(self, sample: Sample, lq: FloatImage) -> Sample:
        """Add what the model reads beside the LQ, where it is missing: the cleaner's output and the encoder's input."""
        if self.cleaner != "none" and sample.base is None:
            from rasr.generator import GenerationSettings

            cleaner = _cleaner(self.cleaner)
            conditioning = cleaner.prepare(lq, (), GenerationSettings())
            sample = replace(sample, base=_to_8_bit(cleaner.generate(lq[None], None, conditioning)[0]))
        if self.encoder:
            sample = replace(sample, embedder_input=_encoder(self.encoder).preprocess(lq))
        return sample

    def whole_reference(self, path: str, side: int) -> Pixels:
        """A gallery photo's centre square, reduced to ``side``. Raises PictureError."""
        return whole_view(self.decoded.read(_as_photo(path)), side)

    def _reference(
        self,
        number: int,
        position: int,
        photo: Pixels,
        box: Box,
        random: np.random.Generator,
        skipped: list[str],
    ) -> tuple[Pixels | None, str, float]:
        mix = self.references.mix_at(number // self.batch)
        kind = str(random.choice(KINDS, p=[getattr(mix, kind) for kind in KINDS]))
        wide = self._around(random, photo, box)
        if kind == "warped":
            return warped_view(random, photo, wide), kind, 1.0
        if kind == "other_crop":
            return cut(photo, distant_box(random, photo, wide)), kind, 1.0
        if kind == "retrieved" and self.neighbours[position]:
            path, score = self.neighbours[position][int(random.integers(len(self.neighbours[position])))]
            view = self._view(_as_photo(path), random, skipped)
            return (view, kind, score) if view is not None else (None, "null", 0.0)
        if kind == "random" and len(self.photos) > 1:
            other = int(random.integers(len(self.photos) - 1))
            view = self._view(self.photos[other + (other >= position)], random, skipped)
            return (view, kind, 0.0) if view is not None else (None, "null", 0.0)
        return None, "null", 0.0

    def _around(self, random: np.random.Generator, photo: Pixels, box: Box) -> Box:
        """A box of the reference's side, as far as the photo allows, that holds ``box`` at a random place."""
        side = min(self.side, *photo.shape[:2])
        if side <= box.side:
            return box
        places = []
        for start, length in ((box.left, photo.shape[1]), (box.top, photo.shape[0])):
            lowest, highest = max(0, start + box.side - side), min(start, length - side)
            places.append(int(random.integers(lowest, highest + 1)))
        return Box(places[0], places[1], side)

    def _view(self, photo: Photo, random: np.random.Generator, skipped: list[str]) -> Pixels | None:
        whole, seed = random.random() < self.references.whole, random.integers(2**62)
        side = self.side
        try:
            pixels = self.decoded.read(photo)
        except PictureError as error:
            skipped.append(f"{photo.path}: {error}" if str(photo.path) not in str(error) else str(error))
            return None
        if min(pixels.shape[:2]) < side:
            skipped.append(f"{photo.path}: too small for a reference of {side} pixels.")
            return None
        return whole_view(pixels, side) if whole else cut(pixels, crop_box(np.random.default_rng(seed), pixels, side))


@cache
def _cleaner(name: str) -> Generator:
    from rasr.generator import load_generator

    return load_generator(name)


@cache
def _encoder(name: str) -> Encoder:
    from rasr.gallery.encoders import load_encoder

    return load_encoder(name)


def _to_8_bit(pixels: FloatImage) -> Pixels:
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return generator_for(seed, "epoch", epoch).permutation(count)


@lru_cache(maxsize=100_000)
def _as_photo(path: str) -> Photo:
    """A gallery photo; its size is not needed before it is read."""
    file = Path(path)
    try:
        status = file.stat()
    except OSError:
        return Photo(file, 0, 0, "", hashlib.blake2b(path.encode(), digest_size=16).hexdigest())
    identity = f"{file}|{status.st_size}|{status.st_mtime_ns}"
    return Photo(file, 0, 0, "", hashlib.blake2b(identity.encode(), digest_size=16).hexdigest())
