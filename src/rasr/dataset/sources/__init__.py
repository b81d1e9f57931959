"""Sources of photos: one base class, one table of kinds."""

from pkgutil import resolve_name

from rasr.dataset.sources.source import Candidate, Category, Page, Source

__all__ = ["SOURCES", "Candidate", "Category", "Page", "Source", "source_class"]

SOURCES = {
    "flickr": "rasr.dataset.sources.flickr:Flickr",
    "inaturalist": "rasr.dataset.sources.inaturalist:INaturalist",
    "commons": "rasr.dataset.sources.commons:Commons",
    "folder": "rasr.dataset.sources.folder:Folder",
}
"""Kind of source, as configs name it → module and class."""


def source_class(kind: str) -> type[Source]:
    """Import the class of a kind. Raises KeyError for an unknown one."""
    found: type[Source] = resolve_name(SOURCES[kind])
    return found
