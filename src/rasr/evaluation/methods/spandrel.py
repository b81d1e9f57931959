"""Single-image models in files that spandrel recognises: BSRGAN, Real-ESRGAN, HAT, SwinIR, DAT and some forty more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rasr.device import choose_device
from rasr.errors import ExtraMissing, UsageError, WeightsCorrupt
from rasr.generator import (
    Batch,
    Conditioning,
    GenerationSettings,
    Generator,
    GeneratorInfo,
    Guide,
    TileHints,
    Unconditioned,
)
from rasr.images import FloatImage

__all__ = ["SpandrelGenerator"]


class SpandrelGenerator:
    """A generator on the input grid around spandrel's model descriptor, in float32."""

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        if not path.is_file():
            raise UsageError(f"There is no model file {path}.")
        self._path = path
        self._device = choose_device(device, "fp32")

    @cached_property
    def _model(self) -> Any:
        try:
            from spandrel import ImageModelDescriptor, ModelLoader
        except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises RuntimeError
            raise ExtraMissing(f"Reading {self._path.name}", "spandrel") from error
        try:
            model = ModelLoader().load_from_file(self._path)
        except Exception as error:
            raise WeightsCorrupt(f"{self._path} is no model that spandrel can load: {error}") from error
        if not isinstance(model, ImageModelDescriptor) or model.input_channels != 3 or model.output_channels != 3:
            raise UsageError(f"{self._path} is not a model from one RGB picture to another.")
        return model.to(self._device.device).eval()

    @property
    def cleaner(self) -> Generator | None:
        """None: the model runs alone."""
        return None

    @property
    def info(self) -> GeneratorInfo:
        """What the file turned out to be."""
        model = self._model
        multiple = max(1, int(getattr(model.size_requirements, "multiple_of", 1)))
        tile = TileHints(default=256, minimum=64, multiple=multiple, overlap=32, bytes_per_pixel=60_000)
        return GeneratorInfo(
            model.architecture.name,
            uses_reference=False,
            grid="input",
            scale=int(model.scale),
            tile=tile,
            weights=str(self._path),
            device=str(self._device),
        )

    def prepare(self, lq: FloatImage, guides: Sequence[Guide], settings: GenerationSettings) -> Conditioning:
        """Nothing to compute; loads the model."""
        _ = self._model
        return Unconditioned(settings)

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """(N, H, W, 3) → (N, H·scale, W·scale, 3)."""
        import torch

        x = torch.from_numpy(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))).to(self._device.device)
        with torch.inference_mode():
            y = self._model(x).clamp(0, 1)
        return np.ascontiguousarray(y.permute(0, 2, 3, 1).float().cpu().numpy())
