"""A model of a few thousand parameters that satisfies TrainableModel, and configurations small enough for a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

from rasr.training.batch import TrainingBatch
from rasr.training.config import TrainingConfig
from rasr.training.photos import DecodedPhotos, find_photos
from rasr.training.samples import SampleMaker


class TinyModel(nn.Module):
    """Bicubic plus a learned correction; ``guide`` reads the reference and starts as nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Conv2d(3, 8, 3, padding=1).requires_grad_(False)
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
        self.guide = nn.Conv2d(3, 3, 3, padding=1)
        nn.init.zeros_(self.guide.weight)
        nn.init.zeros_(self.guide.bias)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def checkpoint_gradients(self) -> None:
        pass

    def forward(self, batch: TrainingBatch) -> Tensor:
        x = F.interpolate(batch.lq, size=batch.hr.shape[-2:], mode="bicubic")
        present = batch.has_reference.to(x.dtype).view(-1, 1, 1, 1)
        return x + 0.1 * self.body(self.frozen(x)) + present * self.guide(batch.reference)

    def export(self, path: Path, notes: Mapping[str, Any]) -> Path:
        save_file(
            {name: p.detach().clone() for name, p in self.trainable().items()}, path, {"notes": json.dumps(notes)}
        )
        return path


def make_photos(folder: Path, count: int = 5, side: int = 140) -> Path:
    """Cut-outs of scikit-image's photos, every one different."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.hubble_deep_field()]
    for index in range(count):
        source = sources[index % len(sources)]
        top, left = 7 * index % (source.shape[0] - side), 31 * index % (source.shape[1] - side)
        Image.fromarray(np.ascontiguousarray(source[top : top + side, left : left + side])).save(
            folder / f"{index}.png"
        )
    return folder


def tiny_config(photos: Path, **changes: Any) -> TrainingConfig:
    """Twelve steps of four 32-pixel samples with other crops as references; ``table__key=value`` changes it."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "stage": "reference",
        "model": {"preset": "sd21-osediff"},
        "data": {"photos": [str(photos)], "crop": 32, "workers": 0, "cache_gb": 0.1},
        "references": {"phases": [{"mix": {"other_crop": 0.5, "warped": 0.25, "null": 0.25}}]},
        "loss": {"mse": 1.0, "perceptual": 0.0},
        "optimizer": {"lr": 1e-3, "warmup": 2, "ema": 0.9},
        "loop": {"steps": 12, "batch": 4, "log_every": 1, "checkpoint_every": 4, "device": "cpu"},
    }
    for key, value in changes.items():
        *tables, last = key.split("__")
        place = tree
        for table in tables:
            place = place.setdefault(table, {})
        place[last] = value
    return TrainingConfig.model_validate(tree)


def maker_for(config: TrainingConfig, *, neighbours: Any = None) -> SampleMaker:
    """The maker of a config's samples, without the encoder and the sample cache."""
    found = find_photos(config.data.photos, config.data.layout, smallest=config.data.crop)
    decoded = DecodedPhotos(gigabytes=config.data.cache_gb)
    return SampleMaker(config, found.targets, neighbours or [[] for _ in found.targets], decoded)


def pictures(seed: int, side: int = 12, count: int = 2) -> tuple[Tensor, Tensor]:
    """Two batches of noise (N, 3, side, side) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=generator), torch.rand(count, 3, side, side, generator=generator)
