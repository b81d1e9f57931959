"""Model file: any single-image network that spandrel knows, with scale, purpose and licence read from the file.

spandrel tells a network by the names and shapes of its weights. The file itself is read by RASR's own readers, in which
nothing can run, and never by spandrel's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rasr.device import choose_device
from rasr.errors import ExtraMissing, UsageError, WeightsCorrupt
from rasr.generator.protocol import (
    Batch,
    Conditioning,
    GenerationSettings,
    GeneratorInfo,
    ReferencePicture,
    TileHints,
    Unconditioned,
)
from rasr.images import FloatImage
from rasr.object_path import expand
from rasr.weights import read_checkpoint, read_safetensors

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
LICENCE_KEYS = ("modelspec.license", "license", "licence")
"""Where safetensors files say whose terms they are under: Stability's model specification, and plain words."""
REMARKS = {
    "FaceSR": "is made for faces that are cut out and upright: other pictures come out wrong",
    "Restoration": "takes away noise, blur or compression at the picture's own size: it draws no finer detail",
}
"""What to know of models that are not for enlarging photos, by spandrel's purpose."""


class ModelFile:
    """Generator from one model file, on the input grid, in fp32 on the CPU or the GPU. Enlarges by the file's scale."""

    cleaner = None

    def __init__(self, path: str | Path, *, device: str = "auto", dtype: str = "auto") -> None:
        """Choose the device; the file is read when its facts are asked for.

        Raises UsageError for a file that is not there, a dtype other than fp32, or a device that cannot be had.
        """
        self._path = expand(Path(path)).absolute()
        if not self._path.is_file():
            raise UsageError(f"There is no model file {path}.")
        if dtype not in {"auto", "fp32"}:
            raise UsageError(f"Model files run in fp32, not {dtype}.")
        self._device = choose_device(device, "fp32")

    @cached_property
    def _read(self) -> tuple[Any, str]:
        """Network and licence. Raises ExtraMissing, or WeightsCorrupt naming the file."""
        try:
            from spandrel import ImageModelDescriptor, ModelLoader, canonicalize_state_dict
        except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises RuntimeError
            raise ExtraMissing(f"Reading {self._path.name}", "spandrel") from error
        tensors, licence = _tensors(self._path)
        try:
            model = ModelLoader().load_from_state_dict(canonicalize_state_dict(tensors))
        except MemoryError:
            raise
        except Exception as error:  # each of its forty networks fails in its own way
            why = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            raise WeightsCorrupt(f"{self._path} is no model that spandrel can load: {why}") from error
        if not isinstance(model, ImageModelDescriptor) or model.input_channels != 3 or model.output_channels != 3:
            raise WeightsCorrupt(f"{self._path} is not a model from one RGB picture to another.")
        return model.to(self._device.device).eval(), licence

    @cached_property
    def info(self) -> GeneratorInfo:
        """Facts of the network in the file. Raises what reading it raises."""
        model, licence = self._read
        wanted = model.size_requirements
        multiple = max(1, int(getattr(wanted, "multiple_of", 1)))
        minimum = max(64, int(getattr(wanted, "minimum", 0)))
        remark = REMARKS.get(getattr(model, "purpose", "SR"), "")
        return GeneratorInfo(
            model.architecture.name,
            uses_reference=False,
            grid="input",
            scale=int(model.scale),
            tile=TileHints(
                default=max(256, minimum), minimum=minimum, multiple=multiple, overlap=32, bytes_per_pixel=60_000
            ),
            weights=str(self._path),
            licence=licence or "unknown: the file does not say",
            device=str(self._device),
            remark=f"{self._path.name} ({model.architecture.name}) {remark}." if remark else "",
        )

    def prepare(
        self, lq: FloatImage, references: Sequence[ReferencePicture], settings: GenerationSettings
    ) -> Conditioning:
        """Read the file, if nothing has; references are not used."""
        _ = self._read
        return Unconditioned(settings)

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """(N, H, W, 3) → (N, H·scale, W·scale, 3). Raises WeightsCorrupt for a network that gives no numbers."""
        import torch

        model, _ = self._read
        x = torch.from_numpy(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))).to(self._device.device)
        with torch.inference_mode():
            y = model(x)
        if not bool(torch.isfinite(y).all()):
            raise WeightsCorrupt(f"{self._path} gives invalid numbers on {self._device}.")
        return np.ascontiguousarray(y.clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy())


def _tensors(path: Path) -> tuple[dict[str, Any], str]:
    """The file's tensors by name, as its trainer wrapped them, and the licence it states.

    Raises WeightsCorrupt for a file that is damaged, of another kind, or wants to run code.
    """
    if path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        return tensors, _licence(metadata)
    if path.suffix not in SUFFIXES:
        raise WeightsCorrupt(f"{path} is no model file. Their names end in {', '.join(SUFFIXES)}.")
    return read_checkpoint(path), ""


def _licence(metadata: Mapping[str, str]) -> str:
    return next((metadata[key].strip()[:100] for key in LICENCE_KEYS if metadata.get(key, "").strip()), "")
