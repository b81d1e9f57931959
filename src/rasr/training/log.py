"""Logs of a run: running means on the device, and ``metrics.csv`` beside TensorBoard."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rasr.errors import ExtraMissing
from rasr.files import os_errors_as_output, write_bytes

if TYPE_CHECKING:
    from accelerate import Accelerator


class RunningMeans:
    """Means of the loss terms since the last row, speed, and the share of time spent waiting.

    The sums stay on the device, so that nothing synchronises with it between two rows.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts = Counter[str]()
        self._last: dict[str, Tensor] = {}
        self._kinds = Counter[str]()
        self._steps = 0
        self._waited = 0.0
        self._started = time.perf_counter()

    def add(self, values: Mapping[str, Tensor], kinds: Sequence[str] = ()) -> None:
        """Add scalars of one portion of a step, and the kinds of its references."""
        for name, value in values.items():
            self._last[name] = value.detach().float()
            self._sums[name] = self._sums.get(name, 0) + self._last[name]
        self._counts.update(values.keys())
        self._kinds.update(kinds)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the seconds of a block as spent waiting for data."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def end_step(self) -> None:
        """Count a step as done."""
        self._steps += 1

    def latest(self) -> dict[str, float]:
        """Return the last value of everything, for an error message."""
        return {name: float(value) for name, value in self._last.items()}

    def row(self, accelerator: Accelerator, samples: int) -> dict[str, float]:
        """Return the row's values, averaged over the processes; ``samples``: of one step over all."""
        spent = time.perf_counter() - self._started
        names = list(self._sums)
        means = torch.stack([self._sums[name] / self._counts[name] for name in names])
        if accelerator.num_processes > 1:
            means = accelerator.reduce(means, reduction="mean")
        values = dict(zip(names, means.tolist(), strict=True))
        values["data_wait"] = min(1.0, self._waited / spent) if spent else 0.0
        values["samples_per_s"] = self._steps * samples / spent if spent else 0.0
        values["null_share"] = self._kinds["null"] / max(1, self._kinds.total())
        return values


class MetricsLog:
    """``metrics.csv``, one row a logged step, and ``tensorboard/`` in the run's folder.

    On resuming, rows from steps that will be done again are dropped, so that the file reads as if nothing had happened.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        """Open the log. Raises ExtraMissing without TensorBoard, OutputError if it cannot be written."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ExtraMissing("Training's TensorBoard log", "train") from error
        self._path = folder / "metrics.csv"
        self._rows = [row for row in _read(self._path) if int(row["step"]) <= first_step]
        self._columns = list(self._rows[0]) if self._rows else []
        self._rewrite()
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; ``step`` counts the steps done. New columns are added to the right."""
        row = {"step": str(step)} | {name: f"{value:.8g}" for name, value in values.items()}
        new = [name for name in row if name not in self._columns]
        self._rows.append(row)
        if new:
            self._columns += new
            self._rewrite()
        else:
            with os_errors_as_output(self._path), self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns, restval="").writerow(row)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def add_picture(self, step: int, grid: Any) -> None:
        """Add a grid (H, W, 3) uint8 to TensorBoard's image page."""
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
