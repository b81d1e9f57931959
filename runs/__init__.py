"""Recipes of all that ships: weights, the encoder's head, the calibration of retrieval.

Shell scripts hold the commands in their order. Python ones run from the repository's root: ``python -m runs.NAME``.
"""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rasr.files import sha256_file, write_bytes

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "rasr"
CATALOGUE = PACKAGE / "weights" / "catalogue.toml"


def machine() -> str:
    """Date, machine and versions, for the head of every table and the notes of weights."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pillow", "ncnn"))
    return f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}, {packages}"


def pin(file: Path) -> None:
    """Write a packaged file's SHA-256 into the weights catalogue: every reader holds it to that."""
    line = re.compile(rf'(?<=sha256\."{re.escape(file.name)}" = ")[0-9a-f]{{64}}')
    text, count = line.subn(sha256_file(file), CATALOGUE.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{CATALOGUE} has no SHA-256 of {file.name} to replace.")
    write_bytes(text.encode(), CATALOGUE, overwrite=True)
