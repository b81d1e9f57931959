"""Adding photos to a gallery against nothing but decoding and embedding them.

Both do the same work on the same files, with the real encoder and the same batch size: once as a bare loop (read,
preprocess, embed; nothing is hashed, compared or stored), once through ``Gallery.add``. Rounds alternate, so that a
machine that is busy with something else is so for both.

    python benchmarks/gallery_ingest.py [FOLDER] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

BATCH = 32


def bare_loop(files: list[Path], encoder: object) -> float:
    """Seconds to read, preprocess and embed ``files``."""
    from rasr.images import read_picture

    started = time.perf_counter()
    for start in range(0, len(files), BATCH):
        tensors = [encoder.preprocess(read_picture(path).pixels) for path in files[start : start + BATCH]]
        encoder.embed(np.stack(tensors))
    return time.perf_counter() - started


def gallery_add(files: list[Path], encoder: object) -> float:
    """Seconds to add ``files`` to a new gallery."""
    from rasr.gallery import Gallery

    gallery = Gallery(":memory:", encoder=encoder)
    started = time.perf_counter()
    report = gallery.add(files)
    seconds = time.perf_counter() - started
    if report.added != len(files):
        raise SystemExit(f"{report.added} of {len(files)} photos were added: {report.failed[:3]}")
    gallery.close()
    return seconds


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import lancedb  # noqa: F401  (imported here so that its import is not timed)
    import torch

    from rasr.gallery import ingest
    from rasr.gallery.encoders import load_encoder
    from rasr.images import find_pictures

    if ingest.BATCH != BATCH:
        raise SystemExit("the gallery's batch size has changed; change this one with it")
    torch.set_num_threads(options.threads)
    files = find_pictures([options.folder])
    encoder = load_encoder("effnet-lite0")
    bare_loop(files[:BATCH], encoder)  # weights and file cache
    bare, added = [], []
    for number in range(options.rounds):
        bare.append(len(files) / bare_loop(files, encoder))
        added.append(len(files) / gallery_add(files, encoder))
        print(f"round {number + 1}: bare loop {bare[-1]:.2f}, gallery add {added[-1]:.2f} images/s", flush=True)
    ratios = [one / other for one, other in zip(added, bare, strict=True)]
    print(
        f"{len(files)} photos, batch {BATCH}: bare {statistics.median(bare):.2f}, "
        f"add {statistics.median(added):.2f} images/s, ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, {options.threads} torch threads, "
        f"load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"lancedb {version('lancedb')}, Pillow {version('pillow')}"
    )


if __name__ == "__main__":
    main()
