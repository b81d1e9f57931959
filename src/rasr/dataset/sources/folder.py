"""Photos on this machine: one folder per category, and a table of credits if there is one."""

import csv
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from rasr.dataset.licences import parse_licence
from rasr.dataset.sources.source import RESERVED, Candidate, Category, Page, Source
from rasr.errors import SourceError
from rasr.images import find_pictures

PER_PAGE = 500

Column = Literal["photo", "author", "licence", "page", "title"]


class Folder(Source):
    """Every picture below a folder belongs to the category that its own folder is named for."""

    class Settings(Source.Settings):
        """Photos already on this machine, one folder per category."""

        path: Path
        credits: Path | None = None
        """A CSV with one row per photo, found by file name, file name without suffix, or path below the folder."""
        columns: dict[Column, str] = Field(default_factory=dict)
        """Name of the CSV's column where it is not called ``photo``, ``author``, ``licence``, ``page`` or ``title``."""
        author: str = ""
        """Author of photos without a row in ``credits``."""
        licence: str = ""
        """Licence of photos without a row in ``credits``: an SPDX name, or LicenseRef-Own for the museum's own."""

    _settings: Settings

    def ready(self) -> None:
        """Raise SourceError when the folder or the table of credits is not there."""
        if not self._settings.path.is_dir():
            raise SourceError(f"There is no folder {self._settings.path}, which the config names as a source.")
        if self._settings.credits is not None and not self._settings.credits.is_file():
            raise SourceError(f"There is no file {self._settings.credits}, which the config names for credits.")

    def query(self, category: Category) -> str:
        """Name the folder, with a digest of its photos and credits: both may change between builds."""
        wanted = category.folder or category.name
        digest = hashlib.sha256(json.dumps([self._settings.author, self._settings.licence, self._credits]).encode())
        for path in self._pictures:
            if path.parent.name == wanted:
                status = path.stat()
                digest.update(f"{path.name}:{status.st_size}:{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return f"folder {self._settings.path} / {wanted} ({digest.hexdigest()[:12]})"

    def categories(self) -> list[Category]:
        """Make a category of each folder with pictures. Raises SourceError when two share a name."""
        found: dict[str, str] = {}
        for folder in sorted({path.parent.name for path in self._pictures}):
            name = _slug(folder)
            if name in RESERVED or name in found:
                other = f", like '{found[name]}'" if name in found else ""
                raise SourceError(
                    f"The folder '{folder}' cannot be the category '{name}'{other}. Rename it, or list the categories "
                    "in the config, each with its folder."
                )
            found[name] = folder
        return [Category(name=name, title=folder, folder=folder) for name, folder in found.items()]

    def page(self, category: Category, cursor: str) -> Page:
        """Pictures from number ``cursor`` on, in the order of their paths."""
        wanted = category.folder or category.name
        found = [path for path in self._pictures if path.parent.name == wanted]
        start = int(cursor or 0)
        end = start + PER_PAGE
        return Page([self._candidate(path) for path in found[start:end]], str(end) if end < len(found) else None)

    @cached_property
    def _pictures(self) -> list[Path]:
        """Find all pictures below the folder. Raises SourceError for a name that is not UTF-8."""
        found = find_pictures([self._settings.path])
        for path in found:
            try:
                str(path).encode()
            except UnicodeEncodeError as error:
                raise SourceError(
                    f"The name of {path} is not valid UTF-8. Rename it, or move it out of the folder."
                ) from error
        return found

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

    def _field(self, row: Mapping[str, str], name: Column) -> str:
        return (row.get(self._settings.columns.get(name, name)) or "").strip()


def _slug(name: str) -> str:
    """Turn a folder's name into the name of a category."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
