"""Writing an evaluation down: tables, the page, and the figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rasr.evaluation.report.comparison import write_comparison
from rasr.evaluation.report.page import page
from rasr.evaluation.runner import Evaluation
from rasr.evaluation.tables import write_tables
from rasr.files import write_bytes

__all__ = ["write_report"]


def write_report(evaluation: Evaluation, pictures: Sequence[str] = ()) -> list[Path]:
    """Write results.json, results.md, results.csv, scores.csv, report.html and figure.png; returns their paths.

    ``pictures`` names those of the figure; without, the ones on which the methods differ most are taken.
    """
    written = write_tables(evaluation)
    report = evaluation.settings.out / "report.html"
    written.append(write_bytes(page(evaluation).encode(), report, overwrite=True))
    figure = write_comparison(evaluation, pictures)
    return [*written, figure] if figure is not None else written
