"""Datasets: galleries with splits, built from licensed photos that anyone can fetch again."""

from rasr.dataset.adapters import ADAPTERS, adapt_dataset
from rasr.dataset.build import BuildReport, build_dataset
from rasr.dataset.card import write_card
from rasr.dataset.check import CheckReport, check_dataset
from rasr.dataset.config import DatasetConfig, load_config, shipped_configs
from rasr.dataset.manifest import Record, read_manifest
from rasr.dataset.review import ReviewServer
from rasr.dataset.sources import SOURCES, Candidate, Category, Page, Source

__all__ = [
    "ADAPTERS",
    "SOURCES",
    "BuildReport",
    "Candidate",
    "Category",
    "CheckReport",
    "DatasetConfig",
    "Page",
    "Record",
    "ReviewServer",
    "Source",
    "adapt_dataset",
    "build_dataset",
    "check_dataset",
    "load_config",
    "read_manifest",
    "shipped_configs",
    "write_card",
]
