"""``rasr doctor``: what this machine can do, and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import click

from rasr.cli.console import examples, print_json
from rasr.errors import RasrError, WeightsMissing
from rasr.home import home, offline
from rasr.memory import free_memory, usable_memory

__all__ = ["command", "examine"]

PACKAGES = ("torch", "diffusers", "transformers", "peft", "ncnn", "pillow", "numpy")
EXTRAS = {"heic": "pillow_heif", "lance": "lancedb", "train": "accelerate"}


@click.command(epilog=examples("rasr doctor", "rasr doctor --json"))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(as_json: bool) -> None:
    """Say what this machine can do and why: device, memory, encoders, generators, extras."""
    facts = examine()
    if as_json:
        print_json(facts)
        return
    for section, entries in facts.items():
        click.echo(section)
        for key, value in entries.items():
            click.echo(f"  {key:<18} {value}")


def examine() -> dict[str, dict[str, Any]]:
    """Collect the facts, section by section; every value is printable text or a number."""
    return {
        "rasr": _installation(),
        "machine": _machine(),
        "encoders": _encoders(),
        "generators": _generators(),
        "extras": {name: _extra(name, module) for name, module in EXTRAS.items()},
    }


def _installation() -> dict[str, str]:
    facts = {"version": _version("rasr"), "python": platform.python_version()}
    facts |= {name: _version(name) for name in PACKAGES}
    facts["torchvision"] = _torchvision()
    facts["home"] = str(home())
    facts["network"] = "off (offline is set)" if offline() else "only to download weights you ask for"
    return facts


def _machine() -> dict[str, str]:
    from rasr.device import choose_device

    memory = f"{usable_memory() / 2**30:.1f} GiB, {free_memory() / 2**30:.1f} GiB free"
    facts = {"system": platform.platform(terse=True), "cores": str(os.cpu_count() or 1), "memory": memory}
    existing = next((p for p in (home(), *home().parents) if p.exists()), Path("/"))
    facts["disk"] = f"{shutil.disk_usage(existing).free / 2**30:.1f} GiB free at {existing}"
    facts["device"] = str(choose_device())
    return facts


def _encoders() -> dict[str, str]:
    from rasr.gallery.encoders import DEFAULT_ENCODER, ENCODERS, load_encoder

    facts = {}
    for name in ENCODERS:
        try:
            encoder = load_encoder(name)
            state = f"ready, {encoder.dimension} dimensions, {encoder.fingerprint}"
        except WeightsMissing as error:
            state = f"not here: {error}"
        facts[name] = state + (" (default)" if name == DEFAULT_ENCODER else "")
    return facts


def _generators() -> dict[str, str]:
    from rasr.generator import DEFAULT_PRESET, PRESETS, load_generator

    facts = {}
    for name in PRESETS:
        try:
            info = load_generator(name).info
            parts = [info.name, "uses the reference" if info.uses_reference else "does not use the reference"]
            parts += [part for part in (info.licence, info.device) if part]
            state = "; ".join(parts)
        except RasrError as error:
            state = f"not ready: {error}"
        facts[name] = state + (" (default)" if name == DEFAULT_PRESET else "")
    return facts


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _extra(name: str, module: str) -> str:
    found = importlib.util.find_spec(module) is not None
    return "installed" if found else f"not installed: pip install 'rasr[{name}]'"


def _torchvision() -> str:
    """A torchvision that is installed but cannot be imported breaks transformers, diffusers and peft."""
    if importlib.util.find_spec("torchvision") is None:
        return "not installed (not needed)"
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # noqa: BLE001 - whatever it raises, the advice is the same
        return f"BROKEN ({error}); remove it: pip uninstall torchvision"
    return _version("torchvision")
