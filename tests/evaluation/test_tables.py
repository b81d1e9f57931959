"""The table: ranks, changes and notes, computed once for everything that is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rasr.evaluation import Evaluation, EvaluationSettings, MethodInfo
from rasr.evaluation.benchmark import Benchmark, BenchmarkSample
from rasr.evaluation.inputs import TestInput
from rasr.evaluation.metrics import MetricInfo, Unavailable
from rasr.evaluation.rows import Row
from rasr.evaluation.tables import tabulate, write_tables

PSNR = MetricInfo("PSNR", "higher", "full-reference", 0.0, 80.0, 2, "as always", "someone")
FID = MetricInfo("FID", "lower", "distribution", 0.0, float("inf"), 1, "whole pictures", "someone")


def row(
    name: str, psnr: float, *, family: str = "Other", fid: float | None = None, count: int = 9, remark: str = ""
) -> Row:
    """A row of nine pictures whose scores lie around ``psnr``; ``count`` of them are there."""
    made = Row(MethodInfo(name, family, "", uses_reference=False, remark=remark), "none", 9)
    made.scores["PSNR"] = {f"p{i}": psnr + 0.1 * (i - 4) for i in range(9)}
    made.outputs = {f"p{i}": "hash" for i in range(count)}
    made.sets = {} if fid is None else {"FID": fid}
    return made


def evaluation(out: Path, rows: list[Row], pictures: int = 9) -> Evaluation:
    inputs = [TestInput(f"p{i}", "", out, out, out, "", "", 4, 8, 8) for i in range(pictures)]
    benchmark = Benchmark("photos", "folder", out, tuple(BenchmarkSample(item.name, out) for item in inputs))
    lpips = Unavailable("LPIPS", "no weights")
    return Evaluation(EvaluationSettings(out, out, baseline="base"), benchmark, inputs, [FID, PSNR], [lpips], rows)


def test_ranks_and_changes(tmp_path: Path) -> None:
    rows = [
        row("base", 20.0, fid=80.0),
        row("best", 22.004, fid=70.0),
        row("tied", 21.996, family="RASR", fid=75.0),
        row("untrained", 30.0, remark="untrained"),
        row("partly", 29.0, count=7, family="Interpolation"),
    ]
    table = tabulate(evaluation(tmp_path, rows))
    assert [column.heading for column in table.columns] == ["PSNR ↑", "LPIPS", "FID ↓"]  # the order of the metrics
    lines = {line.row.info.name: line for line in table.rows}
    assert list(lines) == ["partly", "tied", "base", "best", "untrained"]  # the order of the families
    assert lines["partly"].name == ("partly (incomplete: 7 of 9)", "–")
    ranks = {name: line.cells["PSNR"].rank for name, line in lines.items()}
    assert ranks == {"partly": None, "tied": "best", "base": "second", "best": "best", "untrained": None}
    assert lines["tied"].cells["FID"].rank == "second"
    cell = lines["best"].cells["PSNR"]
    assert (cell.text, cell.change) == ("22.00", pytest.approx(2.004))
    assert cell.interval is not None
    assert cell.interval.text(2) == "+2.00 [+2.00, +2.00]"
    assert lines["base"].cells["PSNR"].change is None
    assert (lines["best"].cells["FID"].change, lines["best"].cells["FID"].interval) == (-10.0, None)
    assert lines["best"].cells["LPIPS"].text == "unavailable"


def test_small_sets_carry_a_warning(tmp_path: Path) -> None:
    for pictures, warned in ((37, True), (2048, False)):
        notes = tabulate(evaluation(tmp_path, [row("base", 20.0, fid=1.0)], pictures)).notes
        assert any(f"FID over {pictures} pictures" in note for note in notes) == warned


def test_all_tables_say_the_same(tmp_path: Path) -> None:
    table = tabulate(evaluation(tmp_path, [row("base", 20.0), row("a|b", 21.0)]))
    assert [path.name for path in write_tables(table)] == ["results.json", "results.md", "results.csv", "scores.csv"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rows"][1]["scores"] == {"FID": None, "PSNR": pytest.approx(21.0)}
    assert results["rows"][1]["difference"]["PSNR"]["mean"] == pytest.approx(1.0)
    assert results["metrics"][0]["high"] is None  # JSON has no infinity
    text = (tmp_path / "results.md").read_text()
    assert "| a\\|b | – | Other | **21.00** | unavailable | – | – | – |" in text
    assert "| a\\|b | – | +1.00 [+1.00, +1.00] |" in text
    assert (tmp_path / "results.csv").read_text().splitlines()[2] == "a|b,,,Other,9,9,21.000000,unavailable,,,"
    assert (tmp_path / "scores.csv").read_text().splitlines()[10] == "a|b,,p0,,,20.600000"
