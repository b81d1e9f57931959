"""The TOML file a dataset is built from: what to look for, where, and what is good enough."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rasr.dataset.licences import FREE
from rasr.errors import ConfigError

__all__ = [
    "Category",
    "CommonsSource",
    "DatasetConfig",
    "Download",
    "Filters",
    "FlickrSource",
    "FolderSource",
    "INaturalistSource",
    "LowQuality",
    "SourceConfig",
    "Splits",
    "load_config",
    "shipped_configs",
]

RATES = {
    "www.flickr.com": 0.9,  # "under 3600 queries per hour across the whole key"
    "api.flickr.com": 0.9,
    "live.staticflickr.com": 4.0,
    "api.inaturalist.org": 0.9,  # "60 requests per minute or lower"
    "inaturalist-open-data.s3.amazonaws.com": 4.0,
    "static.inaturalist.org": 1.0,
    "commons.wikimedia.org": 1.0,  # one request at a time
    "upload.wikimedia.org": 1.0,
}
"""Requests a second that each service is known to accept, from its own public terms."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Category(_Section):
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
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value) or value in {"lq", "hr"}:
            raise ValueError(
                f"'{value}' must be lower-case letters, digits and single hyphens, and not lq, hr, gallery"
            )
        return value

    @property
    def label(self) -> str:
        """Title for people."""
        return self.title or self.name.replace("-", " ")


class _Online(_Section):
    candidates: int = Field(default=400, ge=1, le=4000)
    """Photos to ask for in each category."""


class FlickrSource(_Online):
    """Flickr, by its official REST API. The key comes from the environment, never from this file."""

    kind: Literal["flickr"]
    endpoint: str = "https://www.flickr.com/services/rest/"
    key_variable: str = "FLICKR_API_KEY"
    sort: Literal["relevance", "interestingness-desc", "date-posted-desc", "date-taken-desc"] = "relevance"
    per_page: int = Field(default=250, ge=1, le=500)


class INaturalistSource(_Online):
    """iNaturalist's open API: identified by people, licence per photo, no key."""

    kind: Literal["inaturalist"]
    endpoint: str = "https://api.inaturalist.org/v1"
    popular: bool = True
    """Only observations that somebody marked as a favourite: far better photos."""
    captive: bool = True
    """Zoo and garden animals too."""
    per_page: int = Field(default=200, ge=1, le=200)


class CommonsSource(_Online):
    """Wikimedia Commons, by category or by search."""

    kind: Literal["commons"]
    endpoint: str = "https://commons.wikimedia.org/w/api.php"
    per_page: int = Field(default=50, ge=1, le=500)


class FolderSource(_Section):
    """Photos already on this machine, one folder per category."""

    kind: Literal["folder"]
    path: Path
    credits: Path | None = None
    """A CSV with one row per photo, found by file name, file name without suffix, or path below the folder."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which column of the CSV holds ``photo``, ``author``, ``licence``, ``page``, ``title``, where named otherwise."""

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value) - {"photo", "author", "licence", "page", "title"})
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; there are photo, author, licence, page, title")
        return value

    author: str = ""
    """Author of photos without a row in ``credits``."""
    licence: str = ""
    """Licence of photos without a row in ``credits``: an SPDX name, or LicenseRef-Own for the museum's own."""


SourceConfig = Annotated[FlickrSource | INaturalistSource | CommonsSource | FolderSource, Field(discriminator="kind")]


class Splits(_Section):
    """Photos per category and split; the paper's protocol is the default (§III-C)."""

    train: int = Field(default=40, ge=0)
    test: int = Field(default=5, ge=0)
    reference: int = Field(default=100, ge=0)
    by_photographer: bool = True
    """No photographer in two splits. Turn off for collections made by one person, and say so when publishing."""
    related_similarity: float = Field(default=0.90, gt=0, le=1)
    """Photos of one category at least this similar (cosine) stay in one split: bursts, the same statue twice."""

    @property
    def total(self) -> int:
        """Photos wanted in one category."""
        return self.train + self.test + self.reference


class Filters(_Section):
    """What a photo must pass. Every rejection is counted in the log and the card."""

    licences: tuple[str, ...] = FREE
    min_short_side: int = Field(default=512, ge=16)
    min_jpeg_quality: int = Field(default=70, ge=0, le=100)
    """IJG quality read from the quantisation tables; 0 turns it off."""
    max_blockiness: float = Field(default=1.7, ge=1)
    """Steps across the 8-pixel grid over steps elsewhere; catches files re-saved at high quality after a low one."""
    max_blur: float = Field(default=0.5, ge=0, le=1)
    """Blur of the sharpest part: 0 sharp, 1 flat (Crété et al. 2007)."""
    duplicate_distance: int = Field(default=8, ge=0, le=64)
    """Perceptual hashes (64 bits) that differ in at most this many bits are the same photo."""
    duplicate_similarity: float = Field(default=0.95, gt=0, le=1)
    """Embeddings at least this similar (cosine) within a category are the same photo."""
    outlier_deviations: float = Field(default=4.0, gt=0)
    """Subject check: how many robust standard deviations below its category a photo may lie."""
    outlier_action: Literal["report", "drop"] = "report"


class Download(_Section):
    """How politely, and how patiently."""

    workers: int = Field(default=4, ge=1, le=32)
    rate: float = Field(default=1.0, gt=0)
    """Requests a second to a host that ``rates`` does not name."""
    rates: dict[str, float] = Field(default_factory=dict)
    """Host → requests a second, on top of the known ones."""
    attempts: int = Field(default=5, ge=1, le=20)
    back_off: float = Field(default=1.0, ge=0)
    """Seconds before the second attempt; doubled for each further one."""
    patience: float = Field(default=120.0, ge=0)
    """Longest wait in seconds that a server may ask for; a longer one ends that server's part of the run."""
    timeout: float = Field(default=30.0, gt=0)
    """Seconds without a byte before an attempt counts as failed."""
    max_megabytes: float = Field(default=100.0, gt=0)
    per_photographer: int = Field(default=4, ge=1)
    """Most photos of one photographer in one category."""
    long_side: int = Field(default=2048, ge=64)
    """The size to ask for where a source offers several: the smallest that reaches it."""
    oversample: float = Field(default=1.25, ge=1)
    """Good photos to gather per photo wanted, so that splits without leaks can be filled."""

    def rate_of(self, host: str) -> float:
        """Requests a second allowed to ``host``."""
        return self.rates.get(host, RATES.get(host, self.rate))


class LowQuality(_Section):
    """The ready-made inputs of the test split."""

    enabled: bool = True
    preset: str = "realesrgan"
    scale: int = Field(default=4, ge=1, le=16)
    crop: int = Field(default=512, ge=0)
    """Centre crop of the photo that is degraded, in pixels; 0 takes the whole photo."""


class DatasetConfig(_Section):
    """A whole dataset."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str = ""
    description: str = ""
    contact: str = ""
    """E-mail or web address sent with every request, as Wikimedia and iNaturalist ask; ``RASR_CONTACT`` overrides."""
    user_agent: str = ""
    """Name and version sent with every request; RASR's own when empty."""
    seed: int = 0
    encoder: str = "effnet-lite0"
    gallery: bool = True
    lq: LowQuality = LowQuality()
    splits: Splits = Splits()
    filters: Filters = Filters()
    download: Download = Download()
    source: tuple[SourceConfig, ...] = Field(min_length=1)
    """In order of preference: a later source only fills what the earlier ones left open."""
    category: tuple[Category, ...] = ()
    """May be left out when the only source is a folder: its sub-folders are the categories."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [category.name for category in self.category]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"categories named twice: {', '.join(twice)}")
        kinds = [source.kind for source in self.source]
        if not names and kinds != ["folder"]:
            raise ValueError("without [[category]] entries the only source must be one folder")
        if len(set(kinds)) < len(kinds):
            raise ValueError("a kind of source is given twice; of folders, name the one that holds the others")
        if self.splits.total == 0:
            raise ValueError("splits: train, test and reference are all 0")
        return self

    @property
    def agent(self) -> str:
        """The User-Agent header."""
        contact = os.environ.get("RASR_CONTACT", "").strip() or self.contact
        name = self.user_agent or f"rasr/{version('rasr')}"
        return f"{name} ({contact})" if contact else name

    @property
    def reachable(self) -> bool:
        """Whether the header says how to reach the person who runs the build."""
        return "@" in self.agent or "://" in self.agent


def load_config(path: str | Path) -> DatasetConfig:
    """Read a config file, or a shipped one by name (``rasr-flickr30``).

    Relative folders in it are taken from the file's own folder. Raises ConfigError.
    """
    file = Path(path)
    shipped = shipped_configs()
    if not file.exists() and file.name.removesuffix(".toml") in shipped:
        file = shipped[file.name.removesuffix(".toml")]
    try:
        raw = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(shipped)
        raise ConfigError(f"There is no config file {path}, and no shipped one of that name ({known}).") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not a readable TOML file: {error}") from error
    return parse_config(raw, str(path), file.parent)


def parse_config(raw: dict[str, Any], name: str, folder: Path) -> DatasetConfig:
    """Check a config already read; ``folder`` is what its relative paths start from."""
    for source in raw.get("source", ()) if isinstance(raw.get("source"), list) else ():
        for key in ("path", "credits"):
            if isinstance(source, dict) and isinstance(source.get(key), str):
                source[key] = str(folder.absolute() / Path(source[key]).expanduser())
    try:
        return DatasetConfig.model_validate(raw)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise ConfigError(f"{name}: {'; '.join(faults)}.") from error


def shipped_configs() -> dict[str, Path]:
    """Name → file of the configs that come with RASR."""
    folder = Path(str(files("rasr.dataset") / "configs"))
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}
