"""The page holds everything, is well formed, and asks the network for nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rasr.errors import UsageError
from rasr.evaluation import Evaluation, EvaluationSettings, InputSettings, evaluate, write_report
from rasr.evaluation.report.figures import telling_window
from tests.evaluation.conftest import Enlarger

VOID = {"meta", "img"}


class Balance(HTMLParser):
    """Checks that every element is closed in order, and collects what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An SVG element closed in place."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


@pytest.fixture
def evaluation(photos: Path, references: Path, tmp_path: Path) -> Evaluation:
    settings = EvaluationSettings(
        photos, tmp_path / "out", metrics=("PSNR", "EPD", "LPIPS"), gallery=references, inputs=InputSettings(crop=128)
    )
    return evaluate(settings, [Enlarger("plain"), Enlarger("<guided & co>", uses_reference=True, strength=0.2)])


def test_page(evaluation: Evaluation) -> None:
    written = {path.name for path in write_report(evaluation)}
    assert written == {"results.json", "results.md", "results.csv", "scores.csv", "report.html", "figure.png"}
    text = (evaluation.settings.out / "report.html").read_text(encoding="utf-8")
    page = Balance()
    page.feed(text)
    assert page.open == []
    assert page.loads
    assert all(url.startswith("data:image/jpeg;base64,") for url in page.loads)
    assert "url(" not in text
    assert "&lt;guided &amp; co&gt;" in text
    assert "<guided" not in text
    assert text.count("unavailable") >= 5
    for heading in ("Table", "What the reference does", "Picture by picture", "Best, by EPD", "Worst, by EPD"):
        assert heading in text
    names = {item.name for item in evaluation.inputs}
    assert names == set(re.findall(r"<title>(p\d): ", text))
    assert "similarity 0." in text


def test_figure(evaluation: Evaluation) -> None:
    write_report(evaluation, ["p0", "p4"])
    figure = Image.open(evaluation.settings.out / "figure.png")
    assert figure.width > 800
    assert 850 < figure.height < 950  # two blocks
    assert np.asarray(figure.convert("L")).std() > 20
    with pytest.raises(UsageError, match="no such picture"):
        write_report(evaluation, ["p99"])


def test_the_window_is_where_the_difference_is() -> None:
    a = np.zeros((300, 400, 3), np.float32)
    b = a.copy()
    b[200:260, 310:370] = 1
    window = telling_window(a, b, 100)
    assert window.left <= 310
    assert window.left + 100 >= 370
    assert window.top <= 200
    assert window.top + 100 >= 260
    corner = a.copy()
    corner[:10, :10] = 1
    assert (telling_window(a, corner, 100).left, telling_window(a, corner, 100).top) == (0, 0)
    assert telling_window(a[:50, :50], b[:50, :50]).side == 50
