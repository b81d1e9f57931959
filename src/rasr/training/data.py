"""Training data: from a configuration to all that samples and validation are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rasr.gallery.encoders import Encoder
from rasr.progress import Progress
from rasr.training.batch import TrainingBatch, TrainingSample, collate
from rasr.training.config import TrainingConfig
from rasr.training.losses import PerceptualDistance
from rasr.training.model import TrainableModel
from rasr.training.photos import DecodedPhotos, Neighbour, TrainingPhoto, find_neighbours, find_photos
from rasr.training.sample_cache import ViewMaker, batch_cleaner
from rasr.training.samples import SampleMaker
from rasr.training.views import Box, Pixels, degraded, to_8_bit, whole_view

NAMED = 5
"""Left-out files that are named one by one."""


@dataclass(slots=True)
class TrainingData:
    """Maker of samples, and the validation pictures."""

    maker: SampleMaker
    validation: Validation | None
    digest: str
    """Of the photos' names: a resumed run must find the same list."""
    views: ViewMaker | None
    """Maker of the views that samples are cut from, with ``data.pool``."""

    @classmethod
    def prepare(
        cls,
        config: TrainingConfig,
        encoder: Encoder | None,
        log: Callable[[str], None],
        device: torch.device | None = None,
        *,
        lazily: bool = False,
        progress: Progress = lambda *_: None,
    ) -> TrainingData:
        """Find photos, retrieve references, and prepare sample cache and validation pictures.

        ``progress`` hears of indexing and comparing photos, which it may end by raising.
        ``lazily`` leaves the views to ``views.ensure``, which must be called before their samples are asked for.

        Photos that validate neither train nor guide, also when their folder is among ``data.photos``. ``device`` cleans
        the sample cache. Raises ConfigError (no photos, nothing to retrieve), PictureError and the gallery's errors.
        """
        data, references = config.data, config.references
        held_out: list[TrainingPhoto] = []
        if config.validation.photos:
            found = find_photos(config.validation.photos, "folder", smallest=config.validation.crop)
            held_out = found.spread(config.validation.count)
        smallest = max(data.crop, data.pool_side if data.pool else 0)
        photos = find_photos(data.photos, data.layout, smallest=smallest, held_out=held_out)
        log(f"data: {len(photos.targets)} photos")
        for sentence in photos.left_out[:NAMED]:
            log(f"left out: {sentence}")
        if len(photos.left_out) > NAMED:
            log(f"left out: {len(photos.left_out) - NAMED} more")

        search = partial(find_neighbours, gallery=references.gallery, encoder=references.encoder, progress=progress)
        rows: list[list[Neighbour]] = [[] for _ in photos.targets]
        if any(phase.mix.retrieved for phase in references.phases):
            rows = search(photos.targets, photos.gallery, top_k=references.top_k)
            log(f"references: {sum(map(bool, rows))} of {len(rows)} photos have others to retrieve")
        decoded = DecodedPhotos(gigabytes=data.cache_gb, long_side=data.long_side)
        registered = config.registered
        maker = SampleMaker(config, photos.targets, rows, decoded, encoder.name if encoder else "", registered)
        clean = views = None
        if data.pool:
            if config.model.cleaner != "none":
                clean = batch_cleaner(config, device or torch.device("cpu"))
            views = ViewMaker(config, photos.targets, decoded, clean=clean, encoder=encoder, log=log)
            maker.cache = views.cache
            if not lazily:
                views.ensure(data.pool)
        validation = None
        if held_out:
            near = search(held_out, photos.gallery, top_k=1) if config.guided else [[] for _ in held_out]
            validation = Validation.build(maker, held_out, near, clean)
        names = "\n".join(f"{photo.category}/{photo.path.name}" for photo in photos.targets)
        return cls(maker, validation, hashlib.sha256(names.encode()).hexdigest(), views)


@dataclass(slots=True)
class Validation:
    """Fixed pictures, one batch each, with the references of every policy."""

    batches: list[TrainingBatch]
    """With the retrieved reference, or none."""
    randoms: list[TrainingBatch]
    """The same with another photo's reference: the honest control."""
    guided: bool

    @classmethod
    def build(
        cls,
        maker: SampleMaker,
        photos: Sequence[TrainingPhoto],
        neighbours: Sequence[Sequence[Neighbour]],
        clean: Callable[[Pixels], Pixels] | None,
    ) -> Validation:
        """Degrade the photos' centre crops with the validation seed. Raises PictureError.

        ``clean`` cleans LQ (N, h, w, 3) in batches; without it ``maker`` runs the config's cleaner.
        """
        config, settings = maker.config, maker.config.validation
        samples = []
        for photo, near in zip(photos, neighbours, strict=True):
            pixels = maker.decoded.read(photo)
            hr = Box.centre(pixels, settings.crop).cut(pixels)
            lq = degraded(hr, config.data, seed=settings.seed, name=photo.path.name)
            small = to_8_bit(lq)
            base = None if clean is None else clean(small[None])[0]
            sample = maker.complete(TrainingSample(-1, photo.path.name, small, hr, None, "null", base=base), lq)
            if near:
                path, score = near[0]
                view = whole_view(maker.decoded.read(TrainingPhoto.at(path)), settings.crop)
                sample = replace(sample, reference=view, kind="retrieved", score=score)
            samples.append(sample)
        others = [
            replace(sample, reference=samples[(index + 1) % len(samples)].hr, kind="random")
            for index, sample in enumerate(samples)
        ]
        batches, randoms = [collate([s]) for s in samples], [collate([s]) for s in others]
        return cls(batches, randoms if config.guided and len(samples) > 1 else [], config.guided)

    @torch.inference_mode()
    def run(
        self, model: TrainableModel, device: torch.device, perceptual: PerceptualDistance | None
    ) -> tuple[dict[str, float], NDArray[np.uint8]]:
        """Score the model by policy (mean RGB PSNR, perceptual distance); show pictures in a grid.

        Policies: none; and in the stages with references retrieved, random, and truth (the HR itself as reference,
        which tells whether the model can use a perfect one).
        """
        scores: dict[str, list[float]] = {}
        rows = []
        for index, picture in enumerate(self.batches):
            batch = picture.to(device)
            policies = {"none": batch.without_reference()}
            if self.guided:
                present = torch.ones_like(batch.has_reference)
                policies["truth"] = replace(batch, reference=batch.hr, has_reference=present)
                if bool(batch.has_reference.all()):
                    policies["retrieved"] = batch
                if self.randoms:
                    policies["random"] = self.randoms[index].to(device)
            restored = {}
            for policy, given in policies.items():
                prediction = model(given).float().clamp(0, 1)
                restored[policy] = prediction
                error = float((prediction - batch.hr).square().mean())
                scores.setdefault(f"val/{policy}/psnr", []).append(-10 * np.log10(max(error, 1e-10)))
                if perceptual is not None:
                    distance = float(perceptual(prediction, batch.hr).mean())
                    scores.setdefault(f"val/{policy}/perceptual", []).append(distance)
            rows.append(_row(batch, restored))
        height, width = (max(row.shape[axis] for row in rows) for axis in (0, 1))
        grid = np.concatenate([np.pad(r, ((0, height - r.shape[0]), (0, width - r.shape[1]), (0, 0))) for r in rows])
        return {name: float(np.mean(values)) for name, values in scores.items()}, grid


def _row(batch: TrainingBatch, restored: dict[str, Tensor]) -> NDArray[np.uint8]:
    """Lay out LQ, result without reference, reference and result with it if any, and HR."""
    enlarged = F.interpolate(batch.lq, size=batch.hr.shape[-2:], mode="nearest")
    tiles = [enlarged, restored["none"]]
    if "retrieved" in restored:
        tiles += [batch.reference, restored["retrieved"]]
    tiles.append(batch.hr)
    row = torch.cat([tile[0] for tile in tiles], dim=2).clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = row.permute(1, 2, 0).cpu().numpy()
    return pixels
