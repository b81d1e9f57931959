"""Put trained layers of mini into the package, and their SHA-256 in the catalogue.

python -m runs.ship_mini trained/mini/tuned.safetensors --smooth trained/mini/smooth.safetensors
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from rasr.generator.realesrgan import read_tuned
from runs import PACKAGE, pin

PLACE = PACKAGE / "generator" / "trained"
LIMIT = 40 * 10**6


def main(arguments: Sequence[str] | None = None) -> None:
    """Load them as restoring does, so that nothing ships that would not load; then copy and pin them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a safetensors file of runs.realesrgan_tune")
    parser.add_argument("--smooth", type=Path, help="another, for the smooth end of the dial")
    options = parser.parse_args(arguments)
    shipped = {"mini.safetensors": options.file} | ({"smooth.safetensors": options.smooth} if options.smooth else {})
    for file in shipped.values():
        read_tuned(file)
    PLACE.mkdir(exist_ok=True)
    for name, file in shipped.items():
        pin(Path(shutil.copyfile(file, PLACE / name)))
    sizes = {file.name: file.stat().st_size for file in PLACE.glob("*.safetensors")}
    print({name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()})
    if sum(sizes.values()) > LIMIT:
        raise SystemExit(f"{sum(sizes.values()) / 1e6:.1f} MB are more than {LIMIT / 1e6:.0f}.")


if __name__ == "__main__":
    main()
