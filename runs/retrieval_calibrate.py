"""Calibrate the retrieval policy for an encoder: thresholds by gallery size, and margin.

    python -m runs.retrieval_calibrate --encoder effnet-lite0 [--photos DIR] [--write FILE.toml]

Queries are degraded photos (kinds crop, whole and light of retrieval_set.py, in equal parts); the gallery is the rest
of the set, without the query's own photo. A query is *out of the gallery* when every photo of its own and of related
categories has been removed: whatever is found then is unrelated. Thresholds are set so that 1 in 10 such queries finds
a photo above them, for random galleries of several sizes. ``sure`` is passed by 1 in 100, in the largest gallery. The
margin is what all but 1 in 100 queries have in the hardest gallery there is, one of their own category only. Without
--write nothing is stored. A FILE named calibration.toml in RASR's home folder (RASR_HOME, or ~/.cache/rasr) is used by
rasr in place of the shipped figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.config import read_toml
from rasr.files import write_bytes
from rasr.gallery.encoders import load_encoder
from runs import machine
from runs.retrieval_set import Photo, arguments, embeddings, photos, query

QUERY_KINDS = ("crop", "whole", "light")
SIZES = (1, 3, 10, 30, 100)
FALSE_ACCEPTS = (0.01, 0.02, 0.05, 0.10, 0.20)
TARGET, SURE, LOST = 0.10, 0.01, 0.01
RELATED = """
beach coast-cliff lake-wetland mountain-lake mountain-valley snow-mountain river-stream sunset-water water-surface \
winter-snow-ice canyon-rock desert-dune field-grassland forest night-sky
architecture-historic architecture-modern bridge-pier city-skyline street
bird cat dog insect mammal marine-life reptile-amphibian
flower flower-daisy-sunflower flower-lotus leaf-foliage forest field-grassland
texture-stone wood canyon-rock
"""
"""Categories that may well show the same things, one group a line, for the photo set this was written for."""


def related(categories: list[str]) -> NDArray[np.bool_]:
    """Compare categories, (N, N): true when the same or of one group of :data:`RELATED`."""
    groups = [set(line.split()) for line in RELATED.strip().splitlines()]
    return np.array([[a == b or any({a, b} <= group for group in groups) for b in categories] for a in categories])


class Scores:
    """Similarities of the queries of one kind to all photos, and the best under a condition."""

    def __init__(self, queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> None:
        self.all = queries @ gallery.T
        np.fill_diagonal(self.all, -np.inf)

    def best(self, allowed: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Return the highest score and its photo for every query, among the photos allowed to it."""
        scores = np.where(allowed, self.all, -np.inf)
        return scores.max(axis=1), scores.argmax(axis=1)

    def best_of(self, size: int, allowed: NDArray[np.bool_], draws: int = 10) -> NDArray[np.float32]:
        """Return the highest scores over random galleries of ``size`` allowed photos, all draws."""
        random = np.random.default_rng(size)
        drawn = []
        for row, mask in zip(self.all, allowed, strict=True):
            candidates = row[mask & np.isfinite(row)]
            drawn += [random.choice(candidates, min(size, candidates.size), replace=False).max() for _ in range(draws)]
        return np.array(drawn, np.float32)

    def above_median(self, allowed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the best allowed score minus their median, for queries with ten photos or more."""
        rows = [row[mask & np.isfinite(row)] for row, mask in zip(self.all, allowed, strict=True)]
        return np.array([row.max() - np.median(row) for row in rows if row.size >= 10], np.float32)


Part = tuple[list[Scores], NDArray[np.bool_], NDArray[np.bool_]]


def figures(parts: list[Part]) -> dict[str, Any]:
    """Compute thresholds, margin, sure and curve from the scores of photo sets."""
    largest = min(int(np.median(unrelated.sum(axis=1))) for _, _, unrelated in parts)
    by_size = {
        size: np.concatenate([s.best_of(size, unrelated) for kinds, _, unrelated in parts for s in kinds])
        for size in (*(size for size in SIZES if size < largest), largest)
    }
    best, margins = [], []
    for kinds, same, _ in parts:
        for scores in kinds:
            top, where = scores.best(np.ones_like(same))
            right = same[np.arange(len(same)), where]
            best.append(top[right])
            margins.append(scores.above_median(same))
    right_matches = np.concatenate(best)
    curve = []
    for rate in FALSE_ACCEPTS:
        at = float(np.quantile(by_size[largest], 1 - rate))
        accept = float((right_matches >= at).mean())
        curve.append({"false_accept": rate, "threshold": round(at, 3), "accept": round(accept, 3)})
    return {
        "thresholds": [[size, round(float(np.quantile(top, 1 - TARGET)), 3)] for size, top in by_size.items()],
        "margin": round(float(np.quantile(np.concatenate(margins), LOST)), 3),
        "sure": round(float(np.quantile(by_size[largest], 1 - SURE)), 3),
        "curve": curve,
    }


def show(table: dict[str, Any]) -> None:
    """Print what :func:`figures` found."""
    print("threshold by gallery size: " + ", ".join(f"{size}: {value:.3f}" for size, value in table["thresholds"]))
    print(f"sure {table['sure']:.3f}, margin {table['margin']:.3f}")
    for point in table["curve"]:
        rate, threshold, accept = point["false_accept"], point["threshold"], point["accept"]
        print(f"false accepts {rate:.2f}: threshold {threshold:.3f}, correct matches accepted {accept:.3f}")


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print the table, and store it when asked."""
    parser = arguments(__doc__)
    parser.add_argument("--write", type=Path, help="calibration.toml to put the figures into")
    options = parser.parse_args(given)
    encoder = load_encoder(options.encoder)
    everything = photos(options.photos)
    categories = [photo.category for photo in everything]
    same = np.array([[a == b for b in categories] for a in categories])
    unrelated = ~related(categories)

    def kind_of(kind: str) -> NDArray[np.float32]:
        def pixels(photo: Photo):  # noqa: ANN202
            return query(photo, kind, 0)

        return embeddings(encoder, kind if kind == "clean" else f"{kind}-0", everything, pixels, options.cache)

    gallery = kind_of("clean")
    kinds = {kind: Scores(kind_of(kind), gallery) for kind in ("clean", *QUERY_KINDS)}
    degraded = [kinds[kind] for kind in QUERY_KINDS]

    table = figures([(degraded, same, unrelated)])
    print(f"{encoder.fingerprint}\n{len(everything)} photos, {len(set(categories))} categories; {machine()}")
    show(table)
    full = table["thresholds"][-1][1]
    for kind, scores in kinds.items():
        top, where = scores.best(np.ones_like(same))
        right = same[np.arange(len(same)), where]
        likely = ~unrelated[np.arange(len(same)), where]
        gone = scores.best(~same)[0]
        far = scores.best(unrelated)[0]
        print(
            f"{kind:6} P@1 {right.mean():.3f}, related@1 {likely.mean():.3f}; accepted at {full:.3f}: "
            f"correct {(top[right] >= full).mean():.2f}, related {(top[likely] >= full).mean():.2f}, "
            f"own category removed {(gone >= full).mean():.2f}, related removed {(far >= full).mean():.2f}"
        )
    if options.write:
        store(options.write, encoder.name, encoder.fingerprint, {"photos": len(everything), **table})


def store(path: Path, name: str, fingerprint: str, table: dict[str, Any]) -> None:
    """Put one encoder's figures into the file, leaving the others."""
    tables = read_toml(path, "calibration") if path.exists() else {}
    tables[name] = {"fingerprint": fingerprint, "date": f"{datetime.now(UTC):%Y-%m-%d}", **table}
    lines = ["# Written by runs/retrieval_calibrate.py; what the figures mean is in docs/retrieval.md."]
    for encoder, figures in sorted(tables.items()):
        lines += ["", f'["{encoder}"]' if ":" in encoder else f"[{encoder}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in figures.items()]
    write_bytes(("\n".join(lines) + "\n").encode(), path, overwrite=True)
    print(f"written to {path}")


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    main()
