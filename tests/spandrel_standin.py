"""A stand-in for spandrel, as far as RASR calls it: a network that repeats pixels, told by one tensor's name."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn


class Descriptor:
    """What spandrel returns for a single-image model."""

    input_channels = output_channels = 3
    scale = 2
    purpose = "SR"
    architecture = types.SimpleNamespace(name="Stand-in SR")
    size_requirements = types.SimpleNamespace(multiple_of=4, minimum=0)

    def __init__(self) -> None:
        self.model = nn.Upsample(scale_factor=self.scale, mode="nearest")

    def to(self, device: torch.device) -> Descriptor:
        return self

    def eval(self) -> Descriptor:
        return self

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        upsampled: torch.Tensor = self.model(x)
        return upsampled


class _ModelLoader:
    def load_from_state_dict(self, tensors: dict[str, Any]) -> Descriptor:
        if "known.weight" not in tensors:
            raise ValueError("unknown architecture\nwith a second line")
        return Descriptor()


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put it in spandrel's place."""
    module = types.ModuleType("spandrel")
    module.ModelLoader, module.ImageModelDescriptor = _ModelLoader, Descriptor  # type: ignore[attr-defined]
    module.canonicalize_state_dict = lambda tensors: tensors.get("params_ema", tensors)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spandrel", module)


def write_model(path: Path, *, value: float = 1.0, known: bool = True, metadata: dict[str, str] | None = None) -> Path:
    """A model file that the stand-in knows, or not; as safetensors or as torch saves it, wrapped as trainers do."""
    tensors = {"known.weight" if known else "other.weight": torch.full((3,), value)}
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata)
    else:
        torch.save({"params_ema": tensors}, path)
    return path
