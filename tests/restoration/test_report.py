"""The page: self-contained, escaped, whole, and bounded in size."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rasr.restoration.report as module
from rasr.errors import OutputError, OutputExists, PictureError
from rasr.gallery import Reference
from rasr.images import FloatImage, Picture, resize
from rasr.restoration import Job, Outcome, Report, Restorer, Result, TargetSize, write_report

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and collects images, text and addresses."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.addresses += [value for name, value in attrs if name in {"src", "href"} and value]
        assert not any(name.startswith("on") for name in found)
        if tag == "img":
            self.images.append(found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.words += data

    def pixels(self, number: int) -> Image.Image:
        data = self.images[number]["src"] or ""
        with Image.open(io.BytesIO(base64.b64decode(data.partition("base64,")[2]))) as image:
            image.load()
            return image


@pytest.fixture
def result(photo: FloatImage, tmp_path: Path) -> Result:
    lq = np.clip(resize(photo, (45, 30)), 0, 1)
    made = Restorer("bicubic")(Picture(lq, path=tmp_path / "cat.png"), size=TargetSize(scale=2))
    Image.fromarray((photo * 255).astype(np.uint8)).save(tmp_path / "reference.png")
    made.references = [
        Reference(tmp_path / "reference.png", 0.9, 1, "mammal/cat", (), True, "Accepted: above 0.35."),
        Reference(tmp_path / "gone.png", 0.2, 2, "", (), False, "Turned down: below 0.35."),
    ]
    return made


def test_everything_is_on_the_page_and_nothing_outside_of_it(result: Result, tmp_path: Path) -> None:
    page = Page(write_report([result], tmp_path / "r.html"))
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert page.pixels(0).size == (90, 60)
    assert page.pixels(1).size == (45, 30)
    exact = np.rint(np.clip(result.picture.pixels, 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(np.asarray(page.pixels(0)), exact), "small pictures are embedded without loss"
    for text in ("plausible, not evidence", "cat.png", "45×30 → 90×60", "score 0.900", "Turned down", "mammal/cat"):
        assert text in page.words
    assert "gone.png: no such file" in page.words.lower() or "gone.png" in page.words
    assert "bicubic" in page.words
    assert "total" in page.words


def test_whether_a_reference_was_used_is_said_as_it_is(result: Result, tmp_path: Path) -> None:
    page = Page(write_report([result], tmp_path / "unused.html"))
    assert "not used" in page.words, "bicubic uses none"
    result.settings["generator"]["uses_reference"] = True
    page = Page(write_report([result], tmp_path / "used.html"))
    assert "Used." in page.words
    assert 'li class="used"' in page.source


def test_every_string_is_escaped(result: Result, tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>&'
    result.notes = (evil,)
    result.settings |= {evil: {evil: evil}}
    result.references = [Reference(tmp_path / evil.replace("/", ""), 0.5, 1, evil, (), True, evil)]
    report = Report(tmp_path / "r.html", expected=2)
    report.add(result)
    report.add(Outcome(Job(Path(evil.replace("/", "")), tmp_path / "x"), error=PictureError(evil)))
    page = Page(report.write())
    assert page.tags.count("script") == 1
    assert page.words.count(evil) >= 6


def test_failed_and_skipped_pictures_are_listed(result: Result, tmp_path: Path) -> None:
    report = Report(tmp_path / "r.html", expected=3)
    report.add(Outcome(Job(tmp_path / "a.png", tmp_path / "b.png"), result))
    report.add(Outcome(Job(tmp_path / "bad.png", tmp_path / "c.png"), error=PictureError("bad.png: damaged")))
    report.add(Outcome(Job(tmp_path / "old.png", tmp_path / "d.png")))
    page = Page(report.write())
    assert "3 pictures" in page.words
    assert "1 of 3 failed" in page.words
    assert "bad.png: damaged" in page.words
    assert "Finished in an earlier run" in page.words
    assert page.addresses.count("#p1") == 1
    assert 'id="p1"' in page.source


def test_large_pictures_are_reduced_and_the_page_says_so(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PIXELS", 1350)
    monkeypatch.setattr(module, "LEAST_PIXELS", 100)
    page = Page(write_report([result], tmp_path / "r.html"))
    assert page.pixels(0).size == (45, 30)
    assert "Shown at 50 %" in page.words
    monkeypatch.setattr(module, "PAGE_PIXELS", 2 * (1350 + 1350) + 50)
    report = Report(tmp_path / "many.html", expected=1)
    for _ in range(4):
        report.add(result)
    page = Page(report.write())
    assert page.words.count("Not shown") == 2


def test_large_pictures_are_jpeg_and_transparent_ones_png(photo: FloatImage, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "LOSSLESS_PIXELS", 100)
    restorer = Restorer("bicubic")
    alpha = np.linspace(0, 1, photo[:, :, 0].size, dtype=np.float32).reshape(photo.shape[:2])
    results = [
        restorer(Picture(photo), size=TargetSize(scale=1)),
        restorer(Picture(photo, alpha), size=TargetSize(scale=1)),
    ]
    page = Page(write_report(results, tmp_path / "r.html"))
    assert [page.pixels(number).format for number in range(4)] == ["JPEG", "JPEG", "PNG", "PNG"]
    assert page.pixels(2).mode == "RGBA"
    assert 'class="viewer alpha"' in page.source


def test_the_place_is_checked_before_the_work(result: Result, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(OutputExists):
        Report(tmp_path / "r.html")
    with pytest.raises(OutputError, match="does not exist"):
        Report(tmp_path / "nowhere/r.html")
    assert write_report([result], tmp_path / "r.html", overwrite=True).stat().st_size > 10_000


def test_a_report_works_without_pictures_of_known_name(local: Callable[..., Any], tmp_path: Path) -> None:
    result = Restorer(local())(Picture(np.zeros((3, 3, 3), np.float32)))
    page = Page(write_report([result], tmp_path / "r.html"))
    assert "None was looked for" in page.words
