"""Checking a gallery: files against checksums, rows against theirs, photos against the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rasr.errors import GalleryCorrupt
from rasr.gallery.duplicates import content_hash
from rasr.gallery.photo import METADATA, Photo, from_row, row_checksum
from rasr.gallery.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Problem", "VerifyReport", "verify"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    kind: str
    """``pointer``, ``file``, ``row`` (searching is refused or wrong), ``photo-missing`` or ``photo-changed``."""
    path: Path
    what: str


@dataclass(slots=True)
class VerifyReport:
    """What was checked and what is wrong."""

    photos: int = 0
    files: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    """Files of a writer that died; harmless, never read, removed by the next writer."""

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """What ``rasr gallery verify --json`` prints."""
        return {
            "ok": self.ok,
            "photos": self.photos,
            "files": self.files,
            "bytes": self.bytes,
            "problems": [{"kind": p.kind, "path": str(p.path), "what": p.what} for p in self.problems],
            "leftovers": self.leftovers,
        }


def verify(store: Store, *, deep: bool = False, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Check everything that can be checked and report all of it; raises only GalleryNotFound."""
    report = VerifyReport()
    store.forget_checks()
    try:
        pointer = store.pointer()
    except GalleryCorrupt as error:
        report.problems.append(Problem("pointer", store.folder / "gallery.json", str(error)))
        return report
    report.files, report.bytes = len(pointer.files), sum(size for size, _ in pointer.files.values())
    report.leftovers = store.leftovers(pointer)
    for name in pointer.files:
        if what := store.problem_of(pointer, name, full=True):
            report.problems.append(Problem("file", store.folder / name, what))
    if report.problems:
        if store.pointer() != pointer:  # a writer moved on and swept meanwhile
            return verify(store, deep=deep, progress=progress)
        return report
    try:
        pointer, rows = store.read(vectors=True)
    except GalleryCorrupt as error:
        report.problems.append(Problem("file", store.folder, str(error)))
        return report
    report.photos = rows.num_rows
    _verify_rows(store, rows, report, deep=deep, progress=progress)
    return report


def _verify_rows(
    store: Store,
    rows: pa.Table,
    report: VerifyReport,
    *,
    deep: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    seen: dict[str, Path] = {}
    done = 0
    for batch in rows.to_batches(max_chunksize=1024):
        vectors = batch.column("vector").flatten().to_numpy().reshape(batch.num_rows, -1)
        for row, vector in zip(batch.select(list(METADATA)).to_pylist(), vectors, strict=True):
            photo = from_row(row, store.root)
            length = float(np.linalg.norm(vector))
            if row["checksum"] != row_checksum(row, vector):
                report.problems.append(Problem("row", photo.path, "the gallery's entry does not match its checksum"))
            elif not np.isfinite(vector).all() or abs(length - 1.0) > 1e-3:
                report.problems.append(Problem("row", photo.path, f"its vector has length {length:g} instead of 1"))
            if photo.id in seen:
                report.problems.append(Problem("row", photo.path, f"stored twice, also as {seen[photo.id]}"))
            seen[photo.id] = photo.path
            _verify_file(photo, report, deep=deep)
            done += 1
            if progress is not None:
                progress(done, rows.num_rows)


def _verify_file(photo: Photo, report: VerifyReport, *, deep: bool) -> None:
    try:
        status = photo.path.stat()
    except OSError as error:
        report.problems.append(Problem("photo-missing", photo.path, f"the photo's file is gone ({error.strerror})"))
        return
    # A copy or a backup changes time stamps, not content: without ``deep``, only another size counts as a change.
    if status.st_size != photo.size or (deep and content_hash(photo.path.read_bytes()) != photo.id):
        what = "the photo's file has changed since it was added; add it again to update the gallery"
        report.problems.append(Problem("photo-changed", photo.path, what))
