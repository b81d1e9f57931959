"""The page in a real browser, on a stand-in of the service: by mouse, by keyboard, on a phone, for everybody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service.browser import check_accessible, chromium, drop, lacking, opened, pixels
from tests.service.mock import SCALE, SIZE, Mock, encode, mark, marked, scene

if lacking():
    pytest.skip(str(lacking()), allow_module_level=True)

from playwright.sync_api import expect

HARBOUR = "harbour from the pier.jpg"
VIEWS = [
    (1280, "light"),
    (390, "dark"),
    pytest.param(1280, "dark", marks=pytest.mark.large),
    pytest.param(390, "light", marks=pytest.mark.large),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def mock() -> Iterator[Mock]:
    with Mock() as made:
        yield made


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "harbour.png"
    path.write_bytes(encode(marked(*SIZE, 1)))
    return path


def card(page: Any, name: str) -> Any:
    return page.locator(".card", has_text=name)


def give(page: Any, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(str(path))
    expect(card(page, "No reference")).to_be_visible()


def restored(page: Any, name: str) -> None:
    """Click a reference and wait for its result on the right."""
    card(page, name).click()
    expect(card(page, name).locator(".ready")).to_be_visible()
    expect(page.get_by_label("Right of the divider").locator("option:checked")).to_contain_text(name)
    expect(page.locator(".viewer .osd")).to_have_attribute("data-shown", re.compile("job:"))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), pytest.param(390, "dark", marks=pytest.mark.large)])
def test_the_whole_flow_by_mouse(browser: Any, mock: Mock, photo: Path, width: int, scheme: str) -> None:
    with opened(browser, mock.address, width, scheme) as page:
        drop(page, ".drop", {"harbour.png": photo.read_bytes()})
        names = page.locator(".card .name")
        expect(names).to_have_count(5)
        assert names.nth(0).inner_text() == "No reference"
        assert names.nth(2).inner_text() == HARBOUR
        winter, bridge = card(page, "harbour in winter.jpg"), card(page, "old bridge")
        for one, words in ((card(page, HARBOUR), "Similar"), (winter, "Similar"), (bridge, "Less similar")):
            assert f"{words}, not compared yet" in one.inner_text(), "a search alone compares no places"
        assert "0.91" in card(page, HARBOUR).inner_text()
        card(page, "No reference").click()
        expect(page.get_by_role("progressbar")).to_be_visible()
        expect(card(page, "No reference").locator(".ready")).to_be_visible()
        expect(page.locator(".legend")).to_contain_text("drawn: plausible, not evidence")
        restored(page, "harbour in winter.jpg")
        assert "Not verified" in winter.inner_text()
        restored(page, HARBOUR)
        assert "Same scene" in card(page, HARBOUR).inner_text()
        assert "Less similar, not compared yet" in bridge.inner_text()
        legend = page.locator(".legend li")
        expect(legend.nth(0)).to_contain_text(re.compile(rf"47 %\s*detail from your photo {HARBOUR}"))
        expect(legend.nth(1)).to_contain_text(re.compile(r"53 %\s*drawn: plausible, not evidence"))
        # Any two: the former result, the input, the reference.
        left, right = page.get_by_label("Left of the divider"), page.get_by_label("Right of the divider")
        texts = [" ".join(one.split()) for one in left.locator("option").all_inner_texts()]
        assert texts[:2] == ["Input", "Result · No reference"]
        assert {f"Result · {HARBOUR}", f"Reference · {HARBOUR}"} < set(texts)
        osd = page.locator(".viewer .osd")
        left.select_option(label="Result · No reference")
        expect(osd).to_have_attribute("data-shown", re.compile(r"job:1 job:3 evidence:3"))
        right.select_option(label=f"Reference · {HARBOUR}")
        expect(osd).to_have_attribute("data-shown", re.compile(r"job:1 ref:p1$"))
        right.select_option(label=f"Result · {HARBOUR}")
        left.select_option(label="Input")
        # The evidence, and the place in the photo.
        page.get_by_role("button", name="Evidence", exact=True, pressed=True).click()
        expect(osd).to_have_attribute("data-shown", "input job:3")
        page.get_by_role("button", name="Evidence", exact=True, pressed=False).click()
        osd.scroll_into_view_if_needed()
        box = osd.bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.5)
        expect(page.locator(".here")).to_have_text(f"Here: detail from your photo {HARBOUR}")
        linked = page.locator(".linked .osd")
        expect(linked).to_have_attribute("data-x", re.compile(r"\d"))  # once its picture is there
        x, y = (float(linked.get_attribute(f"data-{axis}")) for axis in "xy")
        assert (x, y) == pytest.approx((0.25 + 0.5 * 0.25, 0.5), abs=0.03)
        page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5)
        expect(page.locator(".here")).to_have_text("Here: drawn: plausible, not evidence")
        # The divider follows the mouse, and a drag beside it moves the picture.
        slider = page.get_by_role("slider")
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.7)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.7, steps=4)
        page.mouse.up()
        assert float(slider.input_value()) == pytest.approx(80, abs=1)
        # What can be taken along.
        with page.expect_download() as result:
            page.get_by_role("button", name="Download the result").click()
        assert result.value.path().read_bytes()[:4] == b"\x89PNG"
        with page.expect_download() as settings:
            page.get_by_role("button", name="Settings").last.click()
        told = json.loads(settings.value.path().read_text("utf-8"))
        assert told["command"].startswith("rasr restore")
        page.get_by_role("button", name="Copy").click()
        assert page.evaluate("() => navigator.clipboard.readText()") == told["command"]


@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1280, "dark", marks=pytest.mark.large), (390, "light")])
def test_the_whole_flow_by_keyboard(browser: Any, mock: Mock, photo: Path, width: int, scheme: str) -> None:
    with opened(browser, mock.address, width, scheme) as page:

        def to(locator: Any) -> None:
            for _ in range(60):
                page.keyboard.press("Tab")
                if locator.evaluate("(element) => element === document.activeElement"):
                    return
            raise AssertionError(f"Tab never comes to {locator}")

        expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
        to(page.get_by_role("button", name="Choose photos"))
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(str(photo))
        expect(page.locator(".card input")).to_have_count(5)
        to(page.locator(".card input:checked"))
        page.keyboard.press("ArrowRight")
        expect(card(page, HARBOUR).locator("input")).to_be_checked()
        assert mock.jobs == {}, "arrows choose, and make nothing"
        page.keyboard.press("Enter")
        expect(card(page, HARBOUR).locator(".ready")).to_be_visible()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        expect(card(page, "No reference").locator("input")).to_be_checked()
        page.keyboard.press("Enter")
        expect(card(page, "No reference").locator(".ready")).to_be_visible()
        osd, slider, zoom = page.locator(".viewer .osd"), page.get_by_role("slider"), page.locator(".zoom")
        expect(osd).to_have_attribute("data-shown", "input job:2")
        page.keyboard.press("r")
        page.keyboard.press("r")
        expect(osd).to_have_attribute("data-shown", "input job:1 evidence:1")
        page.keyboard.press("e")
        expect(osd).to_have_attribute("data-shown", "input job:1")
        page.keyboard.press("e")
        page.keyboard.press("1")
        expect(zoom).to_have_text("100 %")
        page.keyboard.press("+")
        page.keyboard.press("+")
        page.keyboard.press("+")
        expect(zoom).to_have_text("283 %")
        expect(osd).to_have_attribute("data-smooth", "false")
        page.keyboard.press("-")
        expect(zoom).to_have_text("200 %")
        expect(osd).to_have_attribute("data-smooth", "false")
        page.keyboard.press("-")
        expect(zoom).to_have_text("141 %")
        expect(osd).to_have_attribute("data-smooth", "true")
        page.keyboard.press("0")
        expect(zoom).not_to_have_text("141 %")
        page.keyboard.press("[")
        assert float(slider.input_value()) == 45
        page.keyboard.press("]")
        page.keyboard.press("]")
        assert float(slider.input_value()) == 55
        page.get_by_role("application").first.focus()
        page.keyboard.press(" ")
        expect(page.get_by_role("status").last).to_have_text("Input")
        expect(page.locator(".chip")).to_have_count(1)
        page.keyboard.press(" ")
        expect(page.locator(".chip")).to_contain_text(HARBOUR)
        page.keyboard.press("Escape")
        expect(page.locator(".chip")).to_have_count(2)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        expect(page.locator(".here")).to_contain_text("Here: ")
        to(slider)
        page.keyboard.press("ArrowRight")
        assert float(slider.input_value()) == pytest.approx(56)
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_contain_text("next reference")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        with page.expect_download() as result:
            page.keyboard.press("d")
        assert result.value.suggested_filename == "result.png"


def test_one_to_one_shows_the_pixels_themselves(browser: Any, mock: Mock, photo: Path) -> None:
    with opened(browser, mock.address) as page:
        give(page, photo)
        restored(page, "No reference")
        osd = page.locator(".viewer .osd")
        page.get_by_role("button", name="1:1").click()
        expect(osd).to_have_attribute("data-zoom", "1.000000")
        page.locator("h1").click()
        page.keyboard.press(" ")
        page.keyboard.press(" ")
        expect(page.locator(".chip.left")).to_have_count(0)
        shown = pixels(page, osd)
        truth = np.asarray(marked(SIZE[0] * SCALE, SIZE[1] * SCALE, SCALE))
        # The chip covers the top; the place is found by the mark.
        red = np.argwhere((shown == (255, 0, 0)).all(axis=2))
        top, left = red.min(axis=0) - np.array(mark(*SIZE)[1::-1]) * SCALE
        part = shown[top + 80 : top + truth.shape[0], left : left + truth.shape[1]]
        assert part.shape[0] > 200
        np.testing.assert_array_equal(part, truth[80:])


@pytest.mark.parametrize(("size", "scale"), [(SIZE, 4), ((101, 67), 3), ((97, 131), 4)])
def test_layers_lie_on_each_other(browser: Any, mock: Mock, tmp_path: Path, size: tuple[int, int], scale: int) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(encode(marked(*size, 1)))
    with opened(browser, mock.address) as page:
        give(page, path)
        page.get_by_text("Settings", exact=True).first.click()
        page.get_by_label("Scale").fill(str(scale))
        page.keyboard.press("Tab")
        restored(page, "No reference")
        osd = page.locator(".viewer .osd")
        page.locator("h1").click()
        middles = {}
        for keys in (["1"], ["1", "+", "+", "+", "+"]):
            for key in keys:
                page.keyboard.press(key)
            expect(osd).to_have_attribute("data-zoom", re.compile(r"^1\.0000" if keys == ["1"] else r"^4\.0000"))
            for side in ("left", "right"):
                page.keyboard.press(" ")
                expect(page.locator(f".chip.{side}")).to_be_visible()
                expect(page.locator(".chip")).to_have_count(1)
                shown = pixels(page, osd).astype(int)
                pure = np.argwhere((shown == (255, 0, 0)).all(axis=2))
                (top, left), (bottom, right) = pure.min(axis=0) - 6, pure.max(axis=0) + 7
                red = shown[top:bottom, left:right, 0] - shown[top:bottom, left:right, 1:].max(axis=2)
                ys, xs = np.nonzero(red)
                weights = red[ys, xs]
                ys, xs = ys + top, xs + left
                middles[side] = np.array([(xs * weights).sum(), (ys * weights).sum()]) / weights.sum()
            page.keyboard.press("Escape")
            assert np.abs(middles["left"] - middles["right"]).max() <= 0.5


def test_place_and_zoom_are_kept_through_every_swap(browser: Any, mock: Mock, photo: Path) -> None:
    with opened(browser, mock.address) as page:
        give(page, photo)
        osd = page.locator(".viewer .osd")
        restored(page, "No reference")
        page.keyboard.press("1")
        page.keyboard.press("+")
        expect(osd).to_have_attribute("data-zoom", "1.414214")
        before = page.get_by_role("slider").input_value()
        restored(page, HARBOUR)
        for label in (f"Reference · {HARBOUR}", "Input", "Result · No reference"):
            page.get_by_label("Right of the divider").select_option(label=label)
            expect(osd).to_have_attribute("data-zoom", "1.414214")
        page.keyboard.press("r")
        expect(osd).to_have_attribute("data-zoom", "1.414214")
        assert page.get_by_role("slider").input_value() == before
        address = page.url
        page.goto("about:blank")
        page.goto(address)
        expect(page.locator(".card .ready")).to_have_count(2)


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_every_state_is_accessible(
    browser: Any, mock: Mock, photo: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    with opened(browser, mock.address, width, scheme) as page:
        expect(page.get_by_role("heading", level=1)).to_contain_text("Restore a bad photo")
        check_accessible(page)
        page.keyboard.press("?")
        check_accessible(page)
        page.keyboard.press("Escape")
        give(page, photo)
        expect(page.locator(".card input")).to_have_count(5)
        check_accessible(page)
        mock.held = True
        card(page, HARBOUR).click()
        expect(page.get_by_role("progressbar")).to_be_visible()
        expect(page.locator(".run")).to_contain_text("Tile: 3 of 8, about 6 seconds left")
        check_accessible(page)
        tree = page.locator("body").aria_snapshot()
        mock.held = False
        expect(card(page, HARBOUR).locator(".ready")).to_be_visible()
        page.get_by_text("Settings", exact=True).first.click()
        check_accessible(page)
        tree += page.locator("body").aria_snapshot()
        for role in ("slider", "radiogroup", "progressbar", "status"):
            assert f"- {role}" in tree
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "nothing runs over the side"
        failing = photo.with_name("fails.png")
        failing.write_bytes(photo.read_bytes())
        page.get_by_role("button", name="Another photo", exact=True).click()
        give(page, failing)
        card(page, "No reference").click()
        expect(page.locator(".run.failed")).to_contain_text("needs 40 GB of memory")
        check_accessible(page)
        page.get_by_role("button", name="Dismiss").click()
        page.get_by_role("link", name="Galleries").click()
        expect(page.get_by_role("heading", name="Galleries")).to_be_visible()
        check_accessible(page)
        page.get_by_role("link", name="harbour 3 photos").click()
        expect(page.locator(".grid img")).to_have_count(3)
        check_accessible(page)


def test_waiting_cancelling_and_failing_are_said(browser: Any, mock: Mock, photo: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.png"
    slow.write_bytes(photo.read_bytes())
    with opened(browser, mock.address) as page:
        give(page, slow)
        card(page, "No reference").click()
        card(page, HARBOUR).click()
        runs = page.locator(".run")
        expect(runs.nth(0)).to_contain_text("Tile: ")
        expect(runs.nth(1)).to_contain_text("Waiting: 1 picture before this one")
        runs.nth(1).get_by_role("button", name="Cancel").click()
        expect(runs).to_have_count(1)
        runs.nth(0).get_by_role("button", name="Cancel").click()
        expect(runs).to_have_count(0)
        assert [job.state for job in mock.jobs.values()] == ["cancelled", "cancelled"]
        expect(page.get_by_role("status").last).to_have_text("Cancelled")


def test_a_full_queue_is_waited_for(browser: Any, photo: Path) -> None:
    with Mock(queue=0) as mock, opened(browser, mock.address) as page:
        give(page, photo)
        card(page, "No reference").click()
        expect(page.locator(".run")).to_contain_text("The queue is full: asked again in 1 s")
        mock.queue = 5
        expect(card(page, "No reference").locator(".ready")).to_be_visible()
        # The browser itself notes each refusal.
        assert all("429" in one for one in page.said)
        page.said.clear()


def test_galleries_that_come_late_are_searched(browser: Any, mock: Mock, photo: Path) -> None:
    late, mock.galleries, mock.ready = mock.galleries, {}, False
    with opened(browser, mock.address) as page:
        expect(page.locator(".drop")).to_contain_text("The service is getting ready")
        page.locator("input[type=file]").first.set_input_files(str(photo))
        expect(page.locator(".references")).to_contain_text("The service is getting ready")
        expect(page.locator(".card")).to_have_count(1)
        mock.galleries, mock.ready = late, True
        expect(page.locator(".card input")).to_have_count(5)
        expect(page.locator(".references")).not_to_contain_text("getting ready")
        expect(card(page, "All that match").locator("input")).to_be_checked()


@pytest.mark.large
def test_two_hundred_dropped_and_one_broken(browser: Any, mock: Mock) -> None:
    data = encode(scene(16, 12))
    files = {f"photo {number:03}{' broken' if number == 77 else ''}.png": data for number in range(200)}
    with opened(browser, mock.address) as page:
        expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
        drop(page, ".drop", files)
        expect(page.get_by_role("heading", level=1)).to_have_text("Restore 200 photos")
        check_accessible(page)
        page.get_by_role("button", name="Start").click()
        expect(page.locator(".told")).to_have_text("199 of 200 photos restored, 1 failed", timeout=60_000)
        check_accessible(page)
        page.get_by_role("button", name="Only what failed").click()
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("photo 077 broken.png is no whole picture")
        assert sum(job.state == "done" for job in mock.jobs.values()) == 199
        with page.expect_download() as archive:
            page.get_by_role("button", name="Download all (zip)").click()
        assert archive.value.path().read_bytes()[:2] == b"PK"
        # The browser itself notes the refused picture and full queues.
        assert all(re.search("422|429", one) for one in page.said)
        page.said.clear()


def test_a_gallery_is_made_of_a_folder_and_only_new_files_are_sent(browser: Any, mock: Mock, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(["one.png", "deep/two tiny.png", "three.png"]):
        (folder / name).write_bytes(encode(scene(40 + number, 30)))
    (folder / "notes.txt").write_text("no picture")
    with opened(browser, mock.address + "#/galleries") as page:
        page.get_by_label("New gallery").fill("holiday")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="holiday")).to_be_visible()
        chooser = page.locator("input[webkitdirectory]")
        chooser.set_input_files(str(folder))
        expect(page.locator(".told")).to_have_text("3 photos sent, 1 file left out, being no pictures.")
        expect(page.locator(".grid img")).to_have_count(3)
        expect(page.locator(".panel .problems")).to_have_text("two tiny.png: Only 64 pixels wide.")
        check_accessible(page)
        (folder / "four.png").write_bytes(encode(scene(50, 30)))
        chooser.set_input_files(str(folder))
        expect(page.locator(".told")).to_contain_text("1 photo sent, 3 there already")
        assert sorted(mock.sent) == ["four.png", "one.png", "three.png", "two tiny.png"]
        page.get_by_role("button", name="Remove one.png").click()
        expect(page.locator(".grid img")).to_have_count(3)
        page.locator(".drop", has_text="Search").locator("input").set_input_files(str(folder / "four.png"))
        expect(page.get_by_role("region", name="Found").locator("li")).to_have_count(3)


def test_a_token_is_asked_for_and_pictures_are_fetched_with_it(browser: Any, photo: Path) -> None:
    with Mock(token="let me in") as mock, opened(browser, mock.address) as page:
        for word in ("wrong", "let me in"):
            page.get_by_role("textbox", name="Token").fill(word)
            page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
        give(page, photo)
        restored(page, HARBOUR)
        assert card(page, HARBOUR).locator("img").get_attribute("src").startswith("blob:")
        with page.expect_download() as result:
            page.get_by_role("button", name="Download the result").click()
        assert result.value.path().read_bytes()[:4] == b"\x89PNG"
        assert all("401" in one for one in page.said)
        page.said.clear()


def test_the_page_says_when_the_service_is_gone(browser: Any, photo: Path) -> None:
    with Mock() as mock, opened(browser, mock.address) as page:
        give(page, photo)
        expect(page.locator(".card input")).to_have_count(5)
        page.context.set_offline(True)
        card(page, "No reference").click()
        expect(page.locator(".run.failed")).to_contain_text("The service does not answer")
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        expect(card(page, "No reference").locator(".ready")).to_be_visible()
        assert all("ERR_INTERNET_DISCONNECTED" in one for one in page.said)
        page.said.clear()
