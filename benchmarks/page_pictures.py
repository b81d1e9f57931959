"""Pictures of the page, of the real service on the demo's photos: the three of docs/page.md, and all views to look at.

rasr demo --out demo-out && python benchmarks/page_pictures.py demo-out docs/images --all looked-at

Restores the demo's input without a reference and with its photo of the same scene, in Debian's chromium, at 1280 and
390 pixels, light and dark.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from service import Running

SIZES = {1280: 940, 390: 844}
PHOTO = "motorcycle_right.png"
PATIENCE = 300_000
"""Milliseconds."""


def card(page: Any, name: str) -> Any:
    """The choice of a name in the strip."""
    return page.locator(".card", has_text=name)


def restore(page: Any, name: str) -> None:
    """Restore with a choice of the strip and wait for the result."""
    card(page, name).click()
    card(page, name).locator(".ready").wait_for(timeout=PATIENCE)
    page.wait_for_timeout(1500)  # pictures are drawn a little after they are there


def views(page: Any, query: Path, shoot: Any) -> None:
    """Go through the page and take its pictures: ``shoot(name)``."""
    page.get_by_role("button", name="Choose photos").wait_for()
    shoot("start")
    page.locator("input[type=file]").first.set_input_files(str(query))
    card(page, PHOTO).wait_for(timeout=PATIENCE)
    page.wait_for_timeout(1000)
    shoot("found")
    restore(page, "No reference")
    restore(page, PHOTO)
    page.evaluate("() => scrollTo(0, 0)")
    osd = page.locator(".viewer .osd")
    box = osd.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.72, box["y"] + box["height"] * 0.42)
    page.wait_for_timeout(1500)
    page.evaluate("() => scrollTo(0, 0)")
    page.wait_for_timeout(500)
    shoot("page")
    shoot("whole", whole=True)
    page.get_by_label("Left of the divider").select_option(label="Result · No reference")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Evidence", exact=True).click()
    page.get_by_role("button", name="1:1").click()
    page.get_by_role("button", name="Zoom in").click(click_count=2)
    page.evaluate("() => scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    shoot("compare")
    page.get_by_role("link", name="Galleries").click()
    page.wait_for_timeout(1000)
    shoot("galleries")


def main() -> None:
    """Start the service, go through its page four times, write the pictures."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--all", type=Path, help="Folder for every view as PNG.")
    options = parser.parse_args()
    wanted = {
        ("page", 1280, "light"): "page",
        ("compare", 1280, "dark"): "page-compare",
        ("page", 390, "light"): "page-phone",
    }
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        service = Running(Path(name), "-g", options.demo / "gallery", preset="mini")
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for width, height in SIZES.items():
            for scheme in ("light", "dark"):
                size = {"width": width, "height": height}
                context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
                page = context.new_page()

                def shoot(view: str, *, whole: bool = False, at: Any = (page, width, scheme)) -> None:
                    page, width, scheme = at
                    image = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
                    if options.all:
                        options.all.mkdir(exist_ok=True)
                        image.save(options.all / f"{view}-{width}-{scheme}.png")
                    if file := wanted.get((view, width, scheme)):
                        image.save(options.images / f"{file}.jpg", quality=85)

                page.goto(service.url)
                views(page, options.demo / "degraded.png", shoot)
                context.close()
        browser.close()
        service.stop()


if __name__ == "__main__":
    main()
