"""Put trained weights of mini into the package: fp16, with the notes of their runs, and the size they take.

python benchmarks/ship_mini.py trained/mini-cpu/mini.safetensors trained/mini-reference-cpu/mini-reference.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rasr.generator.adapter import load_adapter, load_backbone, save_adapter, save_backbone
from rasr.generator.build import build_model
from rasr.generator.config import read_model_config

PLACE = Path(__file__).parents[1] / "src" / "rasr" / "generator" / "trained"
LIMIT = 40 * 10**6


def portable(notes: Any) -> Any:  # noqa: ANN401 - JSON
    """The notes of a run with the last two parts of every absolute path only: where it ran is nobody's concern."""
    if isinstance(notes, dict):
        return {key: portable(value) for key, value in notes.items()}
    if isinstance(notes, list):
        return [portable(value) for value in notes]
    if isinstance(notes, str) and Path(notes).is_absolute():
        return "/".join(Path(notes).parts[-2:])
    return notes


def main() -> None:
    """Load both as restoring does, so that nothing is shipped that would not load, and write them anew."""
    backbone, adapter = map(Path, sys.argv[1:])
    model = build_model(read_model_config("mini"))
    notes = load_backbone(model, backbone), load_adapter(model, adapter)
    PLACE.mkdir(exist_ok=True)
    files = [
        save_backbone(model, PLACE / "mini.safetensors", half=True, notes=portable(notes[0])),
        save_adapter(model, PLACE / "mini-reference.safetensors", notes=portable(notes[1])),
    ]
    sizes = {file.name: file.stat().st_size for file in files}
    print({name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()})
    if sum(sizes.values()) > LIMIT:
        raise SystemExit(f"{sum(sizes.values()) / 1e6:.1f} MB are more than {LIMIT / 1e6:.0f}.")


if __name__ == "__main__":
    main()
