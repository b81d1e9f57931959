"""Manifest: one line per photo, as JSON lines and CSV; and how files get into the folder."""

import csv
import io
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rasr.errors import DatasetError, OutputError
from rasr.files import json_text, parse_object, write_bytes

MANIFEST = "manifest.jsonl"

_NUMBERS: dict[Any, Any] = {int: int, float: (int, float)}


@dataclass(frozen=True, slots=True)
class Record:
    """One photo of a dataset, with all that attribution and checking need."""

    id: str
    category: str
    scientific_name: str
    split: str
    """train, test or reference."""
    file: str
    """Path below the dataset's folder, with forward slashes."""
    source: str
    source_id: str
    page_url: str
    url: str
    """Where the file itself came from; empty for photos from a local folder."""
    title: str
    author: str
    author_id: str
    licence: str
    """SPDX identifier or LicenseRef- name."""
    licence_url: str
    sha256: str
    bytes: int
    width: int
    height: int
    """Pixels, upright (EXIF orientation applied)."""
    phash: str
    """64-bit perceptual hash, 16 hexadecimal digits."""
    group: str
    """Photos with the same group were kept in one split: same photographer, or taken of the same thing."""
    deviation: float = 0.0
    """Over 0 when the subject check found it unlike its category: robust standard deviations below it."""
    review: Literal["", "keep", "drop"] = ""
    """What was decided on the review page."""


def read_manifest(folder: Path) -> list[Record]:
    """Read the records of a dataset. Raises DatasetError naming the line that is wrong."""
    path = folder / MANIFEST
    try:
        lines = path.read_text("utf-8").split("\n")  # a name may hold other line ends
    except FileNotFoundError:
        raise DatasetError(
            f"{folder} has no {MANIFEST}; build it with 'rasr dataset build', or check the path."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"Cannot read {path}: {error}.") from error
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _record(line: str, where: str) -> Record:
    known = {field.name: field for field in fields(Record)}
    try:
        values = parse_object(line)
        record = Record(**{name: value for name, value in values.items() if name in known})
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{where} is not a record of this format: {error}.") from error
    for name, field in known.items():
        kind: Any = field.type if field.type in _NUMBERS else str
        if not isinstance(getattr(record, name), _NUMBERS.get(kind, str)):
            raise DatasetError(f"{where}: '{name}' must be of type {kind.__name__}.")
    return record


def file_inside(folder: Path, record: Record) -> Path:
    """Place of a record's file. Raises DatasetError where it leads out of the folder, through symlinks as well."""
    path = folder / record.file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"{folder / MANIFEST}: {record.file} leads out of the folder.")
    return path


def write_manifest(folder: Path, records: Iterable[Record]) -> None:
    """Write both forms, in the order given. Raises OutputError."""
    rows = [asdict(record) for record in records]
    table = io.StringIO()
    writer = csv.DictWriter(table, [field.name for field in fields(Record)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "manifest.csv", table.getvalue())
    # The JSON lines come last: they are what programs take for the dataset.
    write_text(folder / MANIFEST, "".join(json_text(row) + "\n" for row in rows))


def write_text(path: Path, content: str) -> None:
    """Write a text file whole or not at all, with its folder. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot create {path.parent}: {error.strerror or error}.") from error
    # Names of files that are not valid UTF-8 come as lone surrogates; they are shown, not refused.
    write_bytes(content.encode("utf-8", "backslashreplace"), path, overwrite=True)


def place_file(source: Path, target: Path) -> None:
    """Put a file at ``target``, whole or not at all: linked if possible, else copied; OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), part)
    except OSError:
        shutil.copyfile(source, part)
    part.replace(target)
