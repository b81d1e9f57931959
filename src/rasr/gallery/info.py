"""What a gallery holds, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasr.gallery.pointer import Pointer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["GalleryInfo", "summarise"]


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """What ``rasr gallery info`` prints."""

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
    """Table and Lance version, changed by every commit."""
    indexed: int
    """Photos covered by the approximate index; 0 when search is exact."""
    created: str
    updated: str

    def as_json(self) -> dict[str, Any]:
        """All fields, for ``--json``."""
        return asdict(self)


def summarise(path: Path, pointer: Pointer, rows: pa.Table) -> GalleryInfo:
    """Count the ``rows`` (metadata) of a gallery."""
    ids = set(rows.column("id").to_pylist())
    categories = Counter(rows.column("category").to_pylist())
    tags = Counter(tag for row in rows.column("tags").to_pylist() for tag in row)
    return GalleryInfo(
        path=str(path),
        photos=pointer.photos,
        categories=dict(sorted(categories.items())),
        tags=dict(sorted(tags.items())),
        near_duplicates=sum(one in ids for one in rows.column("near_duplicate_of").to_pylist()),
        encoder=pointer.encoder.name,
        encoder_version=pointer.encoder.version,
        fingerprint=pointer.encoder.fingerprint,
        dimension=pointer.encoder.dimension,
        bytes_on_disk=sum(size for size, _ in pointer.files.values()),
        version=f"{pointer.table}.{pointer.version}",
        indexed=pointer.indexed,
        created=pointer.created,
        updated=pointer.updated,
    )
