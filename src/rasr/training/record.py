"""What a run leaves to read: a CSV with one row per logged step, TensorBoard, and a progress line."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rasr.errors import ExtraMissing, OutputError
from rasr.files import write_bytes

__all__ = ["Record"]


class Record:
    """``metrics.csv`` and ``tensorboard/`` in the run's folder.

    On resuming, rows from steps that will be done again are dropped, so that the file reads as if nothing had happened.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        """Raises ExtraMissing without TensorBoard, OutputError when the folder cannot be written."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ExtraMissing("Training's TensorBoard log", "train") from error
        self._path = folder / "metrics.csv"
        self._rows = [row for row in _read(self._path) if int(row["step"]) <= first_step]
        self._columns = list(self._rows[0]) if self._rows else []
        self._rewrite()
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; ``step`` counts the steps done. New columns are added to the right."""
        row = {"step": str(step)} | {name: f"{value:.8g}" for name, value in values.items()}
        new = [name for name in row if name not in self._columns]
        self._rows.append(row)
        if new:
            self._columns += new
            self._rewrite()
        else:
            try:
                with self._path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self._columns, restval="").writerow(row)
            except OSError as error:
                raise OutputError(f"Cannot write {self._path}: {error.strerror}.") from error
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, step: int, grid: Any) -> None:
        """A grid (H, W, 3) uint8 for TensorBoard's image page."""
        self._board.add_image("validation", grid, step, dataformats="HWC")

    def close(self) -> None:
        """Flush TensorBoard."""
        self._board.close()

    def _rewrite(self) -> None:
        if not self._columns:
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="")
        writer.writeheader()
        writer.writerows(self._rows)
        write_bytes(text.getvalue().encode(), self._path, overwrite=True)


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit() and None not in row]
    except FileNotFoundError:
        return []
