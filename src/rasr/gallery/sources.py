"""Which files an ``add`` means, and under which category and tags."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rasr.images import walk_pictures

__all__ = ["Source", "sources_of"]


@dataclass(frozen=True, slots=True)
class Source:
    """A file to add."""

    path: Path
    """Absolute and resolved."""
    category: str = ""
    tags: tuple[str, ...] = ()
    explicit: bool = False
    """The category was given by the user, not derived from the folder: it also replaces the one of a known photo."""


def sources_of(
    paths: str | Path | Iterable[str | Path], category: str | None = None, tags: Iterable[str] = ()
) -> list[Source]:
    """The files among and below ``paths``, each once; raises PictureError when there are none.

    The category of a file found in a folder is the sub-folder it is in, unless ``category`` is given.
    """
    given = [paths] if isinstance(paths, str | Path) else paths
    unique_tags = tuple(dict.fromkeys(tags))
    sources: dict[Path, Source] = {}
    for folder, file in walk_pictures([Path(path).expanduser() for path in given]):
        below = "." if folder is None else file.parent.relative_to(folder).as_posix()
        derived = "" if below == "." else below
        source = Source(
            file.resolve(), derived if category is None else category, unique_tags, explicit=category is not None
        )
        sources.setdefault(source.path, source)
    return list(sources.values())
