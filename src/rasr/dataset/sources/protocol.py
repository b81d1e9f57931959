"""What a source of photos is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rasr.dataset.candidate import Candidate
from rasr.dataset.config import Category

__all__ = ["Page", "Source"]


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a source's list, in the source's own order."""

    candidates: Sequence[Candidate]
    following: str | None
    """Where the list goes on, to be handed to :meth:`Source.page`; None at its end. Stored, so that an interrupted
    build goes on from here."""


class Source(Protocol):
    """A place that offers photos of a category, page by page."""

    @property
    def kind(self) -> str:
        """flickr, inaturalist, commons or folder; the ``source`` of its candidates."""
        ...

    @property
    def limit(self) -> int:
        """Most candidates wanted for one category."""
        ...

    def ready(self) -> None:
        """Check what can be checked before the first request. Raises SourceError saying what to do."""
        ...

    def query(self, category: Category) -> str:
        """What will be asked, in words; empty when there is no question to ask for this category.

        A list stored under another question is outdated.
        """
        ...

    def page(self, category: Category, cursor: str) -> Page:
        """The page at ``cursor``; an empty cursor means the first.

        Raises SourceError when this source cannot be used at all, FetchError when this page could not be had.
        """
        ...
