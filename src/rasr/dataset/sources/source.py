"""Source of photos: the category asked for, the candidates offered, and the base class."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from pydantic import Field, field_validator

from rasr.config import Table
from rasr.dataset.addresses import host_of
from rasr.dataset.answers import STRANGE
from rasr.dataset.licences import FREE_LICENCES
from rasr.dataset.web import Web
from rasr.files import check_value

RESERVED = frozenset({"lq", "hr"})
"""Folders of a dataset that are no categories."""


class Category(Table):
    """One species, one kind of artefact, one building: a folder of the dataset."""

    name: str
    """Folder name: lower case, digits and hyphens."""
    title: str = ""
    """What people call it; the name with blanks when empty."""
    scientific_name: str = ""
    why: str = ""
    """Why it is in the dataset; printed in the card."""
    text: str = ""
    """Flickr full-text search; scientific name, else title, when neither this nor ``tags`` is given."""
    tags: tuple[str, ...] = ()
    """Flickr tags, all of which a photo must carry."""
    taxon: str = ""
    """iNaturalist taxon name; the scientific name when empty."""
    commons_category: str = ""
    """Wikimedia Commons category, without "Category:"."""
    commons_search: str = ""
    """Wikimedia Commons search text, used when there is no category."""
    folder: str = ""
    """Folder source: the name of the folder that holds this category; its own name when empty."""

    @field_validator("name")
    @classmethod
    def _slug(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value) or value in RESERVED:
            raise ValueError(
                f"'{value}' must be lower-case letters, digits and single hyphens, and not lq, hr, gallery"
            )
        return value

    @property
    def label(self) -> str:
        """Title for people."""
        return self.title or self.name.replace("-", " ")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A photo as its source describes it; not trusted before the file itself was looked at."""

    source: str
    """Kind of source, as in the config."""
    source_id: str
    """The photo's id there; with ``source`` it names the photo for good."""
    url: str
    """Where the file is: an http(s) address, or a path for the folder source."""
    page_url: str = ""
    """The page a person would look at, and that attribution links to."""
    title: str = ""
    author: str = ""
    """The photographer's name as to be credited; empty when unknown."""
    author_id: str = ""
    """The photographer's account, which stays when a name changes; empty when unknown."""
    licence: str | None = None
    """SPDX identifier or LicenseRef- name; None when unknown or not recognised."""
    width: int = 0
    """Pixels of the file at ``url``, 0 when the source does not say."""
    height: int = 0

    def check(self) -> None:
        """Raise ValueError for facts that the journal cannot keep or the web client cannot ask for."""
        check_value(list(astuple(self)), file_names=False)
        host_of(self.url)
        if not (0 <= self.width < 2**31 and 0 <= self.height < 2**31):
            raise ValueError("its size is no size")

    @property
    def file_name(self) -> str:
        """Name of the photo's file; two photos never share one, also where case does not count."""
        return f"{self.source}_{_safe_name(self.source_id)}"


def _safe_name(source_id: str) -> str:
    plain = source_id.lower().rpartition("/")[2].partition(".")[0]
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter == "_") else "-" for letter in plain)[:80]
    if safe == source_id:
        return safe
    return f"{safe}-{hashlib.blake2b(source_id.encode(errors='surrogateescape'), digest_size=4).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a source's list, in the source's own order."""

    candidates: Sequence[Candidate]
    following: str | None
    """Where the list goes on, to be handed to :meth:`Source.page`; None at its end. Stored, so that an interrupted
    build goes on from here."""
    strange: int = 0
    """Photos passed over, since their description is not of the source's form."""

    @classmethod
    def of(cls, entries: Iterable[Any], read: Callable[[Any], Candidate | None], following: str | None) -> "Page":
        """Read each photo that a service describes; what is strange about one costs that one."""
        found: list[Candidate] = []
        strange = 0
        for entry in entries:
            try:
                check_value(entry, file_names=False)
                candidate = read(entry)
                if candidate is not None:
                    candidate.check()
                    found.append(candidate)
            except STRANGE:
                strange += 1
        return cls(found, following, strange)


class Source(ABC):
    """A place that offers photos of a category, page by page.

    A new one is a class in a file of its own, and a line in :data:`rasr.dataset.SOURCES`.
    """

    class Settings(Table):
        """The keys of a ``[[source]]`` table."""

        kind: str

    limit = 1_000_000
    """Most candidates wanted for one category."""

    _settings: Settings

    def __init__(
        self,
        settings: Settings,
        web: Web,
        *,
        licences: Sequence[str] = FREE_LICENCES,
        long_side: int = 2048,
        reachable: bool = False,
    ) -> None:
        """Store the accepted ``licences``, wanted ``long_side``, and if the agent names a contact."""
        self._settings = settings
        self._web = web
        self._licences = tuple(licences)
        self._long_side = long_side
        self._reachable = reachable

    @property
    def kind(self) -> str:
        """Key of the source in :data:`rasr.dataset.SOURCES`; the ``source`` of its candidates."""
        return self._settings.kind

    def categories(self) -> list[Category]:
        """List the categories that the source knows by itself: only folders do."""
        return []

    @abstractmethod
    def ready(self) -> None:
        """Check what can be checked before the first request. Raises SourceError saying what to do."""

    @abstractmethod
    def query(self, category: Category) -> str:
        """Say in words what will be asked; empty when there is no question to ask for this category.

        A list stored under another question is outdated.
        """

    @abstractmethod
    def page(self, category: Category, cursor: str) -> Page:
        """Fetch the page at ``cursor``; an empty cursor means the first.

        Raises SourceError when this source cannot be used at all, FetchError when this page could not be had.
        """


class Online(Source):
    """A source on the web, which is asked for a number of candidates at an endpoint."""

    class Settings(Source.Settings):
        """The keys that all online sources have."""

        endpoint: str
        candidates: int = Field(default=400, ge=1, le=4000)
        """Photos to ask for in each category."""

    _settings: Settings

    @property
    def limit(self) -> int:  # type: ignore[override]  # a constant there, a setting here
        """Most candidates wanted for one category."""
        return self._settings.candidates

    def ready(self) -> None:
        """Raise SourceError when the network must not be used, ExtraMissing without the client."""
        self._web.ready(self._settings.endpoint)
