"""Shelf of galleries: those that clients made, with their photos, and those that the service was started with."""

from __future__ import annotations

import re
import shutil
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasr.errors import GalleryError, GalleryNotFound, RasrError, shown
from rasr.gallery import Gallery, Photo
from rasr.gallery.database import Manifest
from rasr.gallery.encoders import DEFAULT_ENCODER
from rasr.object_path import READERS, ObjectPath
from rasr.service.refusal import Refused
from rasr.service.uploads import Stored, place

NAME = re.compile(r"\w[\w .-]{0,62}(?<![ .])")
"""What a gallery may be called: it is the name of its folder, too."""


LISTED = 50_000
"""Photos up to which a gallery's list is kept here, and each is looked at when its problems are asked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One gallery of the shelf."""

    name: str
    address: str
    """Folder of the gallery, or its address."""
    photos: Path | None
    """Folder of its photos when they were sent by clients: one folder each, named by SHA-256; None: read-only."""

    @property
    def writable(self) -> bool:
        """Whether clients may add and remove photos."""
        return self.photos is not None


class Shelf:
    """Galleries by name. Reads them; what takes an encoder is the worker's affair."""

    def __init__(self, folder: Path, given: Mapping[str, str]) -> None:
        self._folder = folder
        self._given = given
        """Of the dispatcher: filled when the worker has opened them."""
        self._lock = threading.Lock()
        self._open: dict[str, Gallery] = {}
        self._read: dict[str, tuple[str, list[Photo]]] = {}

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
            self._read.pop(entry.address, None)
            self._open.pop(entry.address, None)
        trash = self._folder.parent / "tmp" / f"gallery-{entry.name}"
        shutil.rmtree(trash, ignore_errors=True)
        (self._folder / entry.name).rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def photos(self, entry: Entry) -> list[Photo]:
        """A gallery's photos, by path; read again when it was changed. Raises GalleryCorrupt."""
        manifest = self._manifest(entry)
        if manifest is None:
            return []
        with self._lock:
            known = self._read.get(entry.address)
        if known is not None and known[0] == manifest.version:
            return known[1]
        photos = sorted(self._gallery(entry).list(), key=lambda photo: (photo.path.name.casefold(), photo.id))
        with self._lock:
            self._read[entry.address] = manifest.version, photos
        return photos

    def count(self, entry: Entry) -> int:
        """How many photos a gallery has: none of them is read. Raises GalleryError."""
        manifest = self._manifest(entry)
        return 0 if manifest is None else manifest.photos

    def photo(self, entry: Entry, photo: str) -> Photo:
        """One photo by its id. Raises Refused and GalleryError."""
        found = self._find(entry, photo)
        if found is not None:
            return found
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
        self._gallery(entry).remove([photo.id])
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
            manifest = self._manifest(entry)
            photos = 0 if manifest is None else manifest.photos
            encoder = manifest.encoder.name if manifest is not None and photos else DEFAULT_ENCODER
        except GalleryError:
            photos, encoder = 0, ""
        return {"name": entry.name, "photos": photos, "encoder": encoder, "writable": entry.writable}

    def details(self, entry: Entry) -> dict[str, Any]:
        """What is said of one gallery: also what is wrong with its photos."""
        try:
            if (count := self.count(entry)) > LISTED:
                told = f"It has {count} photos, which are not looked at one by one here: rasr gallery verify does that."
                return {**self.facts(entry), "problems": [{"name": entry.name, "message": told}]}
            photos = self.photos(entry)
            problems = [
                {"name": shown(one.path.name), "message": fault}
                for one, fault in zip(photos, faults(photos), strict=True)
                if fault
            ]
        except RasrError as error:
            problems = [{"name": entry.name, "message": shown(error).replace(f"{entry.address}/", "")}]
        return {**self.facts(entry), "problems": problems}

    def photo_facts(self, entry: Entry, photo: Photo, fault: str | None = None) -> dict[str, Any]:
        """What is said of a photo, whose ``fault`` is looked for unless it is given."""
        problem = (photo.fault() if fault is None else fault) or None
        if problem is None and photo.near_duplicate_of:
            twin = self._find(entry, photo.near_duplicate_of)
            problem = None if twin is None else f"Shows the same picture as {shown(twin.path.name)}."
        size = {"width": photo.width, "height": photo.height}
        return {"id": photo.id, "name": shown(photo.path.name), **size, "problem": problem}

    def _gallery(self, entry: Entry) -> Gallery:
        """A gallery's open object, which knows the state that it has last seen."""
        with self._lock:
            return self._open.setdefault(entry.address, Gallery(entry.address))

    def _manifest(self, entry: Entry) -> Manifest | None:
        """The state of a gallery; None before its first photo. Raises GalleryError."""
        try:
            return self._gallery(entry).manifest
        except GalleryNotFound:
            return None

    def _find(self, entry: Entry, photo: str) -> Photo | None:
        """One photo by its id: from the list, or of a gallery too large for one by asking for it alone."""
        if self.count(entry) > LISTED:
            return next(iter(self._gallery(entry).find([photo])), None)
        return next((one for one in self.photos(entry) if one.id == photo), None)

    def _own(self, name: str) -> Entry:
        return Entry(name, str(self._folder / name / "gallery"), self._folder / name / "photos")


def faults(photos: Sequence[Photo]) -> list[str]:
    """What is wrong with each photo; objects are asked for side by side."""
    if not any(isinstance(photo.path, ObjectPath) for photo in photos):
        return [photo.fault() for photo in photos]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(Photo.fault, photos))


def _read_only(entry: Entry) -> Refused:
    return Refused(403, "read_only", f"The gallery '{entry.name}' can only be read here.")
