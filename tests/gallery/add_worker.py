"""One of several processes adding to the same gallery: ``add_worker.py GALLERY PHOTO...``; prints its report."""

from __future__ import annotations

import json
import sys

from standin import ColourLayout

from rasr.gallery import Gallery
from rasr.gallery import ingest as ingest_module
from rasr.gallery.lance_store import LanceStore
from rasr.gallery.store import LocalStore

if __name__ == "__main__":
    ingest_module.BATCH = 2
    LocalStore.commit_photos = LanceStore.commit_photos = 4
    gallery = Gallery(sys.argv[1], encoder=ColourLayout())
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    print(json.dumps(gallery.add(sys.argv[2:], workers=1).to_json()), flush=True)  # noqa: T201
