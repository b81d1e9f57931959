"""Gathering: candidates listed, downloaded, measured, in an order that no kill changes."""

import errno
import math
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rasr.dataset.answers import STRANGE
from rasr.dataset.config import DatasetConfig
from rasr.dataset.journal import Journal, Measures, Row
from rasr.dataset.measure import TooSmall, measure
from rasr.dataset.sources import Category, Source
from rasr.dataset.verdict import Kept, listing_fault, photographers
from rasr.dataset.web import FetchError, Web
from rasr.errors import OutputError, PictureError, PictureTooLarge, SourceError, UnsupportedFormat
from rasr.gallery.encoders import Encoder
from rasr.progress import Progress

EMPTY_PAGES = 20
"""Pages in a row without a new photo after which a list is taken as exhausted."""
BATCH = 16
"""Photos embedded at once, and stored in one transaction."""

FAULTS: dict[type[Exception], str] = {
    TooSmall: "too small",
    UnsupportedFormat: "not a picture",
    PictureTooLarge: "too large",
    PictureError: "unreadable",
    FileNotFoundError: "lost",
}
"""Error → reason; the first that fits."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def list_candidates(
    journal: Journal, sources: Sequence[Source], categories: Sequence[Category], problems: list[str], progress: Progress
) -> None:
    """Ask every source for every category, page by page, until it has enough or nothing more.

    What a source cannot answer is added to ``problems``, one sentence each, and the others go on.
    """
    usable = dict(enumerate(sources))
    for rank, source in enumerate(sources):
        try:
            source.ready()
        except SourceError as error:
            problems.append(str(error))
            del usable[rank]
    for number, category in enumerate(categories):
        progress("listing", number, len(categories))
        for rank, source in list(usable.items()):
            try:
                found, strange = _list(journal, rank, source, category)
            except FetchError as error:
                problems.append(f"{category.name}: {source.kind} could not be asked: {error}.")
            except SourceError as error:
                problems.append(str(error))
                del usable[rank]
            except STRANGE as error:
                said = f"{type(error).__name__} {str(error)[:200]}"
                problems.append(f"{category.name}: {source.kind} answered in a form that is not its API's ({said}).")
            else:
                if strange:
                    problems.append(
                        f"{category.name}: {source.kind} described {strange} photos in a form that is not its API's; "
                        "they were passed over."
                    )
                if found == 0:
                    problems.append(f"{category.name}: {source.kind} has nothing for {source.query(category)}.")
    progress("listing", len(categories), len(categories))


def _list(journal: Journal, rank: int, source: Source, category: Category) -> tuple[int | None, int]:
    """Complete one list; returns the photos in it (None when there is nothing to ask), and the strange ones."""
    question = source.query(category)
    if not question:
        return None, 0
    cursor, found = journal.position(category.name, source.kind, question)
    barren = strange = 0
    while cursor is not None and found < source.limit and barren < EMPTY_PAGES:
        page = source.page(category, cursor)
        new = journal.add_page(category.name, source.kind, question, rank, page.candidates, page.following)
        found, barren, strange = found + new, 0 if new else barren + 1, strange + page.strange
        cursor = page.following if page.following != cursor else None
    return found, strange


def choose(
    journal: Journal, config: DatasetConfig, kept: Mapping[str, Sequence[Kept]], short: Mapping[str, int]
) -> int:
    """Mark the candidates to fetch next, for categories ``short`` of photos; returns how many.

    Preferred sources come first, then the source's own order. A photographer who has given enough is passed over, and
    asked again only if some of those photos turn out unusable.
    """
    chosen: list[int] = []
    limit = config.download.per_photographer if config.splits.by_photographer else math.inf
    for category, missing in short.items():
        if not missing:
            continue
        given = Counter(who for one in kept[category] for who in photographers(one.row.candidate)[:1])
        wanted = math.ceil(missing * config.download.oversample * 1.25) + 1
        before = len(chosen)
        for row in journal.rows(state="listed", category=category):
            if len(chosen) - before == wanted:
                break
            account = photographers(row.candidate)[:1]
            if listing_fault(row.candidate, config.filters) or any(given[who] >= limit for who in account):
                continue
            given.update(account)
            chosen.append(row.seq)
    journal.set_state(chosen, "chosen")
    return len(chosen)


def download(journal: Journal, web: Web, folder: Path, workers: int, progress: Progress) -> None:
    """Fetch every chosen photo into ``folder``, some at a time; OutputError on a full disk."""
    total = journal.count("chosen")
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers, thread_name_prefix="download") as pool:
        try:
            fetched = _in_order(pool, lambda row: _fetch(row, web, folder), journal.rows(state="chosen"), workers * 4)
            for done, (row, error) in enumerate(fetched, 1):
                if error is None:
                    journal.set_state([row.seq], "stored")
                else:
                    journal.set_state([row.seq], "failed", error.kind, str(error))
                progress("downloading", done, total)
        except BaseException:
            web.stop()
            raise


def _fetch(row: Row, web: Web, folder: Path) -> tuple[Row, FetchError | None]:
    """Bring one photo into ``folder``, unless an interrupted build already did."""
    target = row.file_in(folder)
    try:
        if row.candidate.source == "folder":
            _copy(Path(row.candidate.url), target)
        elif not target.exists():
            web.download(row.candidate.url, target)
    except FetchError as error:
        return row, error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise OutputError(
                f"Cannot write to {folder}: {os.strerror(error.errno)}. Make room and run the same command again."
            ) from error
        return row, FetchError("unreadable", f"{row.candidate.url}: {error.strerror or error}")
    return row, None


def _copy(source: Path, target: Path) -> None:
    """Copy, with its time of change, unless the same version (size and time) is there."""
    known = target.stat() if target.exists() else None
    status = source.stat()
    if known is None or (known.st_size, known.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
        part = target.with_name(target.name + ".part")
        shutil.copy2(source, part)
        part.replace(target)


def measure_stored(
    journal: Journal, encoder: Encoder, folder: Path, config: DatasetConfig, workers: int, progress: Progress
) -> None:
    """Decode, measure and embed every downloaded photo; delete files that are no good pictures."""
    total, done = journal.count("stored"), 0

    def look(row: Row) -> tuple[Row, Measures, NDArray[np.float32]] | tuple[Row, str, str]:
        try:
            measures, pixels = measure(row.file_in(folder), config.filters.min_short_side)
            return row, measures, encoder.preprocess(pixels)
        except tuple(FAULTS) as error:
            return row, next(reason for kind, reason in FAULTS.items() if isinstance(error, kind)), str(error)

    with ThreadPoolExecutor(workers, thread_name_prefix="measure") as pool:
        looked = _in_order(pool, look, journal.rows(state="stored"), workers * 2)
        while batch := list(islice(looked, BATCH)):
            good = [(row, found, prepared) for row, found, prepared in batch if isinstance(found, Measures)]
            bad = [(row, found, detail) for row, found, detail in batch if isinstance(found, str)]
            vectors = encoder.embed(np.stack([prepared for _, _, prepared in good])) if good else ()
            with journal.transaction():
                for (row, measures, _), vector in zip(good, vectors, strict=True):
                    # Half precision moves a cosine by under 1e-4, and keeps the journal small.
                    journal.set_measures(row.seq, measures, vector.astype(np.float16).tobytes())
                for row, reason, detail in bad:
                    journal.set_state([row.seq], "failed", reason, str(detail))
            for row, _, _ in bad:
                row.file_in(folder).unlink(missing_ok=True)
            done += len(batch)
            progress("measuring", done, total)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[_In], _Out], things: Iterable[_In], ahead: int
) -> Iterator[_Out]:
    """Yield results in the order of ``things``, with at most ``ahead`` of them under way."""
    waiting: deque[Future[_Out]] = deque()
    try:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
