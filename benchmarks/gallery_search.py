"""Search time and recall on a gallery of 100 000 vectors of 1 280 dimensions.

Two galleries: ``clustered`` vectors, like real embeddings (themes with a decaying spectrum), and ``uniform`` ones on
the sphere, the hardest case. Queries are stored vectors moved by noise (cosine about 0.9), and vectors drawn anew from
the same distribution. Recall@1 is against brute force. Times are those of the whole ``Gallery.search``, from an
embedding to References, and of opening the gallery (every checksum verified, vectors loaded).

    python benchmarks/gallery_search.py [--photos 100000] [--queries 200] [--threads 2] [--index]

``--index`` also builds the approximate index, which is otherwise made only for larger galleries.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

THREADS = int(sys.argv[sys.argv.index("--threads") + 1]) if "--threads" in sys.argv else 2
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(THREADS)

import numpy as np  # noqa: E402  (reads the number of threads when imported)
from numpy.typing import NDArray  # noqa: E402

D = 1280
Vectors = NDArray[np.float32]


def unit(vectors: Vectors) -> Vectors:
    """Rows made to length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def draw(kind: str, count: int, rng: np.random.Generator, themes: Vectors) -> Vectors:
    """``count`` vectors of one kind."""
    noise = rng.standard_normal((count, D), dtype=np.float32)
    if kind == "uniform":
        return unit(noise)
    spectrum = (np.arange(1, D + 1) ** -0.6).astype(np.float32)
    return unit((themes[rng.integers(0, len(themes), count)] + 0.7 * noise) * spectrum)


def build(folder: Path, vectors: Vectors, *, index: bool) -> None:
    """A gallery holding ``vectors``, written through the gallery's own store."""
    from rasr.gallery.pointer import EncoderId

    from rasr.gallery.photo import Photo, to_table
    from rasr.gallery.store import Store

    store = Store(folder)
    with store.writing(EncoderId("benchmark", "1", D, "benchmark")) as writer:
        for start in range(0, len(vectors), 10_000):
            part = vectors[start : start + 10_000]
            photos = [
                Photo(f"{start + i:032x}", Path(f"/photos/{start + i:06d}.jpg"), 1, 1, 1, 1, start + i)
                for i in range(len(part))
            ]
            writer.commit(to_table(photos, part, None))
        started = time.perf_counter()
        writer.compact(force_index=index)
        print(f"  compact{' and index' if index else ''}: {time.perf_counter() - started:.1f} s")


def measure(kind: str, options: argparse.Namespace) -> None:
    """Build one gallery, search it, print."""
    from rasr.gallery import Gallery

    class Encoder:
        name, version, dimension, input_size, fingerprint = "benchmark", "1", D, 1, "benchmark"

    rng = np.random.default_rng(0)
    themes = rng.standard_normal((2000, D), dtype=np.float32)
    stored = draw(kind, options.photos, rng, themes)
    moved = stored[rng.integers(0, len(stored), options.queries)]
    moved = unit(moved + (0.5 / np.sqrt(D)) * rng.standard_normal(moved.shape, dtype=np.float32))
    queries = {"moved": moved, "drawn anew": draw(kind, options.queries, rng, themes)}
    best = {name: [int(np.argmax(stored @ query)) for query in asked] for name, asked in queries.items()}
    with tempfile.TemporaryDirectory() as folder:
        print(f"{kind}: {options.photos} × {D}")
        build(Path(folder) / "g", stored, index=options.index)
        del stored
        started = time.perf_counter()
        gallery = Gallery(Path(folder) / "g", encoder=Encoder())
        gallery.search(moved[0], 5)
        print(f"  open, verify checksums and first search: {time.perf_counter() - started:.2f} s")
        for name, asked in queries.items():
            seconds, right = [], 0
            for query, wanted in zip(asked, best[name], strict=True):
                started = time.perf_counter()
                answer = gallery.search(query, 5)
                seconds.append(time.perf_counter() - started)
                right += int(answer[0].path.stem) == wanted
            print(
                f"  queries {name}: median {np.median(seconds) * 1e3:.1f} ms, "
                f"p95 {np.percentile(seconds, 95) * 1e3:.1f} ms, recall@1 {right / len(asked):.4f}"
            )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=THREADS, help="set before numpy is imported")
    parser.add_argument("--index", action="store_true")
    options = parser.parse_args()
    for kind in ("clustered", "uniform"):
        measure(kind, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, {options.threads} threads, load "
        f"{os.getloadavg()[0]:.1f}, peak {peak:.1f} GiB; Python {platform.python_version()}, numpy {np.__version__}, "
        f"lancedb {version('lancedb')}"
    )


if __name__ == "__main__":
    main()
