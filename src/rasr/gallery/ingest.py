"""Adding photos: decoding runs ahead on threads while the encoder works, and what is done is committed as it goes."""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rasr.errors import PictureError, RasrError
from rasr.files import xxh3_file
from rasr.gallery.catalogue import AddReport, Catalogue, IngestFile, Prepared
from rasr.gallery.database import EncoderId, now
from rasr.gallery.encoders import Encoder
from rasr.gallery.photo import Photo, perceptual_hash
from rasr.gallery.protocol import Store
from rasr.images import read_header, read_picture
from rasr.object_path import READERS, ObjectPath
from rasr.progress import Progress

BATCH = 32
"""Photos embedded at once."""
FILLED = 16
"""At least so many at once where there are more: fewer take other kernels, whose vectors are up to 1.3e-6 apart."""

Embedding = Callable[[Sequence[IngestFile], Catalogue], Generator[list[Prepared]]]
"""Gives files in their order, read and embedded unless the catalogue knows them."""


def ingest(
    store: Store,
    encoder: Encoder,
    files: Sequence[IngestFile],
    *,
    workers: int | None = None,
    embedding: Embedding | None = None,
    progress: Progress | None = None,
) -> AddReport:
    """Bring the gallery up to date with ``files``; see :class:`AddReport`.

    ``embedding`` does the work elsewhere than on this process's threads. Committed as often as the
    store says: a run that is killed continues where it was when it is repeated. A write lock is held for commits only,
    so several processes may add at once.
    """
    report = AddReport()
    started = time.monotonic()
    identity = EncoderId(encoder.name, encoder.version, encoder.dimension, encoder.fingerprint)
    catalogue = Catalogue(store, identity, report)
    total, last_commit, done = len(files), time.monotonic(), 0
    missing: list[IngestFile] = []
    batches = _embedded(files, encoder, catalogue, workers) if embedding is None else embedding(files, catalogue)
    with closing(batches):
        for waiting in batches:
            report.embedded += sum(item.vector is not None for item in waiting)
            catalogue.stage(waiting)
            done += len(waiting)
            if catalogue.staged >= store.commit_photos or time.monotonic() - last_commit > store.commit_seconds:
                missing += catalogue.commit()
                last_commit = time.monotonic()
            if progress is not None:
                progress("adding", done, total)
    missing += catalogue.commit()
    while missing:
        # Known when they were read, removed by the time of the commit: such files must be embedded after all.
        again = [load_photo(file, encoder) for file in missing]
        embed_photos(again, encoder)
        report.embedded += sum(item.vector is not None for item in again)
        catalogue.stage(again)
        missing = catalogue.commit()
    report.seconds = time.monotonic() - started
    return report


def _embedded(
    files: Sequence[IngestFile], encoder: Encoder, catalogue: Catalogue, workers: int | None
) -> Generator[list[Prepared]]:
    """Files in order, read by threads and embedded here."""
    if workers is None:
        far = any(isinstance(file.path, ObjectPath) for file in files)
        workers = max(os.cpu_count() or 2, READERS if far else 1)
    filled = 1
    for waiting in _batches(_prepare(files, encoder, catalogue, workers)):
        if embed_photos(waiting, encoder, filled=filled) == BATCH:
            filled = min(FILLED, BATCH)  # the last ones as those before
        yield waiting


def _prepare(files: Iterable[IngestFile], encoder: Encoder, catalogue: Catalogue, workers: int) -> Iterator[Prepared]:
    """Files in order, decoded by threads that stay at most two batches ahead."""
    pending: deque[Future[Prepared] | Prepared] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="rasr-decode") as pool:
        try:
            for file in files:
                known = catalogue.unchanged(file)
                pending.append(known if known else pool.submit(load_photo, file, encoder, catalogue.knows))
                while len(pending) > 2 * BATCH:
                    yield _result(pending.popleft())
            while pending:
                yield _result(pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(items: Iterable[Prepared]) -> Iterator[list[Prepared]]:
    """Groups with a full batch to embed, or eight times as many files of which fewer are new."""
    waiting: list[Prepared] = []
    fresh = 0
    for item in items:
        waiting.append(item)
        fresh += item.tensor is not None
        if fresh == BATCH or len(waiting) == 8 * BATCH:
            yield waiting
            waiting, fresh = [], 0
    if waiting:
        yield waiting


def _result(item: Future[Prepared] | Prepared) -> Prepared:
    return item.result() if isinstance(item, Future) else item


def load_photo(file: IngestFile, encoder: Encoder, knows: Callable[[str], bool] = lambda _: False) -> Prepared:
    """Read one file: hash it and, unless ``knows`` that content, decode it and prepare it for embedding.

    Its kind, size and header are looked at first: a pipe or what is no picture is never read.
    """
    try:
        os.fsencode(file.path).decode()
        read_header(file.path)
        status = file.path.stat()
        photo = Photo(
            id=xxh3_file(file.path), path=file.path, size=status.st_size, mtime_ns=status.st_mtime_ns,
            width=0, height=0, phash=0, category=file.category, tags=file.tags, added=now(),
        )  # fmt: skip
        if knows(photo.id):
            return Prepared(file, photo)
        picture = read_picture(file.path)
        after = file.path.stat()
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise PictureError("it was changed while it was read; add it again")
        pixels = picture.opaque()
        photo = replace(photo, width=picture.width, height=picture.height, phash=perceptual_hash(pixels))
        return Prepared(file, photo, tensor=encoder.preprocess(pixels))
    except UnicodeError:
        return Prepared(file, error="the file name is not valid UTF-8; rename the file")
    except OSError as error:
        return Prepared(file, error=error.strerror or str(error))
    except RasrError as error:
        return Prepared(file, error=str(error).removeprefix(f"{file.path}: "))
    except MemoryError:
        return Prepared(file, error="not enough memory to prepare it")


def embed_photos(items: Sequence[Prepared], encoder: Encoder, *, filled: int = 1) -> int:
    """Give each item that was prepared its vector, or the error that there is none; returns how many those were.

    Fewer than ``filled`` are embedded beside copies of the last.
    """
    fresh = [item for item in items if item.tensor is not None]
    if not fresh:
        return 0
    tensors = [item.tensor for item in fresh if item.tensor is not None]
    tensors += tensors[-1:] * (filled - len(tensors))
    vectors: NDArray[np.float32] = encoder.embed(np.stack(tensors))[: len(fresh)]
    unit = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 1e-3
    for item, vector, valid in zip(fresh, vectors, unit, strict=True):
        item.tensor = None
        if valid:
            item.vector = vector
        else:
            item.error = f"the encoder {encoder.name} gave no valid embedding for it"
    return len(fresh)
