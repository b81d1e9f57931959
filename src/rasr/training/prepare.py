"""From a configuration to everything a run needs before its first step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasr.training.config import TrainingConfig
from rasr.training.decoded import DecodedPhotos
from rasr.training.neighbours import Neighbour, find_neighbours
from rasr.training.photos import PhotoSet, find_photos
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


def gather(config: TrainingConfig, encoder: Encoder | None, say: Callable[[str], None]) -> Material:
    """Find the photos, retrieve their references, and prepare the validation pictures.

    Raises ConfigError (no photos, nothing to retrieve), PictureError and the gallery's errors.
    """
    data, references = config.data, config.references
    photos = find_photos(data.photos, data.layout, smallest=data.crop)
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
    )
    validation = _validation(config, photos, decoded, maker) if config.validation.photos else None
    names = "\n".join(f"{photo.category}/{photo.path.name}" for photo in photos.targets)
    return Material(maker, validation, hashlib.sha256(names.encode()).hexdigest())


def _validation(config: TrainingConfig, training: PhotoSet, decoded: DecodedPhotos, maker: SampleMaker) -> Validation:
    found = find_photos(config.validation.photos, "folder", smallest=config.validation.crop)
    photos = validation_photos(found.targets, config.validation.count)
    neighbours: list[list[Neighbour]] = [[] for _ in photos]
    if config.stage == "reference":
        references = config.references
        neighbours = find_neighbours(
            photos, training.gallery, gallery=references.gallery, encoder=references.encoder, top_k=1
        )
    return Validation.build(config, photos, neighbours, decoded, maker)


def _tell(photos: PhotoSet, say: Callable[[str], None]) -> None:
    say(f"data: {len(photos.targets)} photos")
    for sentence in photos.left_out[:NAMED]:
        say(f"left out: {sentence}")
    if len(photos.left_out) > NAMED:
        say(f"left out: {len(photos.left_out) - NAMED} more")
