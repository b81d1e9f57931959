"""The table of metrics: names, what is missing, and a metric of one's own."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from rasr.cli.evaluate import command
from rasr.errors import UsageError
from rasr.evaluation.metrics import METRICS, load_metric, load_metrics, parse_metrics
from rasr.evaluation.settings import MeasuringProtocol
from rasr.images import read_picture

DEFAULT = MeasuringProtocol()


def test_metric_names_are_parsed() -> None:
    assert parse_metrics("psnr, EPD,psnr") == ["PSNR", "EPD"]
    assert parse_metrics("all") == list(METRICS)
    with pytest.raises(UsageError, match="Unknown metric 'vmaf'"):
        parse_metrics("psnr,vmaf")
    with pytest.raises(UsageError, match="names no metric"):
        parse_metrics(" , ")


def test_missing_weights_say_what_to_do() -> None:
    metrics, unavailable = load_metrics(["PSNR", "LPIPS", "FID", "MUSIQ"], DEFAULT)
    assert [metric.info.name for metric in metrics] == ["PSNR"]
    assert [column.name for column in unavailable] == ["LPIPS", "FID", "MUSIQ"]
    for column in unavailable:
        assert "https://" in column.reason
        assert "--download" in column.reason
        assert "MB" in column.reason


def test_every_metric_is_called_what_the_table_calls_it() -> None:
    from importlib import import_module

    for name, module in METRICS.items():
        facts = getattr(import_module(module, "rasr.evaluation.metrics"), name).facts
        assert facts.name == name
        assert facts.low < facts.high


def test_a_metric_is_one_file_and_one_line(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module outside the package, named in the table, is a column of ``rasr evaluate``."""
    (tmp_path / "contrast_metric.py").write_text(
        textwrap.dedent("""
            from rasr.evaluation.metrics import ImageMetric, MetricInfo

            class CONTRAST(ImageMetric):
                facts = MetricInfo(
                    "CONTRAST", "higher", "full-reference", 0.0, 9.0, 3, "ratio of deviations, {crop}", "a test"
                )
                smallest = 16

                def score(self, restored, truth):
                    return float(restored.std() / truth.std())
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(METRICS, "CONTRAST", "contrast_metric")
    options = ["--method", "bicubic", "--references", "none", "--crop-border", "4", "--metrics", "contrast,psnr"]
    out = tmp_path / "out"
    done = CliRunner().invoke(command, [str(photos), *options, "-o", str(out), "--json"], standalone_mode=False)
    assert done.return_value == 0, done.output
    results = json.loads((out / "results.json").read_text())
    pairs = [
        [read_picture(out / kind / f"{name}.png").pixels[4:-4, 4:-4] for kind in ("outputs/bicubic", "inputs/hr")]
        for name in results["benchmark"]["pictures"]
    ]
    expected = sum(float(restored.std() / truth.std()) for restored, truth in pairs) / len(pairs)
    assert results["rows"][0]["scores"]["CONTRAST"] == pytest.approx(expected, rel=1e-6)
    assert "ratio of deviations, 4 px border cropped. a test" in (out / "results.md").read_text()
    assert "CONTRAST ↑" in (out / "report.html").read_text()
    metric = load_metric("CONTRAST", DEFAULT)
    with pytest.raises(ValueError, match="at least 16×16"):
        metric.measure(pairs[0][0][:8], pairs[0][1][:8])
