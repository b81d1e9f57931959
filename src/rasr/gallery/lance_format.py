"""Galleries of format 1, kept in LanceDB tables: read where lancedb is installed.

``gallery.json`` names every file of such a gallery with its size and xxh3 checksum, and each row carries a checksum:
all are compared.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from rasr.errors import ExtraMissing, GalleryError
from rasr.files import parse_object
from rasr.gallery.database import Database, EncoderId, Manifest, Table
from rasr.gallery.photo import Photo

POINTER = "gallery.json"
FIELDS = (
    "id", "path", "size", "mtime_ns", "width", "height", "phash", "category", "tags", "added", "near_duplicate_of",
)  # fmt: skip
"""Columns of a table, beside ``checksum`` and ``vector``; in this order they are hashed."""


def read_format_1(folder: Path, *, photos: bool) -> Table:
    """Read a gallery of format 1, ``photos`` False: its manifest alone.

    Raises GalleryCorrupt, and GalleryError where lancedb is needed and not installed.
    """
    values = _read_pointer(folder)
    manifest = Manifest(
        EncoderId(**values["encoder"]),
        photos=values["photos"],
        version=f"photos-{values['generation']:06d}.{values['version']}",
        created=values["created"],
        updated=values["updated"],
    )
    if not photos:
        return Table(folder, manifest, [], None)
    return Table.of(folder, manifest, list(_read_photos(folder, values)))


def _read_pointer(folder: Path) -> dict[str, Any]:
    """``gallery.json``, checked to the last byte. Raises GalleryCorrupt."""
    path = folder / POINTER
    try:
        text = path.read_bytes()
        values = parse_object(text)
        del values["checksum"]
        digest = xxhash.xxh3_64_hexdigest(json.dumps(values, ensure_ascii=False).encode())
        items = [*values.items(), ("checksum", digest)]
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in items)
        sound = values["format"] == 1 and text == f"{{\n{lines}\n}}\n".encode()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Database.damage(path, "is damaged", error) from error
    if not sound:
        raise Database.damage(path, "does not match its checksum")
    return values


def _read_photos(folder: Path, values: dict[str, Any]) -> Iterator[tuple[Photo, NDArray[np.float32]]]:
    """The photos and their vectors, after every file and every row has passed its checksum."""
    for name, (size, digest) in values["files"].items():
        path = folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Database.damage(path, f"cannot be read ({error.strerror})") from error
        if (len(content), xxhash.xxh3_64_hexdigest(content)) != (size, digest):
            raise Database.damage(path, "does not match its checksum")
    if not values["generation"]:
        return
    table = folder / f"photos-{values['generation']:06d}.lance"
    # Read once, when lancedb is first imported; its warnings speak of tables that are about to be created.
    os.environ.setdefault("LANCEDB_LOG", "error")
    try:
        import lancedb
    except ImportError as error:
        missing = ExtraMissing(f"The gallery {folder} has format 1 and was made with LanceDB; reading it", "lance")
        raise GalleryError(f"{missing}. It is brought over for good by: rasr gallery upgrade {folder}") from error
    try:
        opened = lancedb.connect(folder).open_table(table.stem)
        opened.checkout(values["version"])
        rows = opened.to_arrow()
    except (RuntimeError, ValueError, OSError) as error:
        raise Database.damage(folder / POINTER, "names a table that cannot be opened", error) from error
    if rows.num_rows != values["photos"]:
        raise Database.damage(folder / POINTER, f"counts other photos than the {rows.num_rows} in its table")
    for batch in rows.to_batches(max_chunksize=1024):
        vectors = batch.column("vector").flatten().to_numpy().reshape(batch.num_rows, -1)
        for row, vector in zip(batch.select([*FIELDS, "checksum"]).to_pylist(), vectors, strict=True):
            checksum = row.pop("checksum")
            digest = xxhash.xxh3_64(json.dumps([*row.values()], ensure_ascii=False, separators=(",", ":")).encode())
            digest.update(np.ascontiguousarray(vector, "<f4").tobytes())
            if digest.intdigest() != checksum:
                raise Database.damage(folder / POINTER, f"names a table whose row for {row['path']} is damaged")
            yield Photo(**{**row, "path": folder / row["path"], "tags": tuple(row["tags"])}), vector
