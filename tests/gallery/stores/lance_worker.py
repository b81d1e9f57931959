"""Adds photos to a gallery: ``lance_worker.py GALLERY LOG COMMIT PHOTO...``; logs every commit before and after it.

It waits for a line on stdin after its imports, so that kills fall into the work.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from standin import ColourLayout

from rasr.gallery import Gallery
from rasr.gallery import ingest as ingest_module
from rasr.gallery.lance_store import LanceStore, LanceWriter
from rasr.gallery.photo import perceptual_hash

if __name__ == "__main__":
    _, place, log, size, *photos = sys.argv
    ingest_module.BATCH = min(int(size), 32)
    LanceStore.commit_photos = int(size)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    original = LanceWriter.commit

    def commit(self: LanceWriter, add: Any = (), remove: Collection[str] = ()) -> None:
        os.write(descriptor, (json.dumps([photo.id for photo, _ in add]) + "\n").encode())
        original(self, add, remove)
        os.write(descriptor, b'"done"\n')

    LanceWriter.commit = commit  # type: ignore[method-assign]
    perceptual_hash(np.zeros((40, 40, 3), np.float32))  # imports scipy
    gallery = Gallery(place, encoder=ColourLayout())
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    print(json.dumps(gallery.add(photos, workers=1).to_json()), flush=True)  # noqa: T201
