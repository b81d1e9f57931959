"""Peak memory of ``rasr restore`` on a 12-megapixel photo, ×2: from reading the file to having written the result.

python benchmarks/restore_memory.py [--preset bicubic realesrgan] [--megapixels 12] [--scale 2] [--tiles 20]

The peak is the child process's maximum resident set. ``--tiles N`` runs the network on the first N tiles and repeats
pixels for the rest, since the peak does not depend on how many tiles follow; ``--tiles 0`` runs them all (for
Real-ESRGAN on two cores that is half an hour).
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

CHILD = """
import sys
from rasr.cli.main import main
from rasr.generator.realesrgan import RealESRGAN
limit = int(sys.argv.pop(1))
network, calls = RealESRGAN.generate, 0
def generate(self, tiles, base, conditioning):
    global calls
    calls += 1
    if limit and calls > limit:
        return tiles.repeat(4, 1).repeat(4, 2)
    return network(self, tiles, base, conditioning)
RealESRGAN.generate = generate
main()
"""


def main() -> None:
    """Measure each preset and print one line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--preset", nargs="+", default=["bicubic", "realesrgan"])
    arguments.add_argument("--megapixels", type=float, default=12)
    arguments.add_argument("--scale", type=float, default=2)
    arguments.add_argument("--format", default="jpg")
    arguments.add_argument("--tiles", type=int, default=20)
    options = arguments.parse_args()
    height = round((options.megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    with tempfile.TemporaryDirectory() as folder:
        photo = np.tile(data.astronaut(), (height // 512 + 1, width // 512 + 1, 1))[:height, :width]
        source = Path(folder, f"photo.{options.format}")
        Image.fromarray(photo).save(source)
        for preset in options.preset:
            output = Path(folder, f"{preset}.{options.format}")
            begun = time.perf_counter()
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(options.tiles), "restore", str(source), "-o", str(output),
                 "--preset", preset, "--scale", str(options.scale), "--device", "cpu"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - begun
            if os.waitstatus_to_exitcode(status) != 0:
                raise SystemExit(f"{preset}: rasr restore failed")
            size = "x".join(map(str, Image.open(output).size))
            tiles = "all tiles" if not options.tiles or preset == "bicubic" else f"network on {options.tiles} tiles"
            print(f"{preset}: {width}x{height} -> {size} {options.format}: peak {usage.ru_maxrss / 2**20:.2f} GiB, "
                  f"{seconds:.0f} s, {tiles}")  # fmt: skip
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pillow", "ncnn"))
    print(f"{platform.machine()}, {os.cpu_count()} cores; {packages}")


if __name__ == "__main__":
    Image.MAX_IMAGE_PIXELS = None
    main()
