"""Adds and removes photos at random until it is killed, and logs every commit before and after it.

Run as ``ingest_worker.py GALLERY PHOTOS LOG SEED``. It waits for a line on stdin after its imports, so that kills fall
into the work and not into the start of the interpreter.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from standin import ColourLayout

from rasr.gallery import Gallery, store
from rasr.gallery import ingest as ingest_module
from rasr.gallery.photo import perceptual_hash


def main(folder: Path, photos: Path, log: Path, seed: int) -> None:
    rng = random.Random(seed)
    ingest_module.BATCH = 4
    store.LocalStore.commit_photos = rng.choice([4, 8, 16])
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    original = store.LocalWriter.commit

    def commit(self: store.LocalWriter, add: Sequence[tuple[Any, Any]] = (), remove: Collection[str] = ()) -> Any:
        line = {"remove": sorted(remove), "add": [photo.id for photo, _ in add]}
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        result = original(self, add, remove)
        os.write(descriptor, b'"done"\n')
        return result

    store.LocalWriter.commit = commit  # type: ignore[method-assign]
    gallery = Gallery(folder, encoder=ColourLayout())
    files = sorted(photos.iterdir())
    perceptual_hash(np.zeros((40, 40, 3), np.float32))  # imports scipy
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    while True:
        gallery.add(rng.sample(files, rng.randint(10, len(files))), workers=2)
        chosen = rng.sample(files, rng.randint(1, len(files) // 2))
        for start in range(0, len(chosen), 4):
            gallery.remove(chosen[start : start + 4])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
