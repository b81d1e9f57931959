"""The demo end to end: `make demo` is this command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
from PIL import Image

Run = Callable[..., CompletedProcess[str]]


def test_the_demo_restores_finds_the_right_view_reports_and_does_it_again(run_rasr: Run, tmp_path: Path) -> None:
    done = run_rasr("demo", "--out", tmp_path / "demo", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert Path(facts["references"][0]["path"]).name == "motorcycle_right.png"
    assert facts["references"][0]["accepted"]
    with Image.open(tmp_path / "demo" / "degraded.png") as query, Image.open(facts["output"]) as restored:
        assert restored.size == (4 * query.width, 4 * query.height)
        enlarged = np.asarray(query.resize(restored.size, Image.Resampling.BICUBIC), np.float32)
        difference = np.abs(np.asarray(restored.convert("RGB"), np.float32) - enlarged).mean()
    assert 1 < difference < 30, "the result is the query's picture, but not just the query enlarged"
    shares = [one["share"] for one in facts["references"]]
    assert facts["references"][0]["verdict"] == "same scene"
    assert shares[0] > 0.3
    assert not any(shares[1:])
    assert f"Evidence: {shares[0]:.0%} detail from your photo motorcycle_right.png" in done.stderr
    assert "drawn: plausible, not evidence" in done.stderr
    with Image.open(facts["evidence"]) as evidence:
        assert evidence.size == restored.size
        coloured = np.ptp(np.asarray(evidence).astype(int), axis=2) > 20
    assert 0.2 < coloured.mean() < 0.98
    report = Path(facts["report"]).read_text(encoding="utf-8")
    assert f"{shares[0]:.0%} detail from your photo motorcycle_right.png" in report
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "<script src" not in report

    # A second run reuses the gallery and gives the same picture.
    restored = Path(facts["output"]).read_bytes()
    again = run_rasr("demo", "--out", tmp_path / "demo")
    assert again.returncode == 0, again.stderr
    assert "Gallery of 11 photos" in again.stderr
    assert Path(facts["output"]).read_bytes() == restored
