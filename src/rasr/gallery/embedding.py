"""Embedding on a cluster: its machines read photos and embed them, this process alone writes the gallery."""

from __future__ import annotations

import platform
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np

from rasr.cluster import Actors, ClusterOptions
from rasr.device import choose_threads
from rasr.errors import EncoderMismatch
from rasr.gallery.catalogue import Catalogue, IngestFile, Prepared
from rasr.gallery.encoders import Encoder, load_encoder
from rasr.gallery.ingest import BATCH, FILLED, Embedding, embed_photos, load_photo
from rasr.memory import divide_memory

LEAST = 4
"""Full batches for each process, where there are photos enough: the last ones end at about the same time."""


class Embedder:
    """On a machine of the cluster: the same encoder, the contents that the gallery knows, and threads that decode."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        divide_memory(setup["processes"])
        self._where = "" if platform.node() == setup["driver"] else f" (on the machine {platform.node()})"
        self._encoder = load_encoder(setup["encoder"], device=setup["device"])
        if self._encoder.fingerprint != setup["fingerprint"]:
            raise EncoderMismatch(
                f"The encoder {setup['encoder']} on the machine {platform.node()} is {self._encoder.fingerprint}, and "
                f"the gallery's is {setup['fingerprint']}. Install the same weights on all machines of the cluster."
            )
        self._known, self._filled = setup["known"], setup["filled"]
        self._pool = ThreadPoolExecutor(choose_threads().count, thread_name_prefix="rasr-decode")

    def __call__(self, files: Sequence[IngestFile]) -> list[Prepared]:
        """Read and embed files; each answer holds a vector, an error, or a photo whose content is known."""
        items = list(self._pool.map(self._load, files))
        embed_photos(items, self._encoder, filled=self._filled)
        return items

    def _load(self, file: IngestFile) -> Prepared:
        item = load_photo(file, self._encoder, self._knows)
        if item.error and item.photo is None:
            item.error += self._where
        return item

    def _knows(self, content: str) -> bool:
        name = content.encode("ascii")
        place = int(np.searchsorted(self._known, name))
        return place < len(self._known) and bool(self._known[place] == name)


def embedding_on(cluster: ClusterOptions, encoder: Encoder, *, device: str) -> Embedding:
    """What embeds files on a cluster for :func:`rasr.gallery.ingest.ingest`, in their order."""

    def embedding(files: Sequence[IngestFile], catalogue: Catalogue) -> Generator[list[Prepared]]:
        here: dict[int, Prepared] = {}
        away: list[IngestFile] = []
        for place, file in enumerate(files):
            if (known := catalogue.unchanged(file)) is not None:
                here[place] = known
            else:
                away.append(file)
        if not away:
            yield list(here.values())
            return
        # A million hashes are 32 MB, once a machine: what has only been moved is not embedded again.
        contents = np.array(sorted(catalogue.contents), dtype="S32")
        setup = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "device": device, "known": contents}
        filled = 1 if len(away) < BATCH else FILLED
        with Actors(cluster, "rasr.gallery.embedding:Embedder", {**setup, "filled": filled}) as actors:
            size = BATCH if len(away) >= LEAST * BATCH * actors.room or filled == 1 else FILLED
            with closing(actors.work(away, size=size, ordered=True)) as answered:
                for place, file in enumerate(files):
                    if place in here:
                        yield [here[place]]
                        continue
                    one = next(answered)
                    yield [Prepared(file, error=str(one.error)) if one.error is not None else one.answer]

    return embedding
