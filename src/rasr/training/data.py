"""Training data: from a configuration to all that samples and validation are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rasr.training.config import TrainingConfig
from rasr.training.neighbours import find_neighbours
from rasr.training.photos import DecodedPhotos, TrainingPhoto, find_photos
from rasr.training.sample_cache import SampleCache, batch_cleaner
from rasr.training.samples import SampleMaker
from rasr.training.validate import Validation

if TYPE_CHECKING:
    from rasr.gallery.encoders import Encoder

__all__ = ["TrainingData"]

NAMED = 5
"""Left-out files that are named one by one."""


@dataclass(slots=True)
class TrainingData:
    """Maker of samples, and the validation pictures."""

    maker: SampleMaker
    validation: Validation | None
    digest: str
    """Of the photos' names: a resumed run must find the same list."""

    @classmethod
    def prepare(
        cls,
        config: TrainingConfig,
        encoder: Encoder | None,
        log: Callable[[str], None],
        device: torch.device | None = None,
    ) -> TrainingData:
        """Find photos, retrieve references, and prepare sample cache and validation pictures.

        Photos that validate neither train nor guide, also when their folder is among ``data.photos``. ``device`` cleans
        the sample cache. Raises ConfigError (no photos, nothing to retrieve), PictureError and the gallery's errors.
        """
        data, references = config.data, config.references
        held_out: list[TrainingPhoto] = []
        if config.validation.photos:
            found = find_photos(config.validation.photos, "folder", smallest=config.validation.crop)
            held_out = found.spread(config.validation.count)
        smallest = max(data.crop, data.pool_side if data.pool else 0, references.side)
        photos = find_photos(data.photos, data.layout, smallest=smallest, held_out=held_out)
        log(f"data: {len(photos.targets)} photos")
        for sentence in photos.left_out[:NAMED]:
            log(f"left out: {sentence}")
        if len(photos.left_out) > NAMED:
            log(f"left out: {len(photos.left_out) - NAMED} more")

        def neighbours(targets: Sequence[TrainingPhoto], top_k: int, *, wanted: bool) -> list[list[tuple[str, float]]]:
            if not wanted:
                return [[] for _ in targets]
            place = references.gallery
            return find_neighbours(targets, photos.gallery, gallery=place, encoder=references.encoder, top_k=top_k)

        retrieves = any(phase.mix.retrieved for phase in references.phases)
        rows = neighbours(photos.targets, references.top_k, wanted=retrieves)
        if retrieves:
            log(f"references: {sum(map(bool, rows))} of {len(rows)} photos have others to retrieve")
        decoded = DecodedPhotos(gigabytes=data.cache_gb, long_side=data.long_side)
        maker = SampleMaker(config, photos.targets, rows, decoded, encoder.name if encoder else "")
        clean = None
        if data.pool:
            if config.model.cleaner != "none":
                clean = batch_cleaner(config, device or torch.device("cpu"))
            maker.cache = SampleCache.prepare(config, photos.targets, decoded, clean=clean, encoder=encoder, log=log)
        validation = None
        if held_out:
            rows = neighbours(held_out, 1, wanted=config.guided)
            validation = Validation.build(maker, held_out, rows, clean)
        names = "\n".join(f"{photo.category}/{photo.path.name}" for photo in photos.targets)
        return cls(maker, validation, hashlib.sha256(names.encode()).hexdigest())
