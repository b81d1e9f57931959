"""Shelf of galleries: those that clients made, with their photos, and those that the service was started with."""

from __future__ import annotations

import re
import shutil
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasr.errors import GalleryCorrupt, GalleryNotFound, RasrError, shown
from rasr.gallery import Gallery, Photo
from rasr.gallery.encoders import DEFAULT_ENCODER
from rasr.service.refusal import Refused
from rasr.service.uploads import Stored, place

NAME = re.compile(r"\w[\w .-]{0,62}(?<![ .])")
"""What a gallery may be called: it is the name of its folder, too."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One gallery of the shelf."""

    name: str
    path: Path
    """Folder of the gallery."""
    photos: Path | None
    """Folder of its photos when they were sent by clients: one folder each, named by SHA-256; None: read-only."""

    @property
    def writable(self) -> bool:
        """Whether clients may add and remove photos."""
        return self.photos is not None


class Shelf:
    """Galleries by name. Reads them; what takes an encoder is the worker's affair."""

    def __init__(self, folder: Path, given: Mapping[str, Path]) -> None:
        self._folder = folder
        self._given = given
        """Of the supervisor: filled when the worker has opened them."""
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[tuple[int, int], list[Photo]]] = {}

    def all(self) -> list[Entry]:
        """All galleries, by name."""
        own = [self._own(path.name) for path in self._folder.iterdir() if path.is_dir()]
        given = [Entry(name, path, None) for name, path in self._given.items()]
        return sorted([*own, *given], key=lambda entry: entry.name.casefold())

    def get(self, name: str) -> Entry:
        """The gallery of a name. Raises Refused."""
        if name in self._given:
            return Entry(name, self._given[name], None)
        if NAME.fullmatch(name) and (self._folder / name).is_dir():
            return self._own(name)
        raise Refused(404, "no_gallery", f"There is no gallery '{shown(name)[:80]}'. GET /galleries lists them.")

    def create(self, name: str) -> Entry:
        """Make an empty gallery. Raises Refused for a name that is taken or cannot be one."""
        name = unicodedata.normalize("NFC", name)
        if not NAME.fullmatch(name) or len(name.encode()) > 200:
            raise Refused(
                422, "name",
                "A gallery's name has 1 to 63 letters, digits, spaces, dots and dashes, and begins with a letter.",
            )  # fmt: skip
        with self._lock:
            if name.casefold() in {entry.name.casefold() for entry in self.all()}:
                raise Refused(409, "exists", f"There is a gallery '{name}' already. Choose another name.")
            (self._folder / name / "photos").mkdir(parents=True)
        return self._own(name)

    def delete(self, entry: Entry) -> None:
        """Remove a gallery and the photos that were sent for it."""
        with self._lock:
            self._read.pop(entry.path, None)
        trash = self._folder.parent / "tmp" / f"gallery-{entry.name}"
        shutil.rmtree(trash, ignore_errors=True)
        (self._folder / entry.name).rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def photos(self, entry: Entry) -> list[Photo]:
        """A gallery's photos, by path; read again when it was changed. Raises GalleryCorrupt."""
        try:
            status = (entry.path / "gallery.db").stat()
        except FileNotFoundError:
            return []
        state = status.st_mtime_ns, status.st_size
        with self._lock:
            known = self._read.get(entry.path)
        if known is not None and known[0] == state:
            return known[1]
        try:
            photos = sorted(Gallery(entry.path).list(), key=lambda photo: (photo.path.name.casefold(), photo.id))
        except GalleryNotFound:
            return []
        with self._lock:
            self._read[entry.path] = state, photos
        return photos

    def photo(self, entry: Entry, photo: str) -> Photo:
        """One photo by its id. Raises Refused."""
        for one in self.photos(entry):
            if one.id == photo:
                return one
        raise Refused(404, "no_photo", f"There is no such photo in the gallery '{entry.name}'.")

    def unknown(self, entry: Entry, hashes: Sequence[str]) -> list[str]:
        """Those of some SHA-256 digests whose photos the gallery does not hold."""
        held = {photo.path.parent.name for photo in self.photos(entry)}
        return [one for one in dict.fromkeys(hashes) if one not in held]

    def find(self, entry: Entry, digest: str) -> Photo | None:
        """The photo with a SHA-256 digest, or None."""
        return next((photo for photo in self.photos(entry) if photo.path.parent.name == digest), None)

    def put(self, entry: Entry, staged: Path, stored: Stored) -> Path:
        """Move a photo that was sent to its place, before it is added; returns the file's path there."""
        if entry.photos is None:
            raise _read_only(entry)
        target = entry.photos / stored.digest
        if target.exists():  # left by a service that was stopped before the photo was added
            shutil.rmtree(target)
        place(staged, target)
        return target / stored.name

    def remove(self, entry: Entry, photo: Photo) -> None:
        """Forget a photo, and delete its file. Raises Refused and GalleryError."""
        self.check_writable(entry)
        Gallery(entry.path).remove([photo.id])
        self.discard(entry, photo.path)

    def discard(self, entry: Entry, path: Path) -> None:
        """Delete the file of a photo that the gallery does not hold."""
        if entry.photos is not None and path.is_relative_to(entry.photos):
            shutil.rmtree(path.parent, ignore_errors=True)

    def check_writable(self, entry: Entry) -> None:
        """Raise Refused for a gallery that clients may only read."""
        if not entry.writable:
            raise _read_only(entry)

    def facts(self, entry: Entry) -> dict[str, Any]:
        """What is said of a gallery in a list."""
        try:
            photos = len(self.photos(entry))
            encoder = Gallery(entry.path).info().encoder if photos else DEFAULT_ENCODER
        except GalleryCorrupt:
            photos, encoder = 0, ""
        return {"name": entry.name, "photos": photos, "encoder": encoder, "writable": entry.writable}

    def details(self, entry: Entry) -> dict[str, Any]:
        """What is said of one gallery: also what is wrong with its photos."""
        try:
            photos = self.photos(entry)
            problems = [{"name": shown(one.path.name), "message": fault} for one in photos if (fault := one.fault())]
        except RasrError as error:
            problems = [{"name": entry.name, "message": shown(error).replace(f"{entry.path}/", "")}]
        return {**self.facts(entry), "problems": problems}

    def photo_facts(self, entry: Entry, photo: Photo) -> dict[str, Any]:
        """What is said of a photo."""
        problem = photo.fault() or None
        if problem is None and photo.near_duplicate_of:
            twin = next((one for one in self.photos(entry) if one.id == photo.near_duplicate_of), None)
            problem = None if twin is None else f"Shows the same picture as {shown(twin.path.name)}."
        size = {"width": photo.width, "height": photo.height}
        return {"id": photo.id, "name": shown(photo.path.name), **size, "problem": problem}

    def _own(self, name: str) -> Entry:
        return Entry(name, self._folder / name / "gallery", self._folder / name / "photos")


def _read_only(entry: Entry) -> Refused:
    return Refused(403, "read_only", f"The gallery '{entry.name}' can only be read here.")
