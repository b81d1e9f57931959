"""Writing, opening and searching a large gallery: of one source tree, or of two side by side.

    python benchmarks/gallery_search.py [--photos 100000] [--dimension 256] [--queries 200]
    python benchmarks/gallery_search.py --before ../old/src --python-before ../old/.venv/bin/python

Vectors are like real embeddings: themes with a decaying spectrum. Queries are stored vectors moved by noise (cosine
about 0.9), and vectors drawn anew from the same distribution. ``write`` commits 256 photos at a time, as adding does;
``open`` is a fresh process's first search, its imports included, with every checksum verified; ``search`` is the whole
``Gallery.search``, from an embedding to References; recall@1 is against brute force. Each tree works in processes of
its own on one thread, and their rounds alternate, so that a busy machine weighs on both alike. Seconds are CPU seconds.
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

import numpy as np
from numpy.typing import NDArray

from command_line import Tree, say_where

Vectors = NDArray[np.float32]
COMMIT = 256


def unit(vectors: Vectors) -> Vectors:
    """Rows made to length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def draw(count: int, dimension: int, rng: np.random.Generator, themes: Vectors) -> Vectors:
    """``count`` vectors."""
    spectrum = (np.arange(1, dimension + 1) ** -0.6).astype(np.float32)
    noise = rng.standard_normal((count, dimension), dtype=np.float32)
    return unit((themes[rng.integers(0, len(themes), count)] + 0.7 * noise) * spectrum)


def make(folder: Path, photos: int, dimension: int, queries: int) -> None:
    """Vectors and queries, once for both trees."""
    rng = np.random.default_rng(0)
    themes = rng.standard_normal((2000, dimension), dtype=np.float32)
    stored = draw(photos, dimension, rng, themes)
    moved = stored[rng.integers(0, photos, queries // 2)]
    moved = unit(moved + (0.5 / np.sqrt(dimension)) * rng.standard_normal(moved.shape, dtype=np.float32))
    asked = np.concatenate([moved, draw(queries - len(moved), dimension, rng, themes)])
    np.save(folder / "stored.npy", stored)
    np.save(folder / "asked.npy", asked)
    np.save(folder / "best.npy", np.array([int(np.argmax(stored @ query)) for query in asked]))


def write(data: Path, gallery: Path) -> dict[str, Any]:
    """Commit all photos through the tree's own store."""
    from rasr.gallery.photo import Photo
    from rasr.gallery.store import LocalStore

    stored = np.load(data / "stored.npy")
    try:
        from rasr.gallery.database import EncoderId

        table = None
    except ImportError:  # format 1
        from rasr.gallery.pointer import EncoderId

        from rasr.gallery.photo import to_table as table
    started = time.process_time()
    identity, store = EncoderId("benchmark", "1", stored.shape[1], "benchmark"), LocalStore(gallery)
    for start in range(0, len(stored), COMMIT):
        part = stored[start : start + COMMIT]
        photos = [
            Photo(f"{i:032x}", Path(f"/photos/album/{i:06d}.jpg"), 1, 1, 1, 1, i, f"album/{i % 20}")
            for i in range(start, start + len(part))
        ]
        with store.writing(identity) as writer:
            writer.commit(list(zip(photos, part, strict=True)) if table is None else table(photos, part, gallery))
    size = sum(path.stat().st_size for path in gallery.rglob("*") if path.is_file())
    return {"write, s": time.process_time() - started, "on disk, MB": size / 1e6}


def search(data: Path, gallery: Path) -> dict[str, Any]:
    """Open the gallery, and search it."""
    from rasr.gallery import Gallery

    asked, best = np.load(data / "asked.npy"), np.load(data / "best.npy")

    class Encoder:
        name, version, dimension, input_size, fingerprint = "benchmark", "1", asked.shape[1], 1, "benchmark"

    imported = time.process_time()
    opened = Gallery(gallery, encoder=Encoder())
    opened.search(asked[0], 5)
    whole = time.process_time()
    seconds, right = [], 0
    for query, wanted in zip(asked, best, strict=True):
        started = time.process_time()
        answer = opened.search(query, 5)
        seconds.append(time.process_time() - started)
        right += int(answer[0].path.stem) == wanted
    started = time.process_time()
    opened.search(asked[1], 5, category="album/3", exclude=["/photos/album/000001.jpg"])
    filtered = time.process_time() - started
    return {
        "open, s": whole,
        "open without imports, s": whole - imported,
        "search, ms": 1e3 * statistics.median(seconds),
        "first filtered search, ms": 1e3 * filtered,
        "recall@1": right / len(asked),
    }


def run(tree: Tree, step: str, *arguments: object) -> dict[str, Any]:
    """One step in a process of the tree's own."""
    command = [tree.python, __file__, "--step", step, *map(str, arguments)]
    environment = tree.environment() | {"PYTHONPATH": f"{tree.source}:{Path(__file__).parent}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tree.source}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Run and print."""
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps({"write": write, "search": search}[sys.argv[2]](Path(sys.argv[3]), Path(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=256, help="256: the default encoder; 1280: effnet-lite0")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--after", type=Path, default=Path(__file__).resolve().parent.parent / "src")
    parser.add_argument("--python-after", default=sys.executable, help="its interpreter  [this one]")
    parser.add_argument("--before", type=Path, help="source folder of an older tree")
    parser.add_argument("--python-before", default=sys.executable)
    options = parser.parse_args()
    sources = {"before": (options.before, options.python_before), "after": (options.after, options.python_after)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.photos, options.dimension, options.queries)
        trees = {
            title: Tree(source.resolve(), python, folder / f"home-{title}")
            for title, (source, python) in sources.items()
            if source is not None
        }
        found = {title: {key: [value] for key, value in run(tree, "write", folder, folder / title).items()}
                 for title, tree in trees.items()}  # fmt: skip
        for _ in range(options.rounds):
            for title, tree in trees.items():
                for key, value in run(tree, "search", folder, folder / title).items():
                    found[title].setdefault(key, []).append(value)
    print(f"{options.photos} photos of {options.dimension} dimensions, median of {options.rounds}")
    print(f"{'':<28}" + "".join(f"{title:>10}" for title in trees) + ("     ratio" if len(trees) > 1 else ""))
    for key in found["after"]:
        values = [statistics.median(found[title][key]) for title in trees]
        ratio = f"{values[1] / values[0]:>10.2f}" if len(values) > 1 else ""
        print(f"{key:<28}" + "".join(f"{value:>10.3f}" for value in values) + ratio)
    say_where(packages=("numpy", "xxhash"))


if __name__ == "__main__":
    main()
