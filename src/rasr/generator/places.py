"""Where weights that RASR does not ship are looked for. Loads no framework: the command line asks often."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rasr.home import home

if TYPE_CHECKING:
    from rasr.generator.config import ModelConfig

__all__ = ["CHECKPOINTS", "base_sources", "find_checkpoint", "preset_at_hand"]

CHECKPOINTS = {
    "osediff": ("osediff.pkl", "https://github.com/cswry/OSEDiff, file preset/models/osediff.pkl (Apache-2.0)"),
    "pisasr": ("pisa_sr.pkl", "the link in https://github.com/csslc/PiSA-SR (Apache-2.0, as its README says)"),
}
"""Checkpoint → its published file name, and where it is published."""


def base_sources(config: ModelConfig, base: str | None) -> Sequence[str]:
    """Where to look for the base model: what was asked for, else ``RASR_SD21_BASE``, else the preset's list."""
    asked = base or os.environ.get("RASR_SD21_BASE")
    return [asked] if asked else config.base


def find_checkpoint(kind: str, asked: Path | None = None) -> Path | None:
    """The checkpoint file: as asked, in ``RASR_OSEDIFF`` / ``RASR_PISASR``, or in ``$RASR_HOME/models``; else None."""
    named = os.environ.get(f"RASR_{kind.upper()}")
    path = asked or (Path(named).expanduser() if named else home() / "models" / CHECKPOINTS[kind][0])
    return path if path.is_file() else None


def preset_at_hand() -> str:
    """What ``sd21`` means here: the preset whose checkpoint is on this machine, OSEDiff's when both or none are."""
    return "sd21-pisasr" if find_checkpoint("pisasr") and not find_checkpoint("osediff") else "sd21-osediff"
