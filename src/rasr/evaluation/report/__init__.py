"""Writing an evaluation down: tables, the page, and the figure."""

from collections.abc import Sequence
from pathlib import Path

from rasr.evaluation.runner import Evaluation
from rasr.evaluation.tables import tabulate, write_tables
from rasr.files import write_bytes

__all__ = ["write_report"]


def write_report(evaluation: Evaluation, pictures: Sequence[str] = ()) -> list[Path]:
    """Write the four tables, report.html and figure.png; returns their paths.

    ``pictures`` names those of the figure; without, the ones on which the methods differ most are taken. Raises
    UsageError for a picture that is not in the benchmark.
    """
    from rasr.evaluation.report.figures import comparison  # scipy and jinja2 are for those who write a report
    from rasr.evaluation.report.page import page

    table = tabulate(evaluation)
    written = write_tables(table)
    written.append(write_bytes(page(table).encode(), evaluation.settings.out / "report.html", overwrite=True))
    figure = comparison(evaluation, pictures)
    if figure is not None:
        written.append(write_bytes(figure, evaluation.settings.out / "figure.png", overwrite=True))
    return written
