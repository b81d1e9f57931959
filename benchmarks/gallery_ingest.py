"""Adding real photos to a gallery: of one source tree, or of two side by side, against decoding and embedding alone.

    python benchmarks/gallery_ingest.py [FOLDER] [--rounds 3]
    python benchmarks/gallery_ingest.py FOLDER --before ../old/src --python-before ../old/.venv/bin/python

``bare`` reads, preprocesses and embeds the files in batches; nothing is hashed, compared or stored. ``add`` does so
through ``Gallery.add``; ``again`` adds the same files a second time, and ``open`` is a fresh process's first search,
its imports included. Each tree works in processes of its own on one thread, and their rounds alternate, so that a busy
machine weighs on both alike. Seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from command_line import Tree, say_where

BATCH = 32


def bare(files: list[Path], _: Path) -> dict[str, Any]:
    """Read, preprocess and embed."""
    import numpy as np

    from rasr.gallery.encoders import load_encoder
    from rasr.images import read_picture

    encoder, started = _warm(load_encoder("effnet-lite0-robust")), time.process_time()
    for start in range(0, len(files), BATCH):
        tensors = [encoder.preprocess(read_picture(path).pixels) for path in files[start : start + BATCH]]
        encoder.embed(np.stack(tensors))
    return {"bare, s": time.process_time() - started}


def add(files: list[Path], gallery: Path) -> dict[str, Any]:
    """Add the files to a new gallery, and once more."""
    from rasr.gallery import Gallery
    from rasr.gallery.encoders import load_encoder

    encoder = _warm(load_encoder("effnet-lite0-robust"))
    opened, started = Gallery(gallery, encoder=encoder), time.process_time()
    report = opened.add(files, workers=1)
    added = time.process_time()
    if report.added != len(files):
        raise SystemExit(f"{report.added} of {len(files)} photos were added: {report.failed[:3]}")
    opened.add(files, workers=1)
    return {"add, s": added - started, "again, s": time.process_time() - added}


def search(_: list[Path], gallery: Path) -> dict[str, Any]:
    """Open the gallery and search it once; the query's embedding costs nothing."""
    import numpy as np

    from rasr.gallery import Gallery

    Gallery(gallery).search(np.ones(256, np.float32), 5)
    return {"open, s": time.process_time()}


def _warm(encoder: Any) -> Any:
    """Load the weights, and what is imported on first use."""
    import numpy as np

    encoder.embed(np.zeros((1, 3, encoder.input_size, encoder.input_size), np.float32))
    return encoder


def run(tree: Tree, step: str, files: list[Path], gallery: Path) -> dict[str, Any]:
    """One step in a process of the tree's own."""
    command = [tree.python, __file__, "--step", step, str(gallery)]
    environment = tree.environment() | {"PYTHONPATH": f"{tree.source}:{Path(__file__).parent}"}
    listed = "\n".join(map(str, files))
    done = subprocess.run(command, env=environment, input=listed, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tree.source}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Run and print."""
    if sys.argv[1:2] == ["--step"]:
        files = [Path(line) for line in sys.stdin.read().splitlines()]
        print(json.dumps({"bare": bare, "add": add, "search": search}[sys.argv[2]](files, Path(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--limit", type=int, help="only the first so many photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--after", type=Path, default=Path(__file__).resolve().parent.parent / "src")
    parser.add_argument("--python-after", default=sys.executable, help="its interpreter  [this one]")
    parser.add_argument("--before", type=Path, help="source folder of an older tree")
    parser.add_argument("--python-before", default=sys.executable)
    options = parser.parse_args()
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    files = sorted(path for path in options.folder.resolve().rglob("*") if path.suffix.lower() in suffixes)
    files = files[: options.limit]
    sources = {"before": (options.before, options.python_before), "after": (options.after, options.python_after)}
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        trees = {
            title: Tree(source.resolve(), python, Path(name, f"home-{title}"))
            for title, (source, python) in sources.items()
            if source is not None
        }
        for number in range(options.rounds):
            for step in ("bare", "add", "search"):
                for title, tree in trees.items():
                    for key, value in run(tree, step, files, Path(name, f"{title}-{number}")).items():
                        found.setdefault(title, {}).setdefault(key, []).append(value)
    print(f"{len(files)} photos, median of {options.rounds}")
    print(f"{'':<12}" + "".join(f"{title:>10}" for title in trees) + ("     ratio" if len(trees) > 1 else ""))
    for key in found["after"]:
        values = [statistics.median(found[title][key]) for title in trees]
        ratio = f"{values[1] / values[0]:>10.2f}" if len(values) > 1 else ""
        print(f"{key:<12}" + "".join(f"{value:>10.2f}" for value in values) + ratio)
    say_where()


if __name__ == "__main__":
    main()
