"""Wall seconds of ``rasr restore`` on an idle machine and beside busy processes, by how its threads are set.

    python benchmarks/busy_machine.py                     a 128 px photo, idle and beside four busy processes
    python benchmarks/busy_machine.py --busy 2 --runs 1   beside two, once each

The settings: ``default``, what the command chooses; ``passive``, all cores with the waiting policy set from outside;
``one``, one thread; ``spinning``, threads that wait awake, which is what OpenMP does by itself. Rounds go through the
settings in turn, so that other load weighs on all alike; the figure is the median. ``--check`` exits 1 when the default
takes more than 1.25 times the best of the first three beside the busy processes.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from skimage import data

ROOT = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one": {"OMP_NUM_THREADS": "1"},
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE", "KMP_BLOCKTIME": "infinite"},
}
BAR = 1.25
GIVES_UP = 300.0
OURS = ("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep ``count`` processes computing beside the block."""
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def seconds(photo: Path, settings: dict[str, str], tree: Path) -> float:
    """Wall seconds of one fresh process; infinite when it was given up."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    command = [sys.executable, "-m", "rasr", "restore", str(photo), "-o", str(photo.with_name("out.png"))]
    begun = time.perf_counter()
    try:
        subprocess.run(
            [*command, "--overwrite", "--device", "cpu"],
            env={**environment, **settings, "PYTHONPATH": str(tree)},
            timeout=GIVES_UP,
            capture_output=True,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return float("inf")
    return time.perf_counter() - begun


def main() -> int:
    """Measure and print; the exit code says whether the bar is met where ``--check`` asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=4, help="busy processes beside it [4]")
    parser.add_argument("--runs", type=int, default=3, help="rounds [3]")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="settings [all]")
    parser.add_argument("--no-idle", action="store_true", help="leave the idle machine out")
    parser.add_argument("--tree", type=Path, default=ROOT / "src", help="source tree to measure [this one]")
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar is not met")
    options = parser.parse_args()
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {sys.version.split()[0]}"
    )
    print(f"{time.strftime('%Y-%m-%d')}, {machine}, load before: {os.getloadavg()[0]:.2f}")
    medians: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        Image.fromarray(data.chelsea()[60:188, 130:258]).save(photo)
        for count in sorted({options.busy} if options.no_idle else {0, options.busy}):
            taken: dict[str, list[float]] = {name: [] for name in options.only}
            with busy(count):
                for _ in range(options.runs):
                    for name in options.only:
                        taken[name].append(seconds(photo, SETTINGS[name], options.tree))
            medians[count] = {name: statistics.median(found) for name, found in taken.items()}
            for name, found in taken.items():
                each = ", ".join(f"{one:.1f}" for one in found)
                print(f"beside {count} busy: {name:<9}{medians[count][name]:7.1f} s   ({each})", flush=True)
    found = medians[options.busy]
    compared = [found[name] for name in ("default", "passive", "one") if name in found]
    if "default" not in found:
        return 0
    ratio = found["default"] / min(compared)
    print(f"default beside {options.busy} busy processes: {ratio:.2f} × the best (bar {BAR} ×)")
    return 1 if options.check and ratio > BAR else 0


if __name__ == "__main__":
    sys.exit(main())
