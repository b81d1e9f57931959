"""Put trained weights of mini into the package: fp16, with the notes of their runs, and the size they take.

    python benchmarks/ship_mini.py trained/mini/tuned.safetensors
    python benchmarks/ship_mini.py BACKBONE.safetensors ADAPTER.safetensors [BACKBONE-OF-ADAPTER.safetensors]

One file: the layers of ``realesrgan-tuned``. Two: backbone and reference branch. A third: the backbone that the branch
was trained on, where that is an earlier state of the one that ships: its measured effect then has to speak for it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from rasr.files import sha256_file
from rasr.generator.adapter import load_adapter, load_backbone, save_adapter, save_backbone
from rasr.generator.config import read_model_config
from rasr.generator.realesrgan_weights import read_tuned
from rasr.generator.refdsr import build_model

PLACE = Path(__file__).parents[1] / "src" / "rasr" / "generator" / "trained"
LIMIT = 40 * 10**6


def portable(notes: Any) -> Any:
    """The notes of a run with the last two parts of every absolute path only: where it ran is nobody's concern."""
    if isinstance(notes, dict):
        return {key: portable(value) for key, value in notes.items()}
    if isinstance(notes, list):
        return [portable(value) for value in notes]
    if isinstance(notes, str) and Path(notes).is_absolute():
        return "/".join(Path(notes).parts[-2:])
    return notes


def main() -> None:
    """Load them as restoring does, so that nothing is shipped that would not load, and write them anew."""
    PLACE.mkdir(exist_ok=True)
    if len(sys.argv) == 2:
        read_tuned(Path(sys.argv[1]))
        shutil.copyfile(sys.argv[1], PLACE / "realesrgan-tuned.safetensors")
    else:
        _ship_model(*map(Path, sys.argv[1:]))
    sizes = {file.name: file.stat().st_size for file in PLACE.glob("*.safetensors")}
    print("For src/rasr/weights/catalogue.toml, without which they will not load:")
    for name, size in sizes.items():
        print(f'sha256."{name}" = "{sha256_file(PLACE / name)}"  # {size / 1e6:.1f} MB')
    if sum(sizes.values()) > LIMIT:
        raise SystemExit(f"{sum(sizes.values()) / 1e6:.1f} MB are more than {LIMIT / 1e6:.0f}.")


def _ship_model(backbone: Path, adapter: Path, trained_on: Path | None = None) -> None:
    model = build_model(read_model_config("mini"))
    load_backbone(model, trained_on or backbone)
    learnt = load_adapter(model, adapter)
    if trained_on is not None:
        learnt["backbone"] = f"an earlier state of the one that ships, from {trained_on.name}"
    # The branch's own tensors stay as they are when the backbone's are replaced under it.
    notes = load_backbone(model, backbone)
    save_backbone(model, PLACE / "mini.safetensors", half=True, notes=portable(notes))
    save_adapter(model, PLACE / "mini-reference.safetensors", notes=portable(learnt))


if __name__ == "__main__":
    main()
