"""Photos as a user names them: by path, folder, glob, content hash or category, or because their files are gone."""

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from rasr.errors import GalleryError
from rasr.gallery.photo import Photo, is_within
from rasr.object_path import expand, place


def matching(
    photos: Iterable[Photo],
    patterns: Collection[str | Path] | None = None,
    *,
    category: str | Collection[str] | None = None,
    missing: bool = False,
) -> list[Photo]:
    """The photos that fit any of ``patterns`` (None: all) and the ``category`` or one below it.

    With ``missing`` only those whose file is gone.
    """
    tests = None if patterns is None else [_Pattern(str(pattern)) for pattern in patterns]
    return [
        photo
        for photo in photos
        if (tests is None or any(test.fits(photo) for test in tests))
        and (category is None or is_within(photo.category, category))
        and not (missing and _is_there(photo))
    ]


def _is_there(photo: Photo) -> bool:
    try:
        return photo.path.is_file()
    except OSError as error:  # a storage that does not answer has not lost its photos
        raise GalleryError(f"{photo.path}: it cannot be found out whether it is there ({error.strerror}).") from error


class _Pattern:
    """A path, a glob or a content hash that a user names photos by."""

    def __init__(self, text: str) -> None:
        self.hash = text.lower() if re.fullmatch(r"[0-9a-fA-F]{8,32}", text) else None
        self.path = expand(place(text)).resolve()
        self.glob = str(expand(place(text)).absolute()) if re.search(r"[*?\[]", text) else None
        self.name = text

    def fits(self, photo: Photo) -> bool:
        if self.hash is not None and photo.id.startswith(self.hash):
            return True
        if photo.path == self.path or photo.path.is_relative_to(self.path):
            return True
        # A glob without a folder is meant for file names, like the shell's in the folder at hand.
        return self.glob is not None and (
            fnmatchcase(str(photo.path), self.glob) or fnmatchcase(photo.path.name, self.name)
        )
