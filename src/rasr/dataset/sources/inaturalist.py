"""iNaturalist, by its public API (https://api.inaturalist.org/v1/docs/)."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from rasr.dataset.licences import allowed, parse_licence
from rasr.dataset.sources.source import Candidate, Category, Online, Page
from rasr.errors import SourceError

CODES = ("cc0", "cc-by", "cc-by-sa", "cc-by-nd", "cc-by-nc", "cc-by-nc-sa", "cc-by-nc-nd")
VERSION = "4.0"
"""The version of the Creative Commons licences that iNaturalist's codes stand for."""


class INaturalist(Online):
    """Research-grade observations of a taxon, oldest first; of each observation its first photo."""

    class Settings(Online.Settings):
        """The open API: identified by people, licence per photo, no key."""

        endpoint: str = "https://api.inaturalist.org/v1"
        popular: bool = True
        """Only observations that somebody marked as a favourite: far better photos."""
        captive: bool = True
        """Zoo and garden animals too."""
        per_page: int = Field(default=200, ge=1, le=200)

    _settings: Settings

    @property
    def _codes(self) -> list[str]:
        return [code for code in CODES if allowed(parse_licence(code, version=VERSION), self._licences)]

    @property
    def _size(self) -> str:
        """Name of the size to fetch: "large" has a long side of 1024, "original" of up to 2048."""
        return "large" if self._long_side <= 1024 else "original"

    def ready(self) -> None:
        """Raise SourceError when none of iNaturalist's licences is accepted."""
        super().ready()
        if not self._codes:
            raise SourceError("None of iNaturalist's licences is among the accepted ones of the config.")

    def query(self, category: Category) -> str:
        """Name the taxon; empty for categories that are no species."""
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
        numbers = [found["id"] for found in results if isinstance(found, dict) and isinstance(found.get("id"), int)]
        more = len(results) == self._settings.per_page and numbers
        return Page.of(results, lambda found: self._candidate(found, taxon), str(numbers[-1]) if more else None)

    def _candidate(self, observation: Mapping[str, Any], taxon: str) -> Candidate | None:
        """Take the first photo of an observation; None when it has none or is of another taxon."""
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
