"""The page on the real service: the file that is downloaded is the command line's, byte for byte."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage
from PIL import Image

from tests.service.browser import chromium, lacking, opened

if lacking():
    pytest.skip(str(lacking()), allow_module_level=True)

pytest.importorskip("fastapi", reason="the service's extra is not installed: pip install -e '.[service]'")

SAMPLES = Path(skimage.__file__).parent / "data"
pytestmark = [pytest.mark.large, pytest.mark.timeout(900)]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "photos").mkdir()
    for name in ("motorcycle_right.png", "chelsea.png", "coffee.png"):
        shutil.copy(SAMPLES / name, tmp_path / "photos" / name)
    with Image.open(SAMPLES / "motorcycle_left.png") as image:
        image.convert("RGB").resize((185, 125)).save(tmp_path / "blurry.png")
    command = [sys.executable, "-m", "rasr", "serve", "--port", "0", "--data", "data", "-g", "photos"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def test_the_downloaded_file_is_the_command_lines(served: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    patience = 240_000
    with chromium() as browser, opened(browser, served) as page:
        page.set_default_timeout(patience)
        page.locator("input[type=file]").first.set_input_files(str(tmp_path / "blurry.png"))
        card = page.locator(".card", has_text="motorcycle_right.png")
        card.click()
        expect(card.locator(".ready")).to_be_visible(timeout=patience)
        expect(card).to_contain_text("Same scene")
        expect(page.locator(".legend")).to_contain_text(
            re.compile(r"[0-9]+ %\s*detail from your photo motorcycle_right.png")
        )
        with page.expect_download() as result:
            page.get_by_role("button", name="Download the result").click()
        downloaded = result.value.path().read_bytes()
        command = shlex.split(page.locator("pre code").inner_text())
    assert command[:2] == ["rasr", "restore"]
    (tmp_path / "again").mkdir()
    for name in ("blurry.png", "photos", "photos/motorcycle_right.png"):
        (tmp_path / "again" / Path(name).name).symlink_to(tmp_path / name)
    subprocess.run([sys.executable, "-m", *command], cwd=tmp_path / "again", check=True)
    made = tmp_path / "again" / command[command.index("-o") + 1]
    assert made.read_bytes() == downloaded
