"""Flickr, by its official REST API (https://www.flickr.com/services/api/)."""

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from rasr.dataset.licences import allowed, parse_licence
from rasr.dataset.sources.source import Candidate, Category, Online, Page
from rasr.errors import SourceError

SIZES = ("c", "l", "h", "k", "3k", "4k", "5k", "6k", "o")
"""Suffixes of the sizes from 800 pixels up; ``o`` is the original. Owners may withhold the larger ones."""
MOST_RESULTS = 4000
"""Beyond this many the search repeats itself."""
BAD_KEY = 100
UNAVAILABLE = frozenset({10, 105, 201})
"""Codes of a service that is down, sent with status 200."""


class Flickr(Online):
    """Full-text or tag search, restricted to the licences that the dataset accepts."""

    class Settings(Online.Settings):
        """The official REST API. The key comes from the environment, never from the config."""

        endpoint: str = "https://www.flickr.com/services/rest/"
        key_variable: str = "FLICKR_API_KEY"
        sort: Literal["relevance", "interestingness-desc", "date-posted-desc", "date-taken-desc"] = "relevance"
        per_page: int = Field(default=250, ge=1, le=500)

    _settings: Settings

    def ready(self) -> None:
        """Raise SourceError when there is no key in the environment."""
        super().ready()
        if not self._key:
            raise SourceError(
                f"Flickr needs an API key: put it into the environment variable {self._settings.key_variable} "
                "(https://www.flickr.com/services/apps/create/), or remove the flickr source from the config."
            )

    def query(self, category: Category) -> str:
        """Tags when the category has some, else its text, else its scientific name or title."""
        words = category.text or category.scientific_name or category.label
        asked = f"tags {','.join(category.tags)}" if category.tags else f"text {words}"
        return f"{asked} by {self._settings.sort} under {', '.join(self._licences)}"

    def page(self, category: Category, cursor: str) -> Page:
        """Fetch page number ``cursor`` of the search. Raises SourceError for a refused key."""
        number = int(cursor or 1)
        words = {"tags": ",".join(category.tags), "tag_mode": "all"} if category.tags else {}
        answer = self._call(
            "flickr.photos.search",
            **(words or {"text": category.text or category.scientific_name or category.label}),
            license=",".join(self._ids),
            sort=self._settings.sort,
            media="photos",
            content_types=0,
            safe_search=1,
            extras=",".join(["license", "owner_name", "path_alias", "o_dims", *(f"url_{size}" for size in SIZES)]),
            per_page=self._settings.per_page,
            page=number,
        )["photos"]
        photos = answer.get("photo", ())
        last = min(int(answer.get("pages", 0)), MOST_RESULTS // self._settings.per_page)
        return Page.of(photos, self._candidate, str(number + 1) if number < last and photos else None)

    @property
    def _key(self) -> str:
        return os.environ.get(self._settings.key_variable, "").strip()

    @cached_property
    def _ids(self) -> dict[str, str]:
        """Map Flickr's numbers to SPDX names; asked for, since Flickr adds some over the years."""
        listed = self._call("flickr.photos.licenses.getInfo")["licenses"]["license"]
        known = {
            str(entry["id"]): parse_licence(entry.get("url")) or parse_licence(entry.get("name")) for entry in listed
        }
        accepted = {number: name for number, name in known.items() if name and allowed(name, self._licences)}
        if not accepted:
            raise SourceError(f"None of Flickr's licences is among the accepted ones ({', '.join(self._licences)}).")
        return accepted

    def _call(self, method: str, **arguments: str | int) -> Mapping[str, Any]:
        """Call the API. Flickr reports its failures in the body, under status 200."""
        fixed: dict[str, str | int] = {"method": method, "api_key": self._key, "format": "json", "nojsoncallback": 1}
        answer = self._web.json(self._settings.endpoint, fixed | arguments, _unavailable)
        if not isinstance(answer, dict):
            raise SourceError("Flickr answered something that is not a JSON object.")
        if answer.get("stat") == "ok":
            return answer
        code, said = answer.get("code"), answer.get("message", "no message")
        if code == BAD_KEY:
            raise SourceError(
                f"Flickr refuses the API key in {self._settings.key_variable} ({said}). Copy it again from "
                "https://www.flickr.com/services/apps/."
            )
        raise SourceError(f"Flickr cannot answer {method}: {said} (code {code}).")

    def _candidate(self, photo: Mapping[str, Any]) -> Candidate | None:
        """Take the size nearest above the wanted one; None when the owner offers none worth having."""
        sizes = [
            (int(photo[f"width_{size}"]), int(photo[f"height_{size}"]), str(photo[f"url_{size}"]))
            for size in SIZES
            if photo.get(f"url_{size}") and photo.get(f"width_{size}") and photo.get(f"height_{size}")
        ]
        if not sizes:
            return None
        sizes.sort(key=lambda size: size[0] * size[1])
        width, height, url = next((size for size in sizes if max(size[:2]) >= self._long_side), sizes[-1])
        owner = str(photo["owner"])
        return Candidate(
            source=self.kind,
            source_id=str(photo["id"]),
            url=url,
            page_url=f"https://www.flickr.com/photos/{photo.get('pathalias') or owner}/{photo['id']}/",
            title=str(photo.get("title", "")),
            author=str(photo.get("ownername") or owner),
            author_id=owner,
            licence=self._ids.get(str(photo.get("license"))),
            width=width,
            height=height,
        )


def _unavailable(answer: Any) -> str:
    if isinstance(answer, dict) and answer.get("code") in UNAVAILABLE:
        return f"Flickr is not available: {answer.get('message')} (code {answer['code']})"
    return ""
