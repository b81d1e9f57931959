"""The ``rasr`` command of a source tree, for the benchmarks that run two trees side by side: one thread, no network."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

import skimage
from PIL import Image

SAMPLES = Path(skimage.__file__).parent / "data"
"""Photos that scikit-image installs, among them both views of a stereo pair (motorcycle, Middlebury 2014)."""
PHOTOS = ("motorcycle_right.png", "astronaut.png", "brick.png", "chelsea.png", "coffee.png", "rocket.jpg")


@dataclass(frozen=True)
class Tree:
    """A source tree, the interpreter that runs it, and a private cache folder."""

    source: Path
    python: str
    home: Path

    def environment(self) -> dict[str, str]:
        """The environment of a run: this tree first, one thread, nobody asked for a file."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RASR_", "PYTHON"))}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        own = {"PYTHONPATH": str(self.source), "RASR_HOME": str(self.home), "HF_HUB_OFFLINE": "1", "RASR_OFFLINE": "1"}
        return kept | threads | own | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, arguments: Sequence[object], *, script: str | None = None) -> list[str]:
        """The command: ``python -m rasr ARGUMENTS``, or a script of one's own that is given the arguments."""
        start = ["-m", "rasr"] if script is None else ["-c", script]
        return [self.python, *start, *map(str, arguments)]

    def run(
        self, *arguments: object, cwd: Path, script: str | None = None, exit_codes: Sequence[int] = (0,)
    ) -> subprocess.CompletedProcess[str]:
        """Run the command in ``cwd``; any other exit code ends the benchmark with what the command said."""
        done = subprocess.run(
            self.command(arguments, script=script),
            cwd=cwd, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode not in exit_codes:
            words = " ".join(map(str, arguments))
            raise SystemExit(f"rasr {words} ({self.source}): exit {done.returncode}\n{done.stderr[-3000:]}")
        return done


def sample(name: str, box: tuple[int, int, int, int] | None = None, side: int | None = None) -> Image.Image:
    """One of scikit-image's photos as RGB: a part of it, then its longer side made ``side`` px by bicubic."""
    with Image.open(SAMPLES / name) as opened:
        image = opened.convert("RGB")
    image = image if box is None else image.crop(box)
    if side is not None:
        scale = side / max(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return image


def save_photos(folder: Path, side: int | None = 400) -> Path:
    """Fill ``folder`` with scikit-image's photos, the stereo pair's right view among them."""
    folder.mkdir(parents=True)
    for name in PHOTOS:
        sample(name, side=side).save(folder / f"{Path(name).stem}.png")
    return folder


def say_where(out: IO[str] = sys.stdout, packages: Sequence[str] = ("numpy", "torch", "pillow")) -> None:
    """Print the machine and the versions that the figures belong to."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; Python {platform.python_version()}, {versions}", file=out)
