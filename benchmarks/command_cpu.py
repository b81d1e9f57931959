"""CPU seconds of ``rasr`` commands, of one source tree or of two side by side.

    python benchmarks/command_cpu.py --photos DIR                          the tree beside this script
    python benchmarks/command_cpu.py --photos DIR --before ../old/src --python-before ../old/.venv/bin/python
    python benchmarks/command_cpu.py --photos DIR --only help search       some of the commands

Each figure is user and system time of one fresh process and its children, on one thread: the median of ``--runs``.
With two trees their runs alternate, so that a busy machine weighs on both alike, and the ratio is that of the medians.
The gallery holds the first 200 pictures of DIR, each tree's in its own format; the query is the next one's centre made
128 px small, which is also what is restored, ×4.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

from command_line import Tree, say_where

COMMANDS: dict[str, list[str]] = {
    "help": ["--help"],
    "models": ["models", "list"],
    "doctor": ["doctor"],
    "search": ["search", "gallery", "query.png"],
    "bicubic": ["restore", "query.png", "-o", "out.png", "--overwrite", "--preset", "bicubic", "--device", "cpu"],
    "mini": ["restore", "query.png", "-o", "out.png", "--overwrite", "--preset", "mini", "--device", "cpu"],
    "mini-gallery": [
        *("restore", "query.png", "-o", "out.png", "--overwrite", "--preset", "mini", "--device", "cpu"),
        *("-g", "gallery"),
    ],
}
"""Short name → arguments."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def prepare(folder: Path, tree: Tree, photos: list[Path]) -> None:
    """Make the query and the tree's gallery."""
    folder.mkdir()
    with Image.open(photos[-1]) as opened:
        square = ImageOps.fit(opened.convert("RGB"), (512, 512))
    square.resize((128, 128), Image.Resampling.BICUBIC).save(folder / "query.png")
    tree.run("gallery", "add", "gallery", *photos[:-1], cwd=folder)


def seconds(tree: Tree, folder: Path, arguments: list[str]) -> float:
    """CPU seconds of one run."""
    child = subprocess.Popen(
        tree.command(arguments), cwd=folder, env=tree.environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"rasr {' '.join(arguments)} ({tree.source}): exit {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure and print a line a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with more than 200 pictures")
    parser.add_argument("--gallery", type=int, default=200, metavar="N", help="pictures in the gallery  [200]")
    parser.add_argument("--after", type=Path, default=Path(__file__).resolve().parent.parent / "src")
    parser.add_argument("--python-after", default=sys.executable, help="its interpreter  [this one]")
    parser.add_argument("--before", type=Path, help="source folder of an older tree")
    parser.add_argument("--python-before", default=sys.executable)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    options = parser.parse_args()
    found = sorted(path for path in options.photos.resolve().rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(found) <= options.gallery:
        raise SystemExit(f"{options.photos} holds {len(found)} pictures; {options.gallery + 1} are needed.")
    photos = found[: options.gallery + 1]
    sources = {"before": (options.before, options.python_before), "after": (options.after, options.python_after)}
    with tempfile.TemporaryDirectory() as name:
        trees = {
            title: Tree(source.resolve(), python, Path(name, f"home-{title}"))
            for title, (source, python) in sources.items()
            if source is not None
        }
        for title, tree in trees.items():
            if any("gallery" in COMMANDS[name] for name in options.only):
                prepare(Path(name, title), tree, photos)
            else:
                prepare(Path(name, title), tree, photos[-2:])
        print(
            f"{'':<14}" + "".join(f"{title + ' (s)':>12}" for title in trees) + ("     ratio" if len(trees) > 1 else "")
        )
        for command in options.only:
            measured: dict[str, list[float]] = {title: [] for title in trees}
            for _ in range(options.runs):
                for title, tree in trees.items():
                    measured[title].append(seconds(tree, Path(name, title), COMMANDS[command]))
            medians = [statistics.median(values) for values in measured.values()]
            ratio = f"{medians[1] / medians[0]:>10.2f}" if len(medians) > 1 else ""
            print(f"{command:<14}" + "".join(f"{median:>12.2f}" for median in medians) + ratio, flush=True)
    print(f"median of {options.runs}, a gallery of {options.gallery} photos")
    say_where(packages=("numpy", "torch", "pillow", "ncnn"))


if __name__ == "__main__":
    main()
