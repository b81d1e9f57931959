"""Checkpoints: one safetensors file holds a run at a step. No pickle, nothing half written."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rasr.config import check_table
from rasr.errors import ConfigError, UsageError, WeightsCorrupt, WeightsMissing
from rasr.files import parse_object, whole_number
from rasr.training.config import TrainingConfig
from rasr.weights import read_safetensors, write_safetensors

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "rasr-training-1"
NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a run after a step."""

    step: int
    """Optimizer steps done; training goes on with this step."""
    config: TrainingConfig
    facts: Mapping[str, str]
    """What a resumed run must find again: hashes of the loss networks' weights and of the list of photos."""
    seconds: float
    """Training time so far, over all sittings."""
    tensors: Mapping[str, Tensor]

    def save(self, folder: Path) -> Path:
        """Write ``step-00000100.safetensors``, then delete the oldest beyond ``loop.keep``.

        Raises OutputError (disk full, folder gone); the checkpoints before it are untouched then.
        """
        metadata = {
            "format": FORMAT,
            "step": str(self.step),
            "config": self.config.model_dump_json(),
            "facts": json.dumps(dict(self.facts)),
            "seconds": repr(self.seconds),
            "versions": json.dumps({package: version(package) for package in ("rasr", "torch", "diffusers")}),
        }
        path = write_safetensors(folder / f"step-{self.step:08d}.safetensors", self.tensors, metadata)
        for old in _newest_first(folder)[self.config.loop.keep :]:
            with contextlib.suppress(OSError):
                old.unlink()
        return path

    @classmethod
    def latest(cls, folder: Path) -> tuple[Checkpoint | None, list[str]]:
        """Read the newest readable checkpoint; with one sentence for each newer one that is damaged."""
        damaged: list[str] = []
        for path in _newest_first(folder):
            try:
                return cls.read(path), damaged
            except WeightsCorrupt as error:
                damaged.append(str(error))
        return None, damaged

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a checkpoint. Raises WeightsCorrupt."""
        tensors, metadata = read_safetensors(path)
        try:
            if metadata["format"] != FORMAT:
                raise WeightsCorrupt(f"{path} is not a training checkpoint (format {metadata['format'][:40]}).")
            config = check_table(TrainingConfig, parse_object(metadata["config"]), "config")
            facts = parse_object(metadata["facts"])
            step, seconds = whole_number(metadata["step"]), float(metadata["seconds"])
            if step is None or not 0 <= seconds < math.inf:
                raise WeightsCorrupt(f"{path}: its metadata counts no steps or seconds.")
            return cls(step, config, facts, seconds, tensors)
        except (KeyError, ValueError, ConfigError) as error:
            raise WeightsCorrupt(f"{path}: its metadata cannot be read ({str(error)[:200]}).") from error


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if NAME.fullmatch(path.name)), reverse=True)


def check_run(config: TrainingConfig, folder: Path, *, resume: bool) -> None:
    """Refuse a run that cannot begin, from names alone, before torch is loaded.

    Raises UsageError when the folder holds a run and ``resume`` is false, ConfigError for a folder of photos and
    WeightsMissing for a file in model.weights that is not there.
    """
    if not resume and (found := _newest_first(folder / "checkpoints")):
        steps = int(found[0].stem.removeprefix("step-"))
        raise UsageError(f"{folder} holds a run of {steps} steps. Add --resume, or choose another --out.")
    for key, roots in (("data.photos", config.data.photos), ("validation.photos", config.validation.photos)):
        for root in roots:
            if not root.is_dir():
                raise ConfigError(f"{key}: {root} is not a folder.")
    for place in map(Path, config.model.weights.values()):
        if place.is_absolute() and not place.exists():
            raise WeightsMissing(f"There is no weights file {place}.")
