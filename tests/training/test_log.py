"""Logs of a run: means between two rows, and a CSV that reads as if nothing had happened."""

from __future__ import annotations

import csv
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from rasr.errors import OutputError
from rasr.training.log import MetricsLog, RunningMeans


class OneProcess:
    num_processes = 1


def test_the_means_of_a_row_are_over_what_was_added() -> None:
    means = RunningMeans()
    with means.waiting():
        time.sleep(0.02)
    for value in (1.0, 3.0):
        means.add({"loss": torch.tensor(value)}, ("warped", "null"))
        means.end_step()
    means.add({"grad_norm": torch.tensor(5.0)})
    row = means.row(OneProcess(), samples=2)  # type: ignore[arg-type]
    assert (row["loss"], row["grad_norm"], row["null_share"]) == (2.0, 5.0, 0.5)
    assert 0 < row["data_wait"] <= 1
    assert row["samples_per_s"] > 0
    assert means.latest() == {"loss": 3.0, "grad_norm": 5.0}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_columns_are_added_and_rows_to_be_done_again_dropped(tmp_path: Path) -> None:
    with closing(MetricsLog(tmp_path, first_step=0)) as log:
        log.add(1, {"loss": 0.5})
        log.add(2, {"loss": 0.25, "gan": 1.0})
        log.add(3, {"loss": 0.125})
        log.add_picture(3, np.zeros((4, 4, 3), np.uint8))
    assert [row["gan"] for row in rows(tmp_path)] == ["", "1", ""]
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4,0.0")  # torn
    with closing(MetricsLog(tmp_path, first_step=2)) as log:
        log.add(3, {"loss": 0.0625})
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [("1", "0.5"), ("2", "0.25"), ("3", "0.0625")]
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with closing(MetricsLog(tmp_path / "run", first_step=0)) as log:
        (tmp_path / "run" / "metrics.csv").mkdir()
        with pytest.raises(OutputError, match=r"metrics\.csv"):
            log.add(1, {"loss": 0.5})
