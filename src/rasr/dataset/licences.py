"""Licences: the sources' names as SPDX identifiers, and which of them a dataset may hold.

Inside RASR a licence is an SPDX identifier (``CC-BY-SA-4.0``, ``CC0-1.0``, ``CC-PDM-1.0``) or, where SPDX has none, a
``LicenseRef-`` name. A licence that is not recognised is None and never accepted: a dataset is only as free as its
least known photo.
"""

import re
from collections.abc import Iterable

FREE_LICENCES = ("CC0-1.0", "CC-PDM-1.0", "LicenseRef-Public-Domain", "CC-BY", "CC-BY-SA")
"""The default allow-list: free to share and to adapt, commercially too. ND forbids the degraded copies a dataset needs,
NC and all-rights-reserved forbid most uses of it."""

_CC = re.compile(r"\b(?:cc|creativecommons\.org/licenses)[\s/_-]*(by(?:[\s-]nc)?(?:[\s-](?:sa|nd))?)\b", re.IGNORECASE)
_VERSION = re.compile(r"\b([1-4]\.\d)(?:[\s/-]+([a-z]{2,3})\b(?!\.))?", re.IGNORECASE)
_WORDS = {"attribution": "by", "noncommercial": "nc", "sharealike": "sa", "share alike": "sa", "noderivs": "nd"}
_OTHERS = (
    (re.compile(r"\bcc[\s-]?(?:0|zero)\b|publicdomain/zero", re.IGNORECASE), "CC0-1.0"),
    (re.compile(r"publicdomain/mark|public domain mark|\bpdm\b", re.IGNORECASE), "CC-PDM-1.0"),
    (re.compile(r"united states government|usa\.gov", re.IGNORECASE), "LicenseRef-US-Government"),
    (re.compile(r"no known copyright", re.IGNORECASE), "LicenseRef-No-Known-Copyright"),
    (re.compile(r"\bpublic[\s-]domain\b|^pd\b", re.IGNORECASE), "LicenseRef-Public-Domain"),
    (re.compile(r"\bunsplash\b", re.IGNORECASE), "LicenseRef-Unsplash"),
    (re.compile(r"\bpexels\b", re.IGNORECASE), "LicenseRef-Pexels"),
)


def parse_licence(text: str | None, *, version: str = "") -> str | None:
    """Parse a licence's name, code or URL to its SPDX identifier; None when not recognised.

    ``version`` is taken when the text names none (iNaturalist's codes mean 4.0). Ported licences keep their country:
    "CC BY-SA 3.0 de" is CC-BY-SA-3.0-DE. Of "A or B" the Creative Commons one is taken.
    """
    text = (text or "").strip()
    if text.startswith("LicenseRef-"):
        return text
    match = _CC.search(text)
    elements = match.group(1) if match else _from_words(text)
    if elements:
        number = _VERSION.search(text, match.end() if match else 0)
        found = number.group(1) if number else version
        if not found:
            return None
        country = (number.group(2) or "") if number else ""
        ported = [] if country.lower() in {"", "or", "and"} else [country]
        return "-".join(["CC", *re.split(r"[\s-]+", elements), found, *ported]).upper()
    return next((name for pattern, name in _OTHERS if pattern.search(text)), None)


def _from_words(text: str) -> str:
    """Read ``by-nc-sa`` from "Attribution-NonCommercial-ShareAlike"; empty for other texts."""
    lowered = text.lower()
    if not lowered.startswith(("attribution", "creative commons attribution")):
        return ""
    return "-".join(dict.fromkeys(code for word, code in _WORDS.items() if word in lowered))


def allowed(licence: str | None, allow: Iterable[str]) -> bool:
    """Tell whether a licence is on the list; ``CC-BY`` admits all its versions, not CC-BY-NC."""
    if licence is None:
        return False
    family = re.sub(r"-[1-4]\.\d.*$", "", licence)
    return any(entry in {licence, family} for entry in allow)


def licence_url(licence: str | None) -> str:
    """Return the address of the licence's text, or an empty string."""
    if licence is None:
        return ""
    match = re.fullmatch(r"CC-(BY[A-Z-]*?)-(\d\.\d)(?:-([A-Z]{2,3}))?", licence)
    if match:
        elements, version, country = match.groups()
        return f"https://creativecommons.org/licenses/{elements.lower()}/{version}/" + (
            f"{country.lower()}/" if country else ""
        )
    return {
        "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
        "CC-PDM-1.0": "https://creativecommons.org/publicdomain/mark/1.0/",
        "LicenseRef-Unsplash": "https://unsplash.com/license",
        "LicenseRef-Pexels": "https://www.pexels.com/license/",
        "LicenseRef-US-Government": "https://www.usa.gov/government-copyright",
    }.get(licence, "")
