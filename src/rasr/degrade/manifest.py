"""The record of a degraded set: one recipe per picture, and the hash that proves a rebuild.

A manifest together with the HR pictures rebuilds the LQ pictures bit for bit on the library versions it names; the
hashes tell when another version rounds differently.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rasr.degrade.recipe import Recipe
from rasr.errors import ConfigError
from rasr.files import write_bytes
from rasr.images import FloatImage

__all__ = ["Entry", "Manifest", "lq_hash", "read_manifest", "write_manifest"]


class Entry(BaseModel):
    """One picture of the set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Path of the HR picture below the input folder, with forward slashes; also what keyed its random draws."""
    output: str
    """Path of the LQ picture below the output folder."""
    width: int
    height: int
    """Size of the LQ in pixels; the HR was cropped to exactly ``scale`` times this."""
    sha256: str
    """Of the LQ's 8-bit RGB samples in row order (:func:`lq_hash`), independent of the file format."""
    recipe: Recipe


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("rasr", "torch", "numpy", "scipy", "pillow")}


class Manifest(BaseModel):
    """Everything needed to make the set again from its HR pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["rasr-degradation-1"] = "rasr-degradation-1"
    seed: int
    crop: int | None = None
    """Side of the centre crop taken from every HR picture first, in pixels."""
    jpeg: Literal["libjpeg 4:2:0"] = "libjpeg 4:2:0"
    """The codec: the real one, not a differentiable imitation."""
    versions: dict[str, str] = Field(default_factory=_versions)
    pictures: tuple[Entry, ...]


def lq_hash(lq: FloatImage) -> str:
    """SHA-256 of the picture's 8-bit samples, (H, W, 3) in row order."""
    return hashlib.sha256(np.rint(lq * 255).astype(np.uint8).tobytes()).hexdigest()


def write_manifest(manifest: Manifest, path: Path, *, overwrite: bool = False) -> None:
    """Write atomically. Raises OutputError when the folder is missing or the disk is full, OutputExists."""
    write_bytes((manifest.model_dump_json(indent=1) + "\n").encode(), path, overwrite=overwrite)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; raises ConfigError naming the file and the first thing wrong with it."""
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the manifest {path}: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise ConfigError(f"{path} is not a degradation manifest: {place}: {first['msg']}.") from error
