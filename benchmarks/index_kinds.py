"""Which kind of Lance's index serves a million photos: each is built over the same table and asked the same queries.

    python benchmarks/index_kinds.py --folder DIR [--data clusters|photos|continuum] [--photos 1000000] [--queries 100]
                                     [--kinds rq3 pq sq hnsw-sq …]

The table is that of ``million_search.py --folder DIR`` (written there when it is missing); its index is replaced, by
RASR's own at the end. A search takes the candidates that an index names, reads their rows and compares their stored
vectors, as RASR does. Building and asking are processes of their own, whose peak memory is told. ``probes`` are the
partitions that are looked into, ``ef`` the breadth of the walk through a graph.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from command_line import say_where
from million_search import SPECTRA, draw, peak_memory, right, size_of, write

ALL = 4096
PARTITIONS = 61
KINDS: dict[str, tuple[str, dict[str, Any], list[dict[str, int]]]] = {
    "rq3": ("IvfRq", {"num_partitions": PARTITIONS, "num_bits": 3}, [{"probes": ALL, "candidates": 50}]),
    "rq1": ("IvfRq", {"num_partitions": PARTITIONS, "num_bits": 1}, [{"probes": ALL, "candidates": 300}]),
    "pq": (
        "IvfPq",
        {"num_partitions": 256, "num_sub_vectors": 64},
        [{"probes": probes, "candidates": 100} for probes in (16, 64, ALL)],
    ),
    "sq": ("IvfSq", {"num_partitions": PARTITIONS}, [{"probes": probes, "candidates": 20} for probes in (24, ALL)]),
    "flat": ("IvfFlat", {"num_partitions": PARTITIONS}, [{"probes": probes, "candidates": 10} for probes in (24, ALL)]),
    "hnsw-sq": (
        "HnswSq",
        {"num_partitions": 1, "ef_construction": 150},
        [{"probes": ALL, "candidates": 20, "ef": ef} for ef in (50, 100, 200, 400, 800)],
    ),
    "hnsw-pq": (
        "HnswPq",
        {"num_partitions": 1, "ef_construction": 150, "num_sub_vectors": 64},
        [{"probes": ALL, "candidates": 100, "ef": ef} for ef in (100, 200, 400)],
    ),
}
"""Class in ``lancedb.index``, what it is built with, and how it is asked."""


def build(folder: str, kind: str) -> dict[str, float]:
    """Seconds and peak memory of building an index, in this process."""
    import lancedb

    name, options, _ = KINDS[kind]
    table = lancedb.connect(folder).open_table("photos")
    begun = time.perf_counter()
    table.create_index("vector", config=getattr(lancedb.index, name)(distance_type="cosine", **options), replace=True)
    return {"seconds": time.perf_counter() - begun, "memory": peak_memory()}


def ask(folder: str, kind: str, data: str, photos: int, count: int) -> list[dict[str, Any]]:
    """Answers, times and peak memory for each setting, in this process."""
    import lancedb

    from rasr.gallery.lance_table import COLUMNS, unpacked

    queries = draw(data, count, photos, 256, 2)
    table = lancedb.connect(folder).open_table("photos")
    (index,) = (one for one in table.list_indices() if one.columns == ["vector"])
    table.prewarm_index(index.name)
    found = []
    for setting in KINDS[kind][2]:
        seconds, answers = [], []
        for place in range(-3, count):  # three before the first count for nothing
            begun = time.perf_counter()
            query = table.search(queries[place]).distance_type("cosine").nprobes(setting["probes"])
            if "ef" in setting:
                query = query.ef(setting["ef"])
            rows = query.limit(setting["candidates"]).select([*COLUMNS]).to_arrow().combine_chunks().to_batches()[0]
            named = list(unpacked(rows, queries.shape[1] * 4))
            scores = np.stack([np.frombuffer(row.vector, "<f4") for _, row in named]) @ queries[place]
            best = np.argsort(-scores)[:10]
            if place >= 0:
                seconds.append(time.perf_counter() - begun)
                answers.append([int(named[one][0], 16) for one in best])
        found.append(setting | {"seconds": seconds, "answers": answers, "memory": peak_memory()})
    return found


def main() -> None:
    """Build, ask and compare each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", choices=[*SPECTRA], default="clusters")
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS])
    parser.add_argument("--child", choices=("build", "ask"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    place = str(options.folder / options.data)
    if options.child:
        kind, count = options.kinds[0], options.queries
        told = build(place, kind) if options.child == "build" else ask(place, kind, options.data, options.photos, count)
        print(json.dumps(told))
        return
    say_where(packages=("numpy", "lancedb", "pyarrow"))
    stored = draw(options.data, options.photos, options.photos, 256, 1)
    truth = right(stored, draw(options.data, options.queries, options.photos, 256, 2))
    if not (options.folder / options.data).exists():
        print(f"written in {write(f'lance://{place}', stored):.0f} s", flush=True)
    del stored
    words = [sys.executable, __file__, "--folder", str(options.folder), "--data", options.data]
    words += ["--photos", str(options.photos), "--queries", str(options.queries), "--kinds"]
    for kind in options.kinds:
        made, asked = (
            json.loads(subprocess.run([*words, kind, "--child", step], check=True, capture_output=True).stdout)
            for step in ("build", "ask")
        )
        name, built, _ = KINDS[kind]
        print(f"\n{kind}: {name} {built}: built in {made['seconds']:.0f} s with {made['memory']:.2f} GB, "
              f"{size_of(place)}; load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
        for one in asked:
            seconds, answers = np.array(one.pop("seconds")) * 1e3, one.pop("answers")
            first = np.mean([a[0] == t[0] for a, t in zip(answers, truth, strict=True)])
            ten = np.mean([len({*a} & {*t}) / 10 for a, t in zip(answers, truth, strict=True)])
            memory = one.pop("memory")
            print(f"  {one}: median {np.median(seconds):.1f} ms, fastest {seconds.min():.1f}, recall@1 {first:.3f}, "
                  f"recall@10 {ten:.3f}, {memory:.2f} GB", flush=True)  # fmt: skip
    from rasr.gallery import Gallery

    print(f"\nRASR's own again: {dict(Gallery(f'lance://{place}').index())}")


if __name__ == "__main__":
    main()
