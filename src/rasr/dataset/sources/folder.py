"""Photos that are already here: one folder per category, with a table of credits if there is one."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from rasr.dataset.candidate import Candidate
from rasr.dataset.config import Category, FolderSource
from rasr.dataset.licences import parse_licence
from rasr.dataset.sources.protocol import Page
from rasr.errors import SourceError
from rasr.images import find_pictures

__all__ = ["Folder"]

PER_PAGE = 500


class Folder:
    """Every picture below a folder belongs to the category that its own folder is named for."""

    kind = "folder"
    limit = 1_000_000

    def __init__(self, settings: FolderSource) -> None:
        self._settings = settings

    def ready(self) -> None:
        """Raise SourceError when the folder or the table of credits is not there."""
        if not self._settings.path.is_dir():
            raise SourceError(f"There is no folder {self._settings.path}, which the config names as a source.")
        if self._settings.credits is not None and not self._settings.credits.is_file():
            raise SourceError(f"There is no file {self._settings.credits}, which the config names for credits.")

    def query(self, category: Category) -> str:
        """The folder's name, and a digest of what is in it: photos and credits may change between builds."""
        wanted = category.folder or category.name
        digest = hashlib.sha256(json.dumps([self._settings.author, self._settings.licence, self._credits]).encode())
        for path in self._pictures:
            if path.parent.name == wanted:
                status = path.stat()
                digest.update(f"{path.name}:{status.st_size}:{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return f"folder {self._settings.path} / {wanted} ({digest.hexdigest()[:12]})"

    def categories(self) -> list[Category]:
        """One category for each folder that holds pictures, by name."""
        names = sorted({path.parent.name for path in self._pictures})
        return [Category(name=_slug(name), title=name, folder=name) for name in names]

    def page(self, category: Category, cursor: str) -> Page:
        """Pictures from number ``cursor`` on, in the order of their paths."""
        wanted = category.folder or category.name
        found = [path for path in self._pictures if path.parent.name == wanted]
        start = int(cursor or 0)
        end = start + PER_PAGE
        return Page([self._candidate(path) for path in found[start:end]], str(end) if end < len(found) else None)

    @cached_property
    def _pictures(self) -> list[Path]:
        return find_pictures([self._settings.path])

    @cached_property
    def _credits(self) -> dict[str, Mapping[str, str]]:
        """Rows of the table by the name of the photo."""
        if self._settings.credits is None:
            return {}
        column = self._settings.columns.get("photo", "photo")
        try:
            with self._settings.credits.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.DictReader(file)
                if column not in (rows.fieldnames or ()):
                    raise SourceError(f"{self._settings.credits} has no column '{column}' to find photos by.")
                return {row[column]: row for row in rows if row[column]}
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{self._settings.credits} is not a readable CSV file: {error}") from error

    def _candidate(self, path: Path) -> Candidate:
        inside = path.relative_to(self._settings.path).as_posix()
        row = next((self._credits[name] for name in (inside, path.name, path.stem) if name in self._credits), {})
        author = self._field(row, "author") or self._settings.author
        return Candidate(
            source=self.kind,
            source_id=inside,
            url=str(path),
            page_url=self._field(row, "page"),
            title=self._field(row, "title") or path.stem,
            author=author,
            author_id=author,
            licence=parse_licence(self._field(row, "licence") or self._settings.licence),
        )

    def _field(self, row: Mapping[str, str], name: str) -> str:
        return (row.get(self._settings.columns.get(name, name)) or "").strip()


def _slug(name: str) -> str:
    """A folder's name as the name of a category."""
    return "-".join("".join(_letters(name)).split("-")).strip("-") or "unnamed"


def _letters(name: str) -> Iterator[str]:
    previous = "-"
    for letter in name.lower():
        kept = letter if letter.isascii() and letter.isalnum() else "-"
        if not (kept == "-" and previous == "-"):
            yield kept
        previous = kept
