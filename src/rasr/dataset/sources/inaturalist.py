"""iNaturalist, by its public API (https://api.inaturalist.org/v1/docs/)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rasr.dataset.candidate import Candidate
from rasr.dataset.config import Category, INaturalistSource
from rasr.dataset.licences import allowed, parse_licence
from rasr.dataset.sources.protocol import Page
from rasr.dataset.web import Web
from rasr.errors import SourceError

__all__ = ["INaturalist"]

CODES = ("cc0", "cc-by", "cc-by-sa", "cc-by-nd", "cc-by-nc", "cc-by-nc-sa", "cc-by-nc-nd")
VERSION = "4.0"
"""The version of the Creative Commons licences that iNaturalist's codes stand for."""
STORED = 2048
"""Long side of what iNaturalist keeps under the name "original"; "large" is 1024."""


class INaturalist:
    """Research-grade observations of a taxon, oldest first; of each observation its first photo."""

    kind = "inaturalist"

    def __init__(self, settings: INaturalistSource, web: Web, licences: tuple[str, ...], long_side: int) -> None:
        self._settings = settings
        self._web = web
        self._codes = [code for code in CODES if allowed(parse_licence(code, version=VERSION), licences)]
        self._size = "large" if long_side <= 1024 else "original"

    @property
    def limit(self) -> int:
        """Most candidates wanted for one category."""
        return self._settings.candidates

    def ready(self) -> None:
        """Raise SourceError when none of iNaturalist's licences is accepted."""
        self._web.ready(self._settings.endpoint)
        if not self._codes:
            raise SourceError("None of iNaturalist's licences is among the accepted ones of the config.")

    def query(self, category: Category) -> str:
        """The taxon's name; empty for categories that are no species."""
        taxon = category.taxon or category.scientific_name
        kind = "favourites of" if self._settings.popular else "observations of"
        return f"{kind} taxon {taxon} under {', '.join(self._codes)}" if taxon else ""

    def page(self, category: Category, cursor: str) -> Page:
        """Observations after the one numbered ``cursor``. Raises FetchError."""
        taxon = category.taxon or category.scientific_name
        asked: dict[str, str | int] = {
            "taxon_name": taxon,
            "quality_grade": "research",
            "photos": "true",
            "photo_license": ",".join(self._codes),
            "order_by": "id",
            "order": "asc",
            "id_above": int(cursor or 0),
            "per_page": self._settings.per_page,
        }
        if self._settings.popular:
            asked["popular"] = "true"
        if not self._settings.captive:
            asked["captive"] = "false"
        answer = self._web.json(f"{self._settings.endpoint.rstrip('/')}/observations", asked)
        results = answer.get("results") if isinstance(answer, dict) else None
        if results is None:
            raise SourceError("iNaturalist answered something that is not a list of observations.")
        found = [self._candidate(observation, taxon) for observation in results]
        more = len(results) == self._settings.per_page
        return Page([photo for photo in found if photo], str(results[-1]["id"]) if more else None)

    def _candidate(self, observation: Mapping[str, Any], taxon: str) -> Candidate | None:
        """The first photo of an observation; None when it has none or is of another taxon."""
        name = str((observation.get("taxon") or {}).get("name", ""))
        photos = observation.get("photos") or ()
        # A name may also be somebody's common name for another animal; sub-species carry the species' name first.
        if not photos or not f"{name} ".lower().startswith(f"{taxon} ".lower()):
            return None
        photo, user = photos[0], observation.get("user") or {}
        size = photo.get("original_dimensions") or {}
        width, height = int(size.get("width") or 0), int(size.get("height") or 0)
        shrink = 1024 / max(width, height, 1024) if self._size == "large" else 1.0
        login = str(user.get("login") or "")
        return Candidate(
            source=self.kind,
            source_id=str(photo["id"]),
            url=re.sub(r"/square\.", f"/{self._size}.", str(photo["url"])),
            page_url=str(observation.get("uri") or f"https://www.inaturalist.org/photos/{photo['id']}"),
            title=str((observation.get("taxon") or {}).get("preferred_common_name") or name),
            author=str(user.get("name") or login),
            author_id=login,
            licence=parse_licence(photo.get("license_code"), version=VERSION),
            width=round(width * shrink),
            height=round(height * shrink),
        )
