"""The table: ranks, changes and notes, computed once for everything that is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rasr.evaluation import Evaluation, EvaluationSettings, MethodInfo
from rasr.evaluation.benchmark import Benchmark, BenchmarkSample
from rasr.evaluation.inputs import TestInput
from rasr.evaluation.metrics import MetricInfo, Unavailable
from rasr.evaluation.rows import Row
from rasr.evaluation.tables import tabulate, write_tables
from rasr.gallery import Reference

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


def test_who_was_shown_the_answer_is_not_ranked(tmp_path: Path) -> None:
    cheat = row("guided", 30.0)
    cheat.policy, cheat.info = "truth", replace(cheat.info, uses_reference=True)
    ranks = {
        line.row.key: line.cells["PSNR"].rank
        for line in tabulate(evaluation(tmp_path, [row("base", 20.0), cheat])).rows
    }
    assert ranks == {"base": "best", "guided:truth": None}


def test_verdicts_are_in_every_table(tmp_path: Path) -> None:
    rows = [row("base", 20.0)]
    for policy, verified in (("none", 0), ("random", 1)):
        rows.append(row("guided", 22.0))
        rows[-1].policy, rows[-1].info = policy, replace(rows[-1].info, uses_reference=True)
        for number in range(9 if policy == "random" else 0):
            verdict, share = ("same scene", 0.3) if number < verified else ("unrelated", None)
            photo = Reference(tmp_path / f"r{number}.png", 0.5, 1, "elsewhere")
            rows[-1].references[f"p{number}"] = (replace(photo, verdict=verdict, share=share),)
    made = evaluation(tmp_path, rows)
    (tmp_path / "own.png").write_bytes(b"own")
    made.inputs = [replace(item, category=item.name, paired=(tmp_path / "own.png",)) for item in made.inputs]
    made.benchmark = replace(made.benchmark, layout="pairs")
    write_tables(tabulate(made))
    (scene,) = json.loads((tmp_path / "results.json").read_text())["scenes"]
    assert (scene["method"], scene["policy"]) == ("guided", "random")
    assert (scene["verified"]["count"], scene["verified"]["total"]) == (1, 9)
    assert (scene["false_accepts"]["count"], scene["false_accepts"]["total"]) == (1, 9)
    text = (tmp_path / "results.md").read_text()
    assert "| guided | random | 1 of 9 (11.1 %, 0.281–48.2 %) | 1 of 9 (11.1 %, 0.281–48.2 %) |" in text
    assert "| guided | random | same scene | 1 | 30% | 21.60 (+0.00) |" in text
    assert f"False accept: guided, random took {tmp_path / 'r0.png'} for the scene of 'p0'." in text
    assert "They show 9 places" in text
    lines = (tmp_path / "scenes.csv").read_text().splitlines()
    assert lines[0] == "method,policy,verified,judged,false_accepts,other_photos,group,pictures,share,PSNR,PSNR_without"
    assert lines[2] == "guided,random,1,9,1,9,same scene,1,0.300000,21.600000,21.600000"
    scores = (tmp_path / "scores.csv").read_text()
    assert f"guided,random,p0,{tmp_path / 'r0.png'},0.500000,same scene,0.300000,21.600000" in scores
    assert f"guided,random,p1,{tmp_path / 'r1.png'},0.500000,unrelated,0.000000,21.700000" in scores


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
    assert (tmp_path / "scores.csv").read_text().splitlines()[10] == "a|b,,p0,,,,,20.600000"
