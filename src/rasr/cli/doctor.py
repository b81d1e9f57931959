"""``rasr doctor``: what this machine can do, and why."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from rasr.cli.console import examples, print_json
from rasr.errors import RasrError, WeightsMissing
from rasr.files import home, offline
from rasr.memory import free_memory, usable_memory

PACKAGES = ("torch", "diffusers", "transformers", "peft", "lancedb", "ncnn", "pillow", "numpy")
EXTRAS = {"heic": "pillow_heif", "lance": "lancedb", "train": "accelerate"}


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
            name: "installed" if importlib.util.find_spec(module) else f"not installed: pip install 'rasr[{name}]'"
            for name, module in EXTRAS.items()
        },
    }
    if as_json:
        print_json(facts)
        return
    for section, entries in facts.items():
        click.echo(section)
        for key, value in entries.items():
            click.echo(f"  {key:<18} {value}")


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
