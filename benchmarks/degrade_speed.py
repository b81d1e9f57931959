"""Crops per second of the degradation pipeline, in one process per core, as data-loading workers run it.

python benchmarks/degrade_speed.py [--side 256] [--crops 400] [--processes 2]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from skimage import data

from rasr.degrade import degrade


def work(job: tuple[str, int, range]) -> float:
    """Degrade some crops of a real photo; returns the seconds it took."""
    preset, side, names = job
    photo = (np.tile(data.astronaut(), (side // 512 + 1, side // 512 + 1, 1))[:side, :side] / 255).astype(np.float32)
    degrade(photo, preset=preset, seed=0, name="warm-up")
    start = time.perf_counter()
    for name in names:
        degrade(photo, preset=preset, seed=0, name=str(name))
    return time.perf_counter() - start


def main() -> None:
    """Measure both presets and print one line each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--side", type=int, default=256)
    arguments.add_argument("--crops", type=int, default=400)
    arguments.add_argument("--processes", type=int, default=2)
    options = arguments.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pillow"))
    share = options.crops // options.processes
    for preset in ("realesrgan", "light"):
        jobs = [(preset, options.side, range(i * share, (i + 1) * share)) for i in range(options.processes)]
        with ProcessPoolExecutor(options.processes) as pool:
            seconds = max(pool.map(work, jobs))
        rate = share * options.processes / seconds
        print(
            f"{preset}: {rate:.0f} crops/s of {options.side} px, {options.processes} processes ({machine}; {packages})"
        )


if __name__ == "__main__":
    main()
