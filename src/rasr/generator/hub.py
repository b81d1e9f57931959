"""Model files from the Hugging Face hub: found in its cache or in a folder; downloaded only when told to."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.home import home, offline

__all__ = [
    "BASE_FILES",
    "TINY_FILES",
    "TINY_VAE",
    "HubFile",
    "at_hand",
    "download",
    "listing",
    "pinned",
    "require",
    "weight_file",
]

BASE_FILES = (
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
)
"""What is used of a Stable Diffusion repository; the rest of it (the same weights again, in other forms) is not."""
TINY_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
TINY_VAE = "madebyollin/taesd"
"""TAESD, the small autoencoder for SD 1 and 2 latents. MIT."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository on the hub."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    """Of large files; empty for small ones, which the hub identifies by git hash."""


def at_hand(sources: Sequence[str | Path], files: Sequence[str] = BASE_FILES) -> Path | None:
    """The first source that is a complete folder, or a complete repository in the hub's cache. Never the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for source in sources:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            try:
                folder = Path(snapshot_download(str(source), revision=pinned(str(source)), local_files_only=True))
            except (LocalEntryNotFoundError, HFValidationError):
                continue
        if not _lacking(folder, files):
            return folder
    return None


def require(sources: Sequence[str | Path], files: Sequence[str], what: str, command: str) -> Path:
    """As :func:`at_hand`, or WeightsMissing saying which command gets them."""
    folder = at_hand(sources, files)
    if folder is not None:
        return folder
    if len(sources) == 1 and (given := Path(sources[0]).expanduser()).is_dir():
        raise WeightsMissing(f"{given} lacks {_lacking(given, files)[0]}: it is not a folder with {what}.")
    raise WeightsMissing(
        f"{what} is not on this machine (looked for {', '.join(map(str, sources))}). "
        f"Get it with: {command}, or name a folder that has it with --base."
    )


def listing(sources: Sequence[str], files: Sequence[str], *, half: bool = False) -> tuple[str, str, list[HubFile]]:
    """(repository, commit, files) of the first source the hub still has, at its pinned commit if there is one.

    ``half`` prefers fp16 files. Raises WeightsMissing when no source has them all, or offline.
    """
    from huggingface_hub import HfApi

    _require_network()
    refused = []
    for source in sources:
        try:
            facts = HfApi().model_info(source, revision=pinned(source), files_metadata=True)
        except _hub_errors() as error:
            refused.append(f"{source} ({str(error).strip().partition(chr(10))[0] or type(error).__name__})")
            continue
        there = {sibling.rfilename: sibling for sibling in facts.siblings or ()}
        chosen = [next((n for n in _variants(name, half=half) if n in there), None) for name in files]
        if missing := [name for name, found in zip(files, chosen, strict=True) if found is None]:
            refused.append(f"{source} (has no {missing[0]})")
            continue
        return source, str(facts.sha), [_as_file(there[name]) for name in chosen if name is not None]
    raise WeightsMissing(f"None of these could be had from the hub: {', '.join(refused)}.")


def download(repository: str, commit: str, files: Sequence[HubFile]) -> Path:
    """Fetch this commit's files into the hub's cache, check their hashes, and pin the commit. Raises WeightsMissing."""
    from huggingface_hub import hf_hub_download

    _require_network()
    folder = None
    for file in files:
        try:
            path = Path(hf_hub_download(repository, file.name, revision=commit))
        except _hub_errors() as error:
            raise WeightsMissing(f"Could not download {file.name} of {repository}: {error}") from error
        if file.sha256 and _sha256(path) != file.sha256:
            raise WeightsCorrupt(f"{path} is not what the hub announced: its SHA-256 differs. Delete it and retry.")
        folder = path.parents[len(Path(file.name).parts) - 1]
    assert folder is not None  # noqa: S101 - a repository without files is refused by listing()
    _pin(repository, commit, files)
    return folder


def weight_file(folder: Path, name: str) -> Path:
    """The file ``name`` of a model folder, or its fp16 variant when only that is there."""
    return next((folder / n for n in _variants(name) if (folder / n).is_file()), folder / name)


def pinned(repository: str) -> str | None:
    """The commit that was downloaded first: later downloads ask for the same one, whatever was pushed since."""
    found = _pins().get(repository)
    return None if found is None else str(found["commit"])


def _pins() -> dict[str, Any]:
    path = _pins_file()
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise WeightsCorrupt(f"{path} cannot be read ({error}). Delete it to pin the models anew.") from error


def _pin(repository: str, commit: str, files: Sequence[HubFile]) -> None:
    pins = _pins() | {repository: {"commit": commit, "sha256": {f.name: f.sha256 for f in files if f.sha256}}}
    path = _pins_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(pins, indent=1), encoding="utf-8")
    temporary.replace(path)


def _pins_file() -> Path:
    return home() / "models" / "pins.json"


def _variants(name: str, *, half: bool = False) -> list[str]:
    stem, dot, suffix = name.rpartition(".")
    names = [name, f"{stem}.fp16{dot}{suffix}"] if suffix == "safetensors" else [name]
    return names[::-1] if half else names


def _lacking(folder: Path, files: Sequence[str]) -> list[str]:
    return [name for name in files if not weight_file(folder, name).is_file()]


def _as_file(sibling: Any) -> HubFile:
    return HubFile(sibling.rfilename, int(sibling.size or 0), str(sibling.lfs.sha256) if sibling.lfs else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hub_errors() -> tuple[type[Exception], ...]:
    """What asking the hub may raise. Errors of its HTTP client, which has changed twice, are not all OSErrors."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    clients = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return HfHubHTTPError, HFValidationError, OSError, ValueError, *(c.HTTPError for c in clients if c is not None)


def _require_network() -> None:
    if offline():
        raise WeightsMissing("Downloading is off: RASR_OFFLINE or HF_HUB_OFFLINE is set.")
