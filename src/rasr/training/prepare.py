"""From a configuration to everything a run needs before its first step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from rasr.errors import ConfigError
from rasr.training.config import TrainingConfig
from rasr.training.decoded import DecodedPhotos
from rasr.training.neighbours import Neighbour, find_neighbours
from rasr.training.photos import Photo, PhotoSet, find_photos
from rasr.training.pool import Clean, Pool, batch_cleaner, prepare_pool
from rasr.training.samples import SampleMaker
from rasr.training.validate import Validation, validation_photos

if TYPE_CHECKING:
    from rasr.gallery.encoders import Encoder

__all__ = ["Material", "gather"]

NAMED = 5
"""Left-out files that are named one by one."""


@dataclass(slots=True)
class Material:
    """What the samples and the validation are made from."""

    maker: SampleMaker
    validation: Validation | None
    digest: str
    """Of the photos' names: a resumed run must find the same list."""


def gather(
    config: TrainingConfig, encoder: Encoder | None, say: Callable[[str], None], device: torch.device | None = None
) -> Material:
    """Find the photos, retrieve their references, and prepare the pool of views and the validation pictures.

    Photos that validate neither train nor guide, also when their folder is among ``data.photos``. ``device`` cleans the
    pool. Raises ConfigError (no photos, nothing to retrieve), PictureError and the gallery's errors.
    """
    data, references = config.data, config.references
    held_out = _held_out(config)
    smallest = max(data.crop, data.pool_side if data.pool else 0, references.side)
    photos = _without(find_photos(data.photos, data.layout, smallest=smallest), held_out)
    _tell(photos, say)
    decoded = DecodedPhotos(gigabytes=data.cache_gb, long_side=data.long_side)
    neighbours: list[list[Neighbour]] = [[] for _ in photos.targets]
    retrieves = any(phase.mix.retrieved for phase in references.phases)
    if retrieves:
        neighbours = find_neighbours(
            photos.targets,
            photos.gallery,
            gallery=references.gallery,
            encoder=references.encoder,
            top_k=references.top_k,
        )
        alone = sum(not row for row in neighbours)
        say(f"references: {len(neighbours) - alone} of {len(neighbours)} photos have others to retrieve")
    pool: Pool | None = None
    clean: Clean | None = None
    if data.pool:
        place = device or torch.device("cpu")
        dtype = torch.bfloat16 if config.loop.precision == "bf16" else torch.float32
        clean = batch_cleaner(config.model.cleaner, place, dtype) if config.model.cleaner != "none" else None
        pool = prepare_pool(
            photos.targets,
            decoded,
            data,
            seed=config.seed,
            cleaner=config.model.cleaner,
            clean=clean,
            dtype=dtype,
            encoder=encoder,
            say=say,
        )
    maker = SampleMaker(
        photos=photos.targets,
        neighbours=neighbours,
        data=data,
        references=references,
        seed=config.seed,
        batch=config.loop.batch,
        decoded=decoded,
        cleaner=config.model.cleaner,
        encoder=encoder.name if encoder else "",
        pool=pool,
    )
    validation = _validation(config, held_out, photos, decoded, maker, clean) if held_out else None
    names = "\n".join(f"{photo.category}/{photo.path.name}" for photo in photos.targets)
    return Material(maker, validation, hashlib.sha256(names.encode()).hexdigest())


def _held_out(config: TrainingConfig) -> list[Photo]:
    """The photos that validate; empty when the config names none."""
    if not config.validation.photos:
        return []
    found = find_photos(config.validation.photos, "folder", smallest=config.validation.crop)
    return validation_photos(found.targets, config.validation.count)


def _without(photos: PhotoSet, held_out: Sequence[Photo]) -> PhotoSet:
    files = {photo.path.resolve() for photo in held_out}
    targets = tuple(photo for photo in photos.targets if photo.path.resolve() not in files)
    if not targets:
        raise ConfigError("validation.photos: every training photo is used for validation. Lower validation.count.")
    gallery = tuple(path for path in photos.gallery if path.resolve() not in files)
    return replace(photos, targets=targets, gallery=gallery)


def _validation(
    config: TrainingConfig,
    photos: Sequence[Photo],
    training: PhotoSet,
    decoded: DecodedPhotos,
    maker: SampleMaker,
    clean: Clean | None,
) -> Validation:
    neighbours: list[list[Neighbour]] = [[] for _ in photos]
    if config.stage == "reference":
        references = config.references
        neighbours = find_neighbours(
            photos, training.gallery, gallery=references.gallery, encoder=references.encoder, top_k=1
        )
    return Validation.build(config, photos, neighbours, decoded, maker, clean)


def _tell(photos: PhotoSet, say: Callable[[str], None]) -> None:
    say(f"data: {len(photos.targets)} photos")
    for sentence in photos.left_out[:NAMED]:
        say(f"left out: {sentence}")
    if len(photos.left_out) > NAMED:
        say(f"left out: {len(photos.left_out) - NAMED} more")
