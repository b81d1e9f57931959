"""Wikimedia Commons, by the MediaWiki API (https://commons.wikimedia.org/w/api.php)."""

import json
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

from pydantic import Field

from rasr.dataset.licences import parse_licence
from rasr.dataset.sources.source import Candidate, Category, Online, Page
from rasr.errors import SourceError
from rasr.files import parse_object

PICTURES = frozenset({"image/jpeg", "image/png", "image/webp", "image/tiff"})
WIDTHS = (500, 960, 1280, 1920, 3840)
"""The widths that Wikimedia keeps ready (https://www.mediawiki.org/wiki/Common_thumbnail_sizes)."""
FIELDS = "LicenseShortName|LicenseUrl|License|Artist|ObjectName"


class Commons(Online):
    """The files of a category, or the answers to a search; only pictures."""

    class Settings(Online.Settings):
        """Wikimedia Commons, by category or by search."""

        endpoint: str = "https://commons.wikimedia.org/w/api.php"
        per_page: int = Field(default=50, ge=1, le=500)

    _settings: Settings

    def ready(self) -> None:
        """Raise SourceError when the User-Agent names nobody: Wikimedia blocks such programs."""
        super().ready()
        if not self._reachable:
            raise SourceError(
                "Wikimedia Commons asks every program to say how its operator can be reached. Set RASR_CONTACT, "
                "or contact in the config, to an e-mail or web address."
            )

    def query(self, category: Category) -> str:
        """Name the Commons category, else the search; empty when neither is given."""
        if category.commons_category:
            return f"category {category.commons_category}"
        return f"search {category.commons_search}" if category.commons_search else ""

    def page(self, category: Category, cursor: str) -> Page:
        """Fetch the page that the API's continuation values in ``cursor`` lead to."""
        if category.commons_category:
            title = f"Category:{category.commons_category.removeprefix('Category:')}"
            generator: dict[str, str | int] = {
                "generator": "categorymembers",
                "gcmtitle": title,
                "gcmtype": "file",
                "gcmlimit": self._settings.per_page,
            }
        else:
            generator = {
                "generator": "search",
                "gsrsearch": f"{category.commons_search} filetype:bitmap",
                "gsrnamespace": 6,
                "gsrlimit": self._settings.per_page,
            }
        fixed: dict[str, str | int] = {
            "action": "query",
            "format": "json",
            "formatversion": 2,
            "maxlag": 5,
            "prop": "imageinfo",
            "iiprop": "url|size|mime|user|extmetadata",
            "iiextmetadatafilter": FIELDS,
            "iiurlwidth": min(WIDTHS, key=lambda width: abs(width - self._long_side)),
        }
        asked = fixed | generator | (parse_object(cursor) if cursor else {})
        answer = self._web.json(self._settings.endpoint, asked, _busy)
        if "error" in answer:
            code, said = answer["error"].get("code", ""), answer["error"].get("info", "no message")
            raise SourceError(f"Wikimedia Commons cannot answer: {said} ({code}).")
        following = answer.get("continue")
        pages = answer.get("query", {}).get("pages", ())
        return Page.of(pages, self._candidate, json.dumps(following, sort_keys=True) if following else None)

    def _candidate(self, page: Mapping[str, Any]) -> Candidate | None:
        """Read a file of the category; None for videos, documents and drawings."""
        info = (page.get("imageinfo") or [{}])[0]
        if info.get("mime") not in PICTURES:
            return None
        facts = {name: str(entry.get("value", "")) for name, entry in info.get("extmetadata", {}).items()}
        smaller = bool(info.get("thumburl")) and info["thumbwidth"] < info["width"]
        size = ("thumburl", "thumbwidth", "thumbheight") if smaller else ("url", "width", "height")
        url, width, height = (info[key] for key in size)
        uploader = str(info.get("user") or "")
        artist = _plain_text(facts.get("Artist", ""))
        return Candidate(
            source=self.kind,
            source_id=str(page["pageid"]),
            url=str(url),
            page_url=str(info.get("descriptionurl") or ""),
            title=_plain_text(facts.get("ObjectName", "")) or str(page.get("title", "")).removeprefix("File:"),
            author=artist or uploader,
            # The artist, where named, is the photographer; the uploader may have brought in the work of hundreds.
            author_id=artist or uploader,
            licence=parse_licence(facts.get("LicenseUrl")) or parse_licence(facts.get("LicenseShortName")),
            width=int(width),
            height=int(height),
        )


def _busy(answer: Any) -> str:
    error = answer.get("error", {}) if isinstance(answer, dict) else {}
    if error.get("code") in ("maxlag", "ratelimited", "readonly"):
        return f"Wikimedia Commons is busy: {error.get('info', error['code'])}"
    return ""


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def _plain_text(html: str) -> str:
    """Extract the words of a piece of HTML, on one line."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    return " ".join("".join(parser.parts).split())
