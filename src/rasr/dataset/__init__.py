"""Datasets: galleries with training and test splits, built from licensed photos anyone can fetch again."""

from rasr.dataset.adapters import ADAPTERS, Adapter, AdaptReport, adapt_dataset
from rasr.dataset.build import BuildReport, CategoryReport, build_dataset
from rasr.dataset.candidate import Candidate
from rasr.dataset.card import write_card
from rasr.dataset.check import CheckReport, Finding, check_dataset
from rasr.dataset.config import Category, DatasetConfig, load_config, shipped_configs
from rasr.dataset.manifest import Record, read_manifest
from rasr.dataset.review import ReviewServer
from rasr.dataset.sources import Source

__all__ = [
    "ADAPTERS",
    "AdaptReport",
    "Adapter",
    "BuildReport",
    "Candidate",
    "Category",
    "CategoryReport",
    "CheckReport",
    "DatasetConfig",
    "Finding",
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
