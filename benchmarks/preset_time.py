"""Seconds of whole restorations by presets, in turn, so that whatever else the machine does weighs on all alike.

    python benchmarks/preset_time.py [--photos ../shared/photos/extra] [--count 6] [--presets realesrgan mini] [--check]

A picture is read from its file, restored four times larger without references and written as PNG, by each preset in
turn, the order reversed from picture to picture, in one process on one thread, models loaded before. The centre 512 px
of a photo are degraded × 4 by ``realesrgan``, so that the picture has 128 a side. Rows: median of wall and CPU seconds,
wall seconds by stage, and the ratio to the first preset with its 95 % interval (1.96 standard errors of the ratios).
``--check`` exits 1 unless wall and CPU seconds of the last are at most 1.5 times those of the first.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from detail import views
from rasr.images import Picture, write_picture
from rasr.restoration import Restorer

BAR = 1.5


def main() -> int:
    """Measure and print; the exit code says whether the bar is met where ``--check`` asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos/extra"))
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--presets", nargs="+", default=["realesrgan", "mini"])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    restorers = {preset: Restorer(preset, device="cpu", threads=1) for preset in options.presets}
    for restorer in restorers.values():
        restorer(Picture(np.zeros((32, 32, 3), np.float32)))  # loads the network
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    taken: dict[str, list[tuple[float, float]]] = {preset: [] for preset in restorers}
    stages: dict[str, list[dict[str, float]]] = {preset: [] for preset in restorers}
    with tempfile.TemporaryDirectory() as name:
        for number, (_, lq) in enumerate(views(options.photos, options.count)):
            source, target = Path(name, f"{number}.png"), Path(name, "out.png")
            write_picture(Picture(lq), source)
            for preset, restorer in list(restorers.items())[:: 1 if number % 2 else -1]:
                begun = time.perf_counter(), time.process_time()
                result = restorer(source)
                result.save(target, overwrite=True)
                taken[preset].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
                stages[preset].append(result.timings)
    first, ratios = np.array(taken[options.presets[0]]), np.zeros((1, 2))
    for preset in restorers:
        table = np.array(taken[preset])
        ratios = table / first
        half = 1.96 * ratios.std(axis=0, ddof=1) / len(ratios) ** 0.5
        kinds = sorted({stage for one in stages[preset] for stage in one})
        parts = ", ".join(f"{kind} {np.median([one.get(kind, 0.0) for one in stages[preset]]):.2f}" for kind in kinds)
        wall, cpu = (
            f"{np.median(table[:, at]):.2f} s ({ratios[:, at].mean():.2f} ± {half[at]:.2f})" for at in range(2)
        )
        print(f"{preset}: wall {wall}, CPU {cpu}; wall by stage: {parts}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")
    return 1 if options.check and bool((ratios.mean(axis=0) > BAR).any()) else 0


if __name__ == "__main__":
    sys.exit(main())
