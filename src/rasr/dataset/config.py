"""Config of a dataset: what to look for, where, and what is good enough."""

import os
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rasr.config import Table, check_table, read_toml
from rasr.dataset.licences import FREE_LICENCES
from rasr.dataset.sources import SOURCES, Category, Source, source_class
from rasr.dataset.web import Download, Web
from rasr.errors import ConfigError

PATHS = ("path", "credits")
"""Keys of a source that name files: relative ones start at the config's own folder."""


class Splits(Table):
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


class Filters(Table):
    """Bounds that a photo must keep. Every rejection is counted in the log and the card."""

    licences: tuple[str, ...] = FREE_LICENCES
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


class LowQuality(Table):
    """Settings of the ready-made inputs of the test split."""

    enabled: bool = True
    preset: str = "realesrgan"
    scale: int = Field(default=4, ge=1, le=16)
    crop: int = Field(default=512, ge=0)
    """Centre crop of the photo that is degraded, in pixels; 0 takes the whole photo."""

    @field_validator("preset")
    @classmethod
    def _known(cls, value: str) -> str:
        from rasr.degrade import PRESETS

        if value not in PRESETS:
            raise ValueError(f"there is no degradation preset '{value}'; choose one of {', '.join(PRESETS)}")
        return value


class DatasetConfig(Table):
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
    source: tuple[Source.Settings, ...] = Field(min_length=1)
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

    def make_sources(self, web: Web) -> list[Source]:
        """Make the sources, in order of preference."""
        licences, long_side = self.filters.licences, self.download.long_side
        return [
            source_class(settings.kind)(settings, web, licences=licences, long_side=long_side, reachable=self.reachable)
            for settings in self.source
        ]

    @property
    def agent(self) -> str:
        """User-Agent header: name, version, and how to reach the person who runs the build."""
        contact = os.environ.get("RASR_CONTACT", "").strip() or self.contact
        name = self.user_agent or f"rasr/{version('rasr')}"
        return f"{name} ({contact})" if contact else name

    @property
    def reachable(self) -> bool:
        """True when the User-Agent header says how to reach the person who runs the build."""
        return "@" in self.agent or "://" in self.agent


def load_config(path: str | Path) -> DatasetConfig:
    """Read a config file, or a shipped one by name (``rasr-flickr30``).

    Relative folders in it are taken from the file's own folder. Raises ConfigError.
    """
    file = Path(path)
    shipped = shipped_configs()
    if not file.exists():
        if file.name.removesuffix(".toml") not in shipped:
            known = ", ".join(shipped)
            raise ConfigError(f"There is no config file {path}, and no shipped one of that name ({known}).")
        file = shipped[file.name.removesuffix(".toml")]
    return parse_config(read_toml(file, "config"), str(path), file.parent)


def parse_config(raw: Mapping[str, Any], name: str, folder: Path) -> DatasetConfig:
    """Check a config already read; its relative paths start at ``folder``. Raises ConfigError."""
    tables = raw.get("source")
    if isinstance(tables, list):
        raw = {**raw, "source": [_settings(table, f"{name}: source.{n}", folder) for n, table in enumerate(tables)]}
    return check_table(DatasetConfig, raw, name)


def _settings(table: Any, name: str, folder: Path) -> Source.Settings:
    """Check a ``[[source]]`` table by the settings of its kind."""
    kind = table.get("kind") if isinstance(table, dict) else None
    if not isinstance(kind, str) or kind not in SOURCES:
        raise ConfigError(f"{name}: kind: there is no source {kind!r}. Choose one of: {', '.join(SOURCES)}.")
    paths = {key: table[key] for key in PATHS if isinstance(table.get(key), str)}
    # os.path leaves a "~name" of nobody as it is; pathlib raises RuntimeError.
    absolute = {key: folder.absolute() / os.path.expanduser(path) for key, path in paths.items()}  # noqa: PTH111
    return check_table(source_class(kind).Settings, {**table, **absolute}, name)


def shipped_configs() -> dict[str, Path]:
    """List the configs that come with RASR: name → file."""
    folder = Path(str(files("rasr.dataset") / "configs"))
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}
