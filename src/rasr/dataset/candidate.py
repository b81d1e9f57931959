"""A photo that a source offers, before anything of it is downloaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["Candidate", "safe_name"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a source says about one photo. Nothing here is trusted before the file itself was looked at."""

    source: str
    """Kind of source: flickr, inaturalist, commons or folder."""
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


def safe_name(source_id: str) -> str:
    """``source_id`` as part of a file name; two ids never give the same name, also where case does not count."""
    plain = source_id.lower().rpartition("/")[2].partition(".")[0]
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter == "_") else "-" for letter in plain)[:80]
    if safe == source_id:
        return safe
    return f"{safe}-{hashlib.blake2b(source_id.encode(errors='surrogateescape'), digest_size=4).hexdigest()}"
