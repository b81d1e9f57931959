"""Finding an encoder's files: in a local folder, in the Hugging Face hub's cache, or, if allowed, on the hub."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from rasr.errors import WeightsMissing

__all__ = ["HubModel", "ModelFiles", "find_files", "find_local"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub, and what a user should know before it is downloaded."""

    repository: str
    revision: str
    """The commit that is downloaded; in the cache, the branch ``main`` is accepted too."""
    dimension: int
    megabytes: int
    licence: str


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The two files a model is made of, both on this machine."""

    config: Path
    weights: Path

    def sha256(self) -> str:
        """Of the weights. The hub's cache names its blobs by it; a plain file is read (88 MB take about 0.1 s)."""
        blob = self.weights.resolve()
        if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
            return blob.name
        with self.weights.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def find_local(source: HubModel | Path) -> ModelFiles | None:
    """The files as far as they are on this machine already, without touching the network."""
    if isinstance(source, Path):
        files = ModelFiles(source / CONFIG, source / WEIGHTS)
        return files if files.config.is_file() and files.weights.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    for revision in (source.revision, "main"):
        found = [try_to_load_from_cache(source.repository, file, revision=revision) for file in (CONFIG, WEIGHTS)]
        config, weights = (Path(path) if isinstance(path, str) else None for path in found)
        if config and weights:
            return ModelFiles(config, weights)
    return None


def find_files(name: str, source: HubModel | Path, *, offline: bool) -> ModelFiles:
    """Where the files of encoder ``name`` are, after downloading them if they are nowhere and ``offline`` is False.

    The network is not touched when they are at hand. Raises WeightsMissing, saying what to do.
    """
    files = find_local(source)
    if files:
        return files
    if isinstance(source, Path):
        raise WeightsMissing(_not_in_folder(name, source))
    return _download(name, source, offline=offline)


def _not_in_folder(name: str, folder: Path) -> str:
    if not folder.is_dir():
        return f"{name}: there is no folder {folder}."
    missing = [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]
    can_run_code = any(path.suffix in {".bin", ".pt", ".pth"} for path in folder.iterdir())
    hint = " Weights in .bin, .pt and .pth files are not read, since they can run code." if can_run_code else ""
    return f"{name}: {' and '.join(missing)} not found in {folder}.{hint}"


def _download(name: str, model: HubModel, *, offline: bool) -> ModelFiles:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    advice = (
        f"On a machine with a network run: hf download {model.repository} {CONFIG} {WEIGHTS} "
        f"--revision {model.revision} --local-dir DIR ({model.megabytes} MB, {model.licence}), "
        "and use the encoder 'dinov2:DIR'."
    )
    if offline:
        raise WeightsMissing(
            f"{name} is not on this machine and the network is off (RASR_OFFLINE or HF_HUB_OFFLINE). {advice}"
        )
    try:
        config, weights = (
            Path(hf_hub_download(model.repository, file, revision=model.revision)) for file in (CONFIG, WEIGHTS)
        )
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise WeightsMissing(f"{name} could not be downloaded ({reason}). {advice}") from error
    return ModelFiles(config, weights)
