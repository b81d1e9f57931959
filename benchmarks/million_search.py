"""Search over a million photos: a Lance table with its index, and exact search in memory beside it, in one run.

    python benchmarks/million_search.py [--data clusters|photos|continuum] [--photos 1000000] [--queries 200]
                                        [--dimension 256] [--folder DIR] [--check]
    python benchmarks/million_search.py --look-at ../shared/photos

Vectors are clusters (one centre for 50 photos) and queries are drawn from the same clusters but are none of the stored
ones. ``clusters``: centres and noise are the same in all directions, so that partitions can follow nothing, and what is
no neighbour is far away. ``photos``: both have the spectra that embeddings of real photos have, centres that of
different photos and noise that of windows of one photo, so that what is no neighbour is nearer. ``continuum``: vectors
of the spectrum of different photos without any clusters, so that much else is nearly as near as the tenth. All three
are asked unless one is named; ``--look-at`` tells how the embeddings of real photos are spread.

Rows are written by the store's own commits, the index is built by ``Gallery.index``. Exact search beside it:
``clusters`` are written to a gallery in a folder (SQLite), too, and asked there; what is right is told by a matrix
product with all vectors. Queries are asked in processes of their own, which have read nothing else: their peak memory
is the search's. ``--check`` holds for all kinds: median at most 20 ms, recall@1 0.99, recall@10 0.95, memory 4 GB; on a
machine that does other work the times mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from command_line import say_where

Vectors = NDArray[np.float32]
BARS = {"median ms": 20.0, "recall@1": 0.99, "recall@10": 0.95, "memory GB": 4.0}
COMMIT = 50_000


SPECTRA = {"clusters": (0.0, 0.0), "photos": (0.8, 0.4), "continuum": (0.8, 0.8)}
"""Powers by which the variance falls from one direction to the next, of centres and of what lies around them.

435 photos by the default encoder (``--look-at``, 2026-11-28): variance between photos at direction 10, 50, 100, 200
relative to the first 0.21, 0.059, 0.030, 0.012 (power 0.8: 0.16, 0.044, 0.025, 0.014; effective dimension 58 against
46), within windows of one photo 0.36, 0.14, 0.076, 0.029 (power 0.4: 0.40, 0.21, 0.16, 0.12); cosine of different
photos 0 ± 0.12.
"""


def draw(data: str, count: int, photos: int, dimension: int, seed: int) -> Vectors:
    """``count`` unit vectors of the clusters."""
    rng = np.random.default_rng(0)
    even = data == "continuum"
    centres = rng.standard_normal((1 if even else max(1, photos // 50), dimension), dtype=np.float32)
    between, within = (np.arange(1, dimension + 1, dtype=np.float32) ** (-power / 2) for power in SPECTRA[data])
    centres *= between
    centres /= np.inf if even else np.linalg.norm(centres, axis=1, keepdims=True)
    within *= np.float32(0.9) / np.linalg.norm(within)
    turned = np.eye(dimension, dtype=np.float32)
    if data != "clusters":  # no direction of an encoder is an axis
        turned = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0].astype(np.float32)
    rng = np.random.default_rng(seed)
    drawn = np.empty((count, dimension), np.float32)
    for start in range(0, count, COMMIT):
        part = drawn[start : start + COMMIT]
        noise = rng.standard_normal(part.shape, dtype=np.float32) * within
        part[:] = (centres[rng.integers(0, len(centres), len(part))] + noise) @ turned
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return drawn


def look_at(folder: Path) -> None:
    """Say how the embeddings of real photos, and of five windows of each, are spread."""
    from rasr.gallery.encoders import DEFAULT_ENCODER, load_encoder
    from rasr.images import read_picture, walk_pictures

    encoder, rng, found = load_encoder(DEFAULT_ENCODER), np.random.default_rng(0), []
    for _, path in walk_pictures(folder):
        pixels = read_picture(path).opaque()
        windows = [pixels]
        for _ in range(5):
            height, width = (int(side * rng.uniform(0.4, 0.9)) for side in pixels.shape[:2])
            top, left = (rng.integers(0, a - b + 1) for a, b in zip(pixels.shape, (height, width), strict=False))
            windows.append(pixels[top : top + height, left : left + width])
        found.append(encoder.embed(np.stack([encoder.preprocess(one) for one in windows])))
    vectors = np.array(found)
    cosines = vectors[:, 0] @ vectors[:, 0].T
    apart = cosines[np.triu_indices(len(cosines), 1)]
    np.fill_diagonal(cosines, -1)
    print(f"{len(vectors)} photos: cosine {apart.mean():.3f} ± {apart.std():.3f}, of the nearest other one "
          f"{np.median(cosines.max(axis=1)):.3f} (median)")  # fmt: skip
    inside = vectors - vectors.mean(axis=1, keepdims=True)
    for name, part in (("between photos", vectors[:, 0] - vectors[:, 0].mean(axis=0)), ("within", inside)):
        spread = np.linalg.svd(part.reshape(-1, part.shape[-1]), compute_uv=False) ** 2
        told = ", ".join(f"{spread[n - 1] / spread[0]:.3f}" for n in (10, 50, 100, 200) if n <= len(spread))
        effective = spread.sum() ** 2 / (spread**2).sum()
        print(f"{name}: effective dimension {effective:.0f}, variance at direction 10, 50, 100, 200: {told}")


def write(place: str, stored: Vectors) -> float:
    """Commit photos by the store; gives seconds."""
    from rasr.gallery.database import EncoderId
    from rasr.gallery.photo import Photo
    from rasr.gallery.stores import open_store

    begun = time.perf_counter()
    with open_store(place, lock_timeout=600).writing(EncoderId("drawn", "1", stored.shape[1], "drawn/1")) as writer:
        for start in range(0, len(stored), COMMIT):
            part = stored[start : start + COMMIT]
            photos = [
                Photo(f"{n:032x}", Path(f"/photos/{n:08d}.jpg"), 100_000, 1, 640, 480, n, f"theme/{n % 100}")
                for n in range(start, start + len(part))
            ]
            writer.commit(list(zip(photos, part, strict=True)))
    return time.perf_counter() - begun


def ask(place: str, queries: Vectors) -> dict[str, Any]:
    """Answers and times of ``Gallery.search``'s own path, from a vector to photos; called in a fresh process."""
    from rasr.gallery.indexed_search import IndexedSnapshot
    from rasr.gallery.search import Query, Snapshot
    from rasr.gallery.stores import open_store

    begun = time.perf_counter()
    store = open_store(place)
    nearest = store.nearest()
    snapshot = Snapshot(store.read(vectors=True)) if nearest is None else IndexedSnapshot(nearest, None, _never)
    snapshot.prewarm()
    loaded = time.perf_counter() - begun
    begun = time.perf_counter()
    snapshot.search([Query(queries[0])], 10, {})
    first = time.perf_counter() - begun
    seconds, answers = [], []
    for query in queries:
        begun = time.perf_counter()
        hits = snapshot.search([Query(query)], 10, {})[0]
        photos = snapshot.photos(hits)
        seconds.append(time.perf_counter() - begun)
        answers.append([int(photo.id, 16) for photo in photos])
    return {"seconds": seconds, "answers": answers, "memory": peak_memory(), "loaded": loaded, "first": first}


def peak_memory() -> float:
    """GB that this process has had at most; ru_maxrss would be its parent's."""
    facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return int(facts["VmHWM"].split()[0]) / 2**20


def _never() -> Any:
    raise AssertionError("an exact search was asked for")


def right(stored: Vectors, queries: Vectors) -> list[list[int]]:
    """The ten nearest of each query, by matrix products with all vectors; says how long one takes."""
    seconds, truth = [], []
    for query in queries:
        begun = time.perf_counter()
        scores = stored @ query
        best = np.argpartition(scores, -10)[-10:]
        seconds.append(time.perf_counter() - begun)
        truth.append(best[np.argsort(-scores[best])].tolist())
    print(f"matrix product: median {np.median(seconds) * 1e3:.1f} ms, fastest {min(seconds) * 1e3:.1f}", flush=True)
    return truth


def size_of(place: str) -> str:
    """Bytes of a gallery's files, in words, and those of its index."""
    files = [path for path in Path(place.removeprefix("lance://")).rglob("*") if path.is_file()]
    newest = max(
        (path for path in files if "_indices" in path.parts), key=lambda one: one.stat().st_mtime, default=None
    )
    index = sum(path.stat().st_size for path in files if newest is not None and path.parent == newest.parent)
    whole = sum(path.stat().st_size for path in files)
    return f"{whole / 1e6:.0f} MB on disk" + (f", {index / 1e6:.0f} of them index" if index else "")


def measure(place: str, data: str, options: argparse.Namespace, truth: list[list[int]]) -> dict[str, float]:
    """Ask the queries in a fresh process and compare the answers; says all, and gives what bars are set for."""
    words = [f"--{name}={getattr(options, name)}" for name in ("photos", "dimension", "queries")]
    done = subprocess.run(
        [sys.executable, __file__, "--ask", place, "--data", data, *words], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    seconds, answers = np.array(found["seconds"]) * 1e3, found["answers"]
    print(
        f"{size_of(place)}; loaded in {found['loaded']:.1f} s, first query {found['first'] * 1e3:.0f} ms, fastest "
        f"{seconds.min():.1f}, p95 {np.percentile(seconds, 95):.1f}; load {os.getloadavg()[0]:.1f}"
    )
    return {
        "median ms": float(np.median(seconds)),
        "recall@1": float(np.mean([a[0] == t[0] for a, t in zip(answers, truth, strict=True)])),
        "recall@10": float(np.mean([len({*a} & {*t}) / 10 for a, t in zip(answers, truth, strict=True)])),
        "memory GB": found["memory"],
    }


def main() -> int:
    """Write, index, ask, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=[*SPECTRA], help="All unless one is named.")
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="Keep the galleries there, and go on with those that are there.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--look-at", type=Path, metavar="FOLDER", help="Tell how real photos' embeddings are spread.")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look_at:
        look_at(options.look_at)
        return 0
    if options.ask:
        queries = draw(options.data, options.queries, options.photos, options.dimension, 2)
        print(json.dumps(ask(options.ask, queries)))
        return 0
    say_where(packages=("numpy", "lancedb", "pyarrow"))
    from rasr.gallery import Gallery
    from rasr.gallery.stores import is_gallery

    missed = []
    kinds = [options.data] if options.data else [*SPECTRA]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for data in kinds:
            print(f"\n{data}: {options.photos} × {options.dimension}, load {os.getloadavg()[0]:.1f}")
            stored = draw(data, options.photos, options.photos, options.dimension, 1)
            truth = right(stored, draw(data, options.queries, options.photos, options.dimension, 2))
            places = {"indexed": f"lance://{folder / data}"}
            if data == "clusters":
                places["in a folder"] = str(folder / f"{data}-sqlite")
            for how, place in places.items():
                if not is_gallery(place):
                    print(f"{how}: written in {write(place, stored):.0f} s", flush=True)
            del stored
            begun = time.perf_counter()
            built = dict(Gallery(places["indexed"]).index())
            print(f"index {built} built in {time.perf_counter() - begun:.0f} s", flush=True)
            for how, place in places.items():
                print(f"{how}: ", end="")
                for name, figure in measure(place, data, options, truth).items():
                    good = figure >= BARS[name] if name.startswith("recall") else figure <= BARS[name]
                    bar = f"   bar {BARS[name]:g}{'' if good else '   MISSED'}" if how == "indexed" else ""
                    print(f"  {name:<12}{figure:9.3f}{bar}", flush=True)
                    missed += [] if good or not bar else [name]
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
