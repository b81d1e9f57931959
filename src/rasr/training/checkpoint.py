"""Checkpoints: one safetensors file holds all there is to know of a run at a step. No pickle, nothing half written."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from rasr.errors import WeightsCorrupt
from rasr.training.config import TrainingConfig
from rasr.weights import read_safetensors, write_safetensors

__all__ = ["Checkpoint", "latest_checkpoint", "load_tensors", "save_checkpoint", "tensors_of"]

FORMAT = "rasr-training-1"
NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as read."""

    step: int
    """Optimizer steps done; training goes on with this step."""
    config: TrainingConfig
    facts: dict[str, str]
    """What a resumed run must find again: hashes of the loss networks' weights and of the list of photos."""
    seconds: float
    """Training time so far, over all sittings."""
    tensors: dict[str, Tensor]


def tensors_of(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, prefix: str
) -> dict[str, Tensor]:
    """Parameters and their AdamW state by name."""
    found = {}
    for name, parameter in parameters.items():
        found[f"{prefix}.weight.{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"{prefix}.{key}.{name}"] = torch.as_tensor(value)
    return found


@torch.no_grad()
def load_tensors(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]
) -> None:
    """Inverse of :func:`tensors_of`. Raises WeightsCorrupt when names or shapes do not fit this model."""
    for name, parameter in parameters.items():
        stored = tensors.get(f"{prefix}.weight.{name}")
        if stored is None or stored.shape != parameter.shape:
            raise WeightsCorrupt(
                f"The checkpoint does not fit the model: {prefix} '{name}' is missing or of another shape."
            )
        parameter.copy_(stored)
        state = {
            key: tensors[f"{prefix}.{key}.{name}"].clone()
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"{prefix}.{key}.{name}" in tensors
        }
        if state:
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
            }


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    config: TrainingConfig,
    facts: Mapping[str, str],
    seconds: float,
    tensors: Mapping[str, Tensor],
) -> Path:
    """Write ``step-00000100.safetensors``, then delete the oldest beyond ``loop.keep``.

    Raises OutputError (disk full, folder gone); the checkpoints before it are untouched then.
    """
    metadata = {
        "format": FORMAT,
        "step": str(step),
        "config": config.model_dump_json(),
        "facts": json.dumps(dict(facts)),
        "seconds": repr(seconds),
        "versions": json.dumps({package: version(package) for package in ("rasr", "torch", "diffusers")}),
    }
    path = write_safetensors(folder / f"step-{step:08d}.safetensors", tensors, metadata)
    for old in _files(folder)[config.loop.keep :]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest readable checkpoint, and one sentence for each newer one that is damaged."""
    damaged: list[str] = []
    for path in _files(folder):
        try:
            return _read(path), damaged
        except WeightsCorrupt as error:
            damaged.append(str(error))
    return None, damaged


def _files(folder: Path) -> list[Path]:
    """Newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if NAME.fullmatch(path.name)), reverse=True)


def _read(path: Path) -> Checkpoint:
    tensors, metadata = read_safetensors(path)
    try:
        if metadata["format"] != FORMAT:
            raise WeightsCorrupt(f"{path} is not a training checkpoint (format {metadata['format']}).")
        facts: dict[str, str] = json.loads(metadata["facts"])
        return Checkpoint(
            step=int(metadata["step"]),
            config=TrainingConfig.model_validate_json(metadata["config"]),
            facts=facts,
            seconds=float(metadata["seconds"]),
            tensors=tensors,
        )
    except (KeyError, ValueError) as error:
        raise WeightsCorrupt(f"{path}: its metadata cannot be read ({error}).") from error
