"""``rasr doctor``: what this machine can do, and why."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from rasr.cli.console import examples, print_data, print_json
from rasr.device import use_threads
from rasr.errors import RasrError, WeightsMissing, install_command
from rasr.files import home, offline
from rasr.memory import free_memory, usable_memory

PACKAGES = ("torch", "diffusers", "transformers", "peft", "lancedb", "ncnn", "pillow", "numpy")
EXTRAS = {
    "cluster": "ray",
    "dataset": "httpx2",
    "heic": "pillow_heif",
    "lance": "lancedb",
    "spandrel": "spandrel",
    "train": "accelerate",
}
WIDTH = 80
KEYS = 20
SECTIONS = {
    "rasr": "what is installed",
    "machine": "what it computes with",
    "encoders": "networks that find matching photos: --encoder NAME",
    "generators": "networks that restore: --preset NAME",
    "extras": "optional packages",
}
"""Section → what its lines are about, for readers."""
PURPOSES = {
    "torch": "networks",
    "diffusers": "Stable Diffusion",
    "transformers": "DINOv2, text of prompts",
    "peft": "not needed: compared with in tests",
    "lancedb": "galleries of format 1",
    "ncnn": "Real-ESRGAN",
    "pillow": "pictures in and out",
    "numpy": "arithmetic",
    "home": "indexed folders, downloaded weights: RASR_HOME",
    "cores": "processors of the machine",
    "threads": "how many compute at once: --threads N",
    "memory": "bounds the size of tiles",
    "disk": "for galleries and weights",
    "device": "where networks run, and in which numbers: --device NAME",
    "effnet-lite0-robust": "for bad pictures, on any machine",
    "effnet-lite0": "the same network, as published",
    "dinov2-small": "the paper's kind, its smallest",
    "dinov2-base": "the paper's kind",
    "dinov2-large": "the paper's kind, its largest",
    "dataset": "rasr dataset build, from the web",
    "heic": "photos of iPhones",
    "lance": "galleries of format 1",
    "spandrel": "others' model files in rasr evaluate",
    "train": "rasr train",
}
"""Line → what it is for; presets say it themselves."""


@click.command(epilog=examples("rasr doctor", "rasr doctor --json"))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(as_json: bool) -> None:
    """Say what this machine can do and why: device, memory, encoders, generators, extras."""
    facts = {
        "rasr": _installation(),
        "machine": _machine(),
        "encoders": _encoders(),
        "generators": _generators(),
        "extras": {
            name: "installed" if importlib.util.find_spec(module) else f"not installed: {install_command(name)}"
            for name, module in EXTRAS.items()
        },
    }
    if as_json:
        print_json(facts)
        return
    from rasr.generator import PRESETS

    purposes = PURPOSES | {name: preset.summary for name, preset in PRESETS.items()}
    for section, entries in facts.items():
        print_data(f"{section}: {SECTIONS[section]}")
        for key, value in entries.items():
            purpose = f" ({purposes[key]})" if key in purposes else ""
            lines = textwrap.wrap(f"{value}{purpose}", WIDTH - KEYS - 3, break_on_hyphens=False) or [""]
            for number, line in enumerate(lines):
                print_data(f"  {'' if number else key:<{KEYS}} {line}".rstrip())


def _installation() -> dict[str, str]:
    facts = {"version": _version("rasr"), "python": platform.python_version()}
    facts |= {name: _version(name) for name in PACKAGES}
    facts["torchvision"] = _torchvision()
    facts["home"] = str(home())
    facts["network"] = "off (offline is set)" if offline() else "only to download weights you ask for"
    return facts


def _machine() -> dict[str, str]:
    from rasr.device import choose_device

    existing = next((p for p in (home(), *home().parents) if p.exists()), Path("/"))
    return {
        "system": platform.platform(terse=True),
        "cores": str(os.cpu_count() or 1),
        "threads": str(use_threads()),
        "memory": f"{usable_memory() / 2**30:.1f} GiB, {free_memory() / 2**30:.1f} GiB free",
        "disk": f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB free at {existing}",
        "device": str(choose_device()),
    }


def _encoders() -> dict[str, str]:
    from rasr.gallery.encoders import DEFAULT_ENCODER, ENCODERS, load_encoder

    def describe(name: str) -> str:
        try:
            encoder = load_encoder(name)
            facts = f"{encoder.dimension} dimensions, {encoder.fingerprint}"  # an encoder may look for its file here
        except WeightsMissing as error:
            return f"not here: {error}"
        return f"ready, {facts}"

    return _each(ENCODERS, describe, DEFAULT_ENCODER)


def _generators() -> dict[str, str]:
    from rasr.generator import DEFAULT_PRESET, PRESETS, load_generator

    def describe(name: str) -> str:
        try:
            info = load_generator(name).info
        except RasrError as error:
            return f"not ready: {error}"
        reads = "uses the reference" if info.uses_reference else "does not use the reference"
        return "; ".join(part for part in (info.name, reads, info.licence, info.device) if part)

    return _each(PRESETS, describe, DEFAULT_PRESET)


def _each(names: Iterable[str], describe: Callable[[str], str], default: str) -> dict[str, str]:
    return {name: describe(name) + (" (default)" if name == default else "") for name in names}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _torchvision() -> str:
    """Import torchvision: one that is installed and cannot be imported breaks transformers, diffusers and peft."""
    if importlib.util.find_spec("torchvision") is None:
        return "not installed (not needed)"
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # noqa: BLE001 - whatever it raises, the advice is the same
        return f"BROKEN ({error}); remove it: pip uninstall torchvision"
    return _version("torchvision")
