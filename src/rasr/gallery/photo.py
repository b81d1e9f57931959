"""One row of a gallery: a photo, what is known of its file, and its embedding."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["METADATA", "Photo", "from_row", "row_checksum", "schema", "to_table"]

METADATA = (
    "id", "path", "size", "mtime_ns", "width", "height", "phash", "category", "tags", "added", "near_duplicate_of",
    "checksum",
)  # fmt: skip
"""Every column but ``vector``."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of the gallery."""

    id: str
    """Content hash: xxh3-128 of the file's bytes, 32 hexadecimal digits."""
    path: Path
    """Absolute path of the file."""
    size: int
    """Bytes."""
    mtime_ns: int
    width: int
    """Pixels, upright (EXIF orientation applied)."""
    height: int
    phash: int
    """64-bit perceptual hash (imagehash.phash) of the upright picture."""
    category: str = ""
    """Folder below the added one, with forward slashes, or the category given; may be empty."""
    tags: tuple[str, ...] = ()
    added: str = ""
    """UTC time of adding, ISO 8601."""
    near_duplicate_of: str = ""
    """Id of the earlier photo that shows the same picture, or empty."""

    def as_json(self) -> dict[str, Any]:
        """What ``rasr gallery list --json`` prints for this photo."""
        return {
            "path": str(self.path),
            "id": self.id,
            "category": self.category,
            "tags": list(self.tags),
            "width": self.width,
            "height": self.height,
            "size": self.size,
            "added": self.added,
            "near_duplicate_of": self.near_duplicate_of or None,
        }


def schema(dimension: int) -> pa.Schema:
    """Columns of the table, for embeddings of ``dimension`` float32 numbers."""
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),
            ("size", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("phash", pa.uint64()),
            ("category", pa.string()),
            ("tags", pa.list_(pa.string())),
            ("added", pa.string()),
            ("near_duplicate_of", pa.string()),
            ("checksum", pa.uint64()),
            ("vector", pa.list_(pa.float32(), dimension)),
        ]
    )


def to_table(photos: list[Photo], vectors: NDArray[np.float32], root: Path | None) -> pa.Table:
    """Rows for ``photos`` and their (N, D) unit ``vectors``.

    Files inside ``root`` (the gallery's folder) are stored by relative path, so that a gallery and its photos can be
    moved together.
    """
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in METADATA}
    for photo, vector in zip(photos, vectors, strict=True):
        row = {name: getattr(photo, name) for name in METADATA[:-1]}
        row["path"] = _stored(photo.path, root)
        row["tags"] = list(photo.tags)
        row["checksum"] = row_checksum(row, vector)
        for name, value in row.items():
            columns[name].append(value)
    flat = np.ascontiguousarray(vectors, dtype=np.float32)
    wanted = schema(flat.shape[1])
    arrays = [pa.array(columns[name], wanted.field(name).type) for name in METADATA]
    arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1]))
    return pa.Table.from_arrays(arrays, schema=wanted)


def from_row(row: dict[str, Any], root: Path | None) -> Photo:
    """The photo of one row (``vector`` and ``checksum`` are not looked at)."""
    values = {name: row[name] for name in METADATA[:-1]}
    values["path"] = Path(row["path"]) if root is None else root / row["path"]
    values["tags"] = tuple(row["tags"])
    return Photo(**values)


def row_checksum(row: dict[str, Any], vector: NDArray[np.float32]) -> int:
    """xxh3-64 over the row's metadata, as stored, and its vector's bytes."""
    text = json.dumps([row[name] for name in METADATA[:-1]], ensure_ascii=False, separators=(",", ":"))
    digest = xxhash.xxh3_64(text.encode("utf-8", "surrogateescape"))
    digest.update(np.ascontiguousarray(vector, dtype="<f4").tobytes())
    return digest.intdigest()


def _stored(path: Path, root: Path | None) -> str:
    if root is not None and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return str(path)
