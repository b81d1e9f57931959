"""What a gallery holds, in numbers, and whether it is sound: the database, its rows, the photos on disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rasr.errors import GalleryCorrupt, GalleryError, StorageRefused
from rasr.files import parse_object, xxh3_file
from rasr.gallery.photo import Photo
from rasr.gallery.protocol import Store
from rasr.progress import Progress

CHANGES = {
    "photo-missing": "the photo's file is gone, or cannot be read",
    "photo-changed": "the photo's file has changed since it was added; add it again to update the gallery",
}


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """What a gallery holds and how it was made."""

    path: str
    photos: int
    categories: dict[str, int]
    """Number of photos by category; the empty name stands for none."""
    tags: dict[str, int]
    near_duplicates: int
    encoder: str
    encoder_version: str
    fingerprint: str
    dimension: int
    bytes_on_disk: int
    version: str
    """Changed by every commit."""
    indexed: int
    """Photos covered by an approximate index; 0 where search is exact."""
    unindexed: int
    """Photos added since the index was built, which are compared one by one."""
    created: str
    updated: str
    calibration: dict[str, Any] | None = None
    """Thresholds and margin of this gallery, photos and queries they were measured on, and when; None before."""

    @classmethod
    def of(cls, store: Store) -> GalleryInfo:
        """Count what a gallery holds. Raises as :meth:`Store.read` does."""
        manifest, photos = store.fields()
        categories, tags, ids, originals = Counter[str](), Counter[str](), set[str](), list[str]()
        for content, *_, category, own, _added, original in photos:
            categories[category] += 1
            tags.update(own)
            ids.add(content)
            originals += [original] if original else []
        usage = store.usage()
        return cls(
            path=store.address,
            photos=len(ids),
            categories=dict(sorted(categories.items())),
            tags=dict(sorted(tags.items())),
            near_duplicates=sum(original in ids for original in originals),
            encoder=manifest.encoder.name,
            encoder_version=manifest.encoder.version,
            fingerprint=manifest.encoder.fingerprint,
            dimension=manifest.encoder.dimension,
            bytes_on_disk=usage.bytes,
            version=manifest.version,
            indexed=usage.indexed,
            unindexed=usage.unindexed,
            created=manifest.created,
            updated=manifest.updated,
            calibration=parse_object(manifest.calibration) if manifest.calibration else None,
        )

    def to_json(self) -> dict[str, Any]:
        """All fields, as ``rasr gallery info --json`` prints them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    kind: str
    """``file``, ``row`` (searching is refused), ``storage`` (writing is), ``photo-missing`` or ``photo-changed``."""
    path: Path | str
    """The photo's file, or the gallery."""
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
    unprobed: str = ""
    """Why it could not be found out whether an object storage refuses to write over commits; empty when it was."""

    @classmethod
    def of(cls, store: Store, *, deep: bool = False, progress: Progress | None = None) -> VerifyReport:
        """Check everything that can be checked and report all of it. Raises only GalleryNotFound and GalleryBusy."""
        report = cls()
        photos: list[Photo] = []
        try:
            for photo, what in store.inspect():
                if what:
                    report.problems.append(Problem("row", photo.path if photo else store.address, what))
                elif photo:
                    photos.append(photo)
        except GalleryCorrupt as error:
            report.problems.append(Problem("file", store.address, str(error)))
        usage = store.usage()
        report.photos, report.files, report.bytes = len(photos), usage.files, usage.bytes
        report.leftovers = usage.leftovers
        try:
            store.probe()
        except StorageRefused as error:
            report.problems.append(Problem("storage", store.address, str(error)))
        except GalleryError as error:  # credentials that may only read
            report.unprobed = str(error)
        for done, photo in enumerate(photos, 1):
            if kind := _change(photo, deep=deep):
                report.problems.append(Problem(kind, photo.path, CHANGES[kind]))
            if progress is not None:
                progress("verifying", done, len(photos))
        return report

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``rasr gallery verify --json`` prints them."""
        return {
            "ok": self.ok,
            "photos": self.photos,
            "files": self.files,
            "bytes": self.bytes,
            "problems": [{"kind": p.kind, "path": str(p.path), "what": p.what} for p in self.problems],
            "leftovers": self.leftovers,
            "unprobed": self.unprobed or None,
        }


def _change(photo: Photo, *, deep: bool) -> str:
    """What became of a photo's file: a key of :data:`CHANGES`, or an empty string."""
    try:
        # A copy or a backup changes time stamps, not content: without ``deep``, only another size counts as a change.
        if photo.path.stat().st_size == photo.size and not (deep and xxh3_file(photo.path) != photo.id):
            return ""
    except (OSError, ValueError):
        return "photo-missing"
    return "photo-changed"
