"""Fixed pictures, restored with and without reference: the numbers a run is judged by, and a grid to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rasr.degrade import degrade_array, draw
from rasr.errors import ConfigError
from rasr.training.batch import Sample, TrainingBatch, collate
from rasr.training.config import TrainingConfig
from rasr.training.decoded import DecodedPhotos
from rasr.training.losses import PerceptualDistance
from rasr.training.model import TrainableModel
from rasr.training.neighbours import Neighbour
from rasr.training.photos import Photo
from rasr.training.pool import Clean
from rasr.training.samples import SampleMaker
from rasr.training.views import Box, cut

__all__ = ["Validation", "validation_photos"]


def validation_photos(photos: Sequence[Photo], count: int) -> list[Photo]:
    """``count`` photos spread evenly over the sorted list."""
    places = np.linspace(0, len(photos) - 1, min(count, len(photos)))
    return [photos[round(float(place))] for place in places]


@dataclass(slots=True)
class Validation:
    """The fixed pictures, one batch each, with the references of every policy."""

    batches: list[TrainingBatch]
    """With the retrieved reference, or none."""
    randoms: list[TrainingBatch]
    """The same with another photo's reference: the honest control."""
    guided: bool

    @classmethod
    def build(
        cls,
        config: TrainingConfig,
        photos: Sequence[Photo],
        neighbours: Sequence[Sequence[Neighbour]],
        decoded: DecodedPhotos,
        maker: SampleMaker,
        clean: Clean | None = None,
    ) -> Validation:
        """Degrade the centre crops with the validation seed. Raises PictureError, or ConfigError without photos."""
        if not photos:
            raise ConfigError("validation.photos: no usable photo.")
        settings = config.validation
        samples = []
        for photo, near in zip(photos, neighbours, strict=True):
            pixels = decoded.read(photo)
            height, width = pixels.shape[:2]
            hr = cut(pixels, Box((width - settings.crop) // 2, (height - settings.crop) // 2, settings.crop))
            recipe = draw(
                config.data.degradation,
                scale=config.data.scale,
                seed=settings.seed,
                name=photo.path.name,
                usm=config.data.usm,
            )
            lq = degrade_array(np.divide(hr, 255, dtype=np.float32), recipe)
            small = np.rint(lq * 255).astype(np.uint8)
            base = None if clean is None else clean(small[None])[0]
            sample = Sample(-1, photo.path.name, small, hr, None, "null", base=base)
            sample = maker.complete(sample, lq)
            if near:
                view = maker.whole_reference(near[0][0], settings.crop)
                sample = replace(sample, reference=view, kind="retrieved", score=near[0][1])
            samples.append(sample)
        guided = config.stage == "reference"
        others = [
            replace(sample, reference=samples[(index + 1) % len(samples)].hr, kind="random")
            for index, sample in enumerate(samples)
        ]
        batches, randoms = [collate([s]) for s in samples], [collate([s]) for s in others]
        return cls(batches, randoms if guided and len(samples) > 1 else [], guided)

    @torch.inference_mode()
    def run(
        self, model: TrainableModel, device: torch.device, perceptual: PerceptualDistance | None
    ) -> tuple[dict[str, float], NDArray[np.uint8]]:
        """Scores (mean over pictures of PSNR in RGB and of the perceptual distance) by policy, and the grid.

        Policies: none; and in the stages with references retrieved, random, and truth (the HR itself as reference,
        which tells whether the model can use a perfect one).
        """
        scores: dict[str, list[float]] = {}
        rows = []
        for index, batch in enumerate(self.batches):
            batch = batch.to(device)  # noqa: PLW2901
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
    """LQ, result without reference, then (in the reference stage) the reference and the result with it, and the HR."""
    enlarged = F.interpolate(batch.lq, size=batch.hr.shape[-2:], mode="nearest")
    tiles = [enlarged, restored["none"]]
    if "retrieved" in restored:
        tiles += [batch.reference, restored["retrieved"]]
    tiles.append(batch.hr)
    row = torch.cat([tile[0] for tile in tiles], dim=2).clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = row.permute(1, 2, 0).cpu().numpy()
    return pixels
