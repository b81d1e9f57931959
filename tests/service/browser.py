"""The browser of the page's tests: Debian's chromium, the page's policy on, every console message collected."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
AXE = ROOT / "page" / "for_tests" / "axe.min.js"
PLACED = ROOT / "src" / "rasr" / "service" / "page" / "third_party" / "openseadragon.js"
QUICK = 8000
"""Milliseconds for anything that the page does on the stand-in."""


def lacking() -> str | None:
    """Why there can be no browser test here, or None."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install -e '.[dev]'"
    if not CHROMIUM.exists():
        return "there is no /usr/bin/chromium: apt-get install chromium"
    if not PLACED.is_file() or not AXE.is_file():
        return "the page's third-party files are not placed: make page"
    return None


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    reason = lacking()
    if reason:
        pytest.skip(reason)
    expect.set_options(timeout=QUICK)
    with sync_playwright() as playwright:
        # Tests run as root, where chromium wants to be told.
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, width: int = 1280, scheme: str = "light", **more: Any) -> Iterator[Any]:
    """A page at an address. Whatever the console says, at its end, is an error."""
    height = 900 if width > 600 else 844
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", **more
    )
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(QUICK)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("filechooser", lambda chooser: None)  # from the beginning: turning it on later takes its time
    page.goto(address)
    page.said = said
    yield page
    assert said == []
    context.close()


def check_accessible(page: Any) -> None:
    """No violation and nothing left open by axe, in the state that the page is in."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    told = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]
    assert told == []


def pixels(page: Any, locator: Any) -> NDArray[np.uint8]:
    """What is on the screen where an element is, as (H, W, 3) levels."""
    with Image.open(io.BytesIO(locator.screenshot(animations="disabled"))) as image:
        return np.asarray(image.convert("RGB"))


def drop(page: Any, selector: str, files: dict[str, bytes]) -> None:
    """Drop files on an element, as a person does with the mouse."""
    import base64

    listed = [[name, base64.b64encode(data).decode()] for name, data in files.items()]
    transfer = page.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, text] of files) {
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name, {type: "image/png"}));
            }
            return transfer;
        }""",
        listed,
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event(selector, event, {"dataTransfer": transfer})
