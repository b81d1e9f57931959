"""Put trained weights of mini into the package, in fp16, and their SHA-256 in the catalogue.

    python -m runs.ship_mini trained/mini/tuned.safetensors
    python -m runs.ship_mini BACKBONE.safetensors ADAPTER.safetensors [BACKBONE-OF-ADAPTER.safetensors]

One file: the layers of ``realesrgan-tuned``. Two: backbone and reference branch. A third: the backbone that the branch
was trained on, where that is an earlier state of the one that ships: its measured effect then has to speak for it.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rasr.generator.adapter import load_adapter, load_backbone, save_adapter, save_backbone
from rasr.generator.config import read_model_config
from rasr.generator.realesrgan import read_tuned
from rasr.generator.refdsr import build_model
from runs import PACKAGE, pin

PLACE = PACKAGE / "generator" / "trained"
LIMIT = 40 * 10**6


def main(arguments: Sequence[str] | None = None) -> None:
    """Load them as restoring does, so that nothing ships that would not load; write them anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="one, two or three safetensors files")
    files = parser.parse_args(arguments).files
    PLACE.mkdir(exist_ok=True)
    for file in ship_tuned(*files) if len(files) == 1 else ship_model(*files):
        pin(file)
    sizes = {file.name: file.stat().st_size for file in PLACE.glob("*.safetensors")}
    print({name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()})
    if sum(sizes.values()) > LIMIT:
        raise SystemExit(f"{sum(sizes.values()) / 1e6:.1f} MB are more than {LIMIT / 1e6:.0f}.")


def ship_tuned(layers: Path) -> list[Path]:
    """Copy tuned layers of Real-ESRGAN; returns the new file."""
    read_tuned(layers)
    return [Path(shutil.copyfile(layers, PLACE / "realesrgan-tuned.safetensors"))]


def ship_model(backbone: Path, adapter: Path, trained_on: Path | None = None) -> list[Path]:
    """Write backbone and reference branch; returns the new files."""
    model = build_model(read_model_config("mini"))
    load_backbone(model, trained_on or backbone)
    learnt = load_adapter(model, adapter)
    if trained_on is not None:
        learnt["backbone"] = f"an earlier state of the one that ships, from {trained_on.name}"
    # The branch's own tensors stay as they are when the backbone's are replaced under it.
    notes = load_backbone(model, backbone)
    return [
        save_backbone(model, PLACE / "mini.safetensors", half=True, notes=portable(notes)),
        save_adapter(model, PLACE / "mini-reference.safetensors", notes=portable(learnt)),
    ]


def portable(notes: Any) -> Any:
    """Keep the last two parts of absolute paths in notes: where a run was is nobody's concern."""
    if isinstance(notes, dict):
        return {key: portable(value) for key, value in notes.items()}
    if isinstance(notes, list):
        return [portable(value) for value in notes]
    if isinstance(notes, str) and Path(notes).is_absolute():
        return "/".join(Path(notes).parts[-2:])
    return notes


if __name__ == "__main__":
    main()
