"""Writing an evaluation down: tables, the page, and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rasr.evaluation.runner import Evaluation
from rasr.evaluation.tables import write_tables

__all__ = ["write_report"]


def write_report(evaluation: Evaluation, pictures: Sequence[str] = ()) -> list[Path]:
    """Write results.json, results.md, results.csv, scores.csv, report.html and figure.png; returns their paths."""
    return write_tables(evaluation)
