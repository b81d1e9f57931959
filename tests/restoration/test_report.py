"""The page: self-contained, escaped, whole, and bounded in size."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

import rasr.restoration.report as module
from rasr.errors import OutputError, OutputExists, PictureError
from rasr.gallery import Reference
from rasr.images import FloatImage, Picture, resize
from rasr.registration import Evidence
from rasr.restoration import Job, Outcome, Report, Restorer, Result, Settings, TargetSize, run_batch, write_report

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
    assert "Used: changed because of reference.png." in page.words
    assert 'li class="used"' in page.source


@pytest.fixture
def evident(result: Result, tmp_path: Path) -> Result:
    """Detail from two photos: the first's on the left third, the second's, turned by 180°, weaker in the middle."""
    maps, places = np.zeros((2, 60, 90), np.uint8), np.zeros((2, 4, 6, 2), np.float32)
    maps[0, :, :30], maps[1, :, 30:60] = 255, 102
    rows, columns = np.meshgrid((np.minimum(np.arange(4) * 16 + 8, 59) + 0.5) / 60, (np.arange(6) * 16 + 8.5) / 90)
    places[0] = np.stack([columns.T, rows.T], -1)
    places[1] = 1 - places[0]
    first, second = result.references
    result.references = [
        Reference(first.path, 0.9, 1, "", (), True, "Same scene.", verdict="same scene", share=1 / 3),
        Reference(tmp_path / "<second>.png", 0.8, 2, "", (), True, "Same scene.", verdict="same scene", share=0.4 / 3),
        Reference(second.path, 0.2, 3, "", (), False, "Turned down.", verdict="unrelated"),
    ]
    result.evidence = Evidence(maps, places)
    return result


def test_the_evidence_lies_over_the_result_in_a_colour_a_photo(evident: Result, tmp_path: Path) -> None:
    page = Page(write_report([evident], tmp_path / "r.html"))
    assert page.images[2]["class"] == "layer"
    assert "hidden" in page.images[2]
    layer = np.asarray(page.pixels(2))
    assert layer.shape == (60, 90, 4)
    assert layer[30, 10].tolist() == [230, 97, 1, round(255 * 0.65)]
    assert layer[30, 45].tolist() == [94, 60, 153, round(102 * 0.65)]
    assert not layer[:, 60:, 3].any()
    legend = page.source.partition('<div class="legend">')[2].partition("</ul>")[0]
    assert re.findall(r"background: (#\w+)", legend) == ["#e66101", "#5e3c99", "#808080"]
    for words in (
        "33% detail from your photo reference.png",
        "13% detail from your photo <second>.png",
        "53% drawn: plausible, not evidence",
        "Used: detail from your photo reference.png.",
        "Restored with a reference",
    ):
        assert words in page.words


def test_a_place_of_the_result_is_known_in_the_photo(evident: Result, tmp_path: Path) -> None:
    page = Page(write_report([evident], tmp_path / "r.html"))
    found = re.findall(r'value="([^"]*)" data-rank="(\d)" data-rows="(\d+)" data-columns="(\d+)"', page.source)
    assert [one[1:] for one in found] == [("1", "4", "6"), ("2", "4", "6")]
    assert page.source.count('<li class="used" data-rank="1">') == 1
    cells = [np.frombuffer(base64.b64decode(one[0]), np.uint8).reshape(4, 6, 3) for one in found]
    across, down = (np.arange(6) + 0.5) / 6, (np.arange(4) + 0.5) / 4
    assert np.abs(cells[0][:, :, 0] / 255 - across).max() < 0.02
    assert np.abs(cells[0][:, :, 1] / 255 - down[:, None]).max() < 0.02
    assert np.abs(cells[1][:, :, 0] / 255 - (1 - across)).max() < 0.02
    assert np.array_equal(cells[0][0, :, 2], [255, 255, 0, 0, 0, 0])
    assert np.array_equal(cells[1][3, :, 2], [0, 0, 102, 102, 0, 0])


def test_a_large_result_has_a_small_layer_and_few_cells(
    evident: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVIDENCE_PIXELS", 1350)
    monkeypatch.setattr(module, "MOST_CELLS", 3)
    page = Page(write_report([evident], tmp_path / "r.html"))
    assert page.pixels(2).size == (45, 30)
    assert 'data-rows="3" data-columns="3"' in page.source


def test_a_photo_of_the_same_scene_that_gave_nothing_was_not_used(evident: Result, tmp_path: Path) -> None:
    evident.evidence = None
    evident.settings["strength"] = 0.0
    page = Page(write_report([evident], tmp_path / "r.html"))
    assert "Restored without a reference" in page.words
    assert "detail from" not in page.words
    assert '"layer"' not in page.source


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
    assert [page.pixels(number).format for number in range(2, 6)] == ["JPEG", "JPEG", "PNG", "PNG"]
    assert page.pixels(4).mode == "RGBA"
    assert 'class="viewer alpha"' in page.source


def test_the_place_is_checked_before_the_work(result: Result, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("<html>mine</html>")
    with pytest.raises(OutputExists):
        Report(tmp_path / "r.html")
    with pytest.raises(OutputError, match="does not exist"):
        Report(tmp_path / "nowhere/r.html")
    assert write_report([result], tmp_path / "r.html", overwrite=True).stat().st_size > 10_000


def test_a_page_of_ours_is_replaced_and_one_that_is_not_only_when_asked(result: Result, tmp_path: Path) -> None:
    page = write_report([result], tmp_path / "r.html")
    assert write_report([result], page) == page, "as it was written: the same command can be run again"
    page.write_bytes(page.read_bytes().replace(b"plausible", b"Plausible"))
    with pytest.raises(OutputExists):
        Report(page)
    write_report([result], page, overwrite=True)
    Image.new("RGB", (8, 6)).save(tmp_path / "photo.jpg")
    with pytest.raises(OutputError, match="no page"):
        Report(tmp_path / "photo.jpg", overwrite=True)


def test_an_earlier_result_is_shown_as_its_journal_tells_it(photo: FloatImage, tmp_path: Path) -> None:
    source, reference, out = tmp_path / "in.png", tmp_path / "reference.png", tmp_path / "out"
    Image.fromarray((photo[::6, ::6] * 255).astype(np.uint8)).save(source)
    Image.fromarray((photo * 255).astype(np.uint8)).save(reference)
    settings = Settings(size=TargetSize(scale=2), reference=(reference,), candidates=0)
    jobs = [Job(source, out / "in.png")]

    def page() -> Page:
        report = Report(tmp_path / "r.html")
        for outcome in run_batch(jobs, Restorer("bicubic"), settings, journal_folder=out):
            report.add(outcome)
        return Page(report.write())

    first, second = page(), page()
    assert "Finished in an earlier run." in second.words
    assert [one.get("src") for one in second.images] == [one.get("src") for one in first.images]
    for text in ("76×50 → 152×100", "reference.png", "Picked by hand.", "bicubic", "total"):
        assert text in first.words
        assert text in second.words
    source.unlink()
    assert "in.png: no such file" in page().words


def test_the_overview_tells_each_picture_with_verdict_and_reference(result: Result, tmp_path: Path) -> None:
    report = Report(tmp_path / "r.html", expected=3)
    report.add(result)
    result.settings["generator"]["uses_reference"] = True
    report.add(result)
    report.add(Outcome(Job(tmp_path / "bad.png", tmp_path / "c.png"), error=PictureError("bad.png: damaged")))
    page = Page(report.write())
    cards = page.source.partition('<ol class="overview">')[2].partition("</ol>")[0].split("<li>")[1:]
    assert "Restored without a reference" in cards[0]
    assert "reference.png, score 0.900: not used" in cards[0]
    assert "Restored with a reference" in cards[1]
    assert "Failed" in cards[2]
    assert "bad.png: damaged" in cards[2]
    assert [card.count("<img") for card in cards] == [1, 1, 0]
    assert page.source.index("overview") < page.source.index("<article")


def test_pictures_of_a_large_batch_lie_beside_the_page_and_are_loaded_late(result: Result, tmp_path: Path) -> None:
    place = tmp_path / "a page"
    place.mkdir()
    beside = place / "pa ge_files"
    beside.mkdir()
    (beside / "mine.txt").write_text("mine")
    (beside / f"{'0' * 32}.png").write_bytes(b"of an earlier page")
    results = []
    for number in range(10):
        pixels = np.clip(result.picture.pixels * (1 - number / 20), 0, 1)
        made = Result(Picture(pixels, path=tmp_path / f"{number}.png"), result.source, [], result.settings, {})
        results.append(made)
    page = Page(write_report(results, place / "pa ge.html"))
    assert len(page.source) < 60_000
    images = page.images[:-1]  # the last is filled by a click
    assert len(images) == 10 + 20
    for image in images:
        name = unquote(image["src"] or "")
        with Image.open(place / name) as shown:
            shown.load()
    assert all(image.get("loading") == "lazy" for image in images[10:])
    assert (beside / "mine.txt").read_text() == "mine"
    assert not (beside / f"{'0' * 32}.png").exists()
    assert len(list(beside.iterdir())) == 1 + 10 + 10 + 1, "the input is one file for all"


def test_a_report_works_without_pictures_of_known_name(local: Callable[..., Any], tmp_path: Path) -> None:
    result = Restorer(local())(Picture(np.zeros((3, 3, 3), np.float32)))
    page = Page(write_report([result], tmp_path / "r.html"))
    assert "None was looked for" in page.words
