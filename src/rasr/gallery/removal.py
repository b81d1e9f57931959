"""Which photos a user means."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from rasr.gallery.photo import Photo

__all__ = ["matching"]


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
    wanted = [category] if isinstance(category, str) else category
    tests = None if patterns is None else [_Pattern(str(pattern)) for pattern in patterns]
    return [
        photo
        for photo in photos
        if (tests is None or any(test.fits(photo) for test in tests))
        and (wanted is None or any(photo.category == one or photo.category.startswith(f"{one}/") for one in wanted))
        and not (missing and photo.path.is_file())
    ]


class _Pattern:
    def __init__(self, text: str) -> None:
        self.hash = text.lower() if re.fullmatch(r"[0-9a-fA-F]{8,32}", text) else None
        self.path = Path(text).expanduser().resolve()
        self.glob = str(Path(text).expanduser().absolute()) if re.search(r"[*?\[]", text) else None
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
