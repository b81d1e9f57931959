"""Adds and removes photos at random until it is killed, and logs every commit before and after it.

Run as ``ingest_worker.py GALLERY PHOTOS LOG SEED``. It waits for a line on stdin after its imports, so that kills fall
into the work and not into the start of the interpreter.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import lancedb  # noqa: F401
from standin import ColourLayout

from rasr.gallery import Gallery, writer
from rasr.gallery import ingest as ingest_module


def main(folder: Path, photos: Path, log: Path, seed: int) -> None:
    rng = random.Random(seed)
    ingest_module.BATCH = 4
    ingest_module.COMMIT_PHOTOS = rng.choice([4, 8, 16])
    writer.COMPACT_COMMITS = rng.choice([3, 6])
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    original = writer.Writer.commit

    def commit(self: writer.Writer, add: Any = None, remove: Collection[str] = ()) -> Any:
        added = add.column("id").to_pylist() if add is not None else []
        os.write(descriptor, (json.dumps({"remove": sorted(remove), "add": added}) + "\n").encode())
        result = original(self, add, remove)
        os.write(descriptor, b'"done"\n')
        return result

    writer.Writer.commit = commit  # type: ignore[method-assign]
    gallery = Gallery(folder, encoder=ColourLayout())
    files = sorted(photos.iterdir())
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    while True:
        gallery.add(rng.sample(files, rng.randint(10, len(files))), workers=2)
        chosen = rng.sample(files, rng.randint(1, len(files) // 2))
        gallery.remove(chosen)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
