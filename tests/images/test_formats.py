"""Which format a name asks for, and what it can hold."""

from __future__ import annotations

import numpy as np
import pytest

from rasr.errors import OutputError
from rasr.images import Origin, Picture, losses
from rasr.images.formats import FORMATS, check_size, output_format


@pytest.mark.parametrize(
    ("name", "format_", "expected"),
    [
        ("a.jpg", None, "JPEG"),
        ("a.JPEG", None, "JPEG"),
        ("a.jfif", None, "JPEG"),
        ("a.png", None, "PNG"),
        ("a.webp", None, "WEBP"),
        ("a.b.Tif", None, "TIFF"),
        ("a.tiff", None, "TIFF"),
        ("a.png", "jpg", "JPEG"),
        ("noextension", "TIFF", "TIFF"),
        ("a.txt", ".webp", "WEBP"),
    ],
)
def test_the_extension_decides_unless_a_format_is_named(name: str, format_: str | None, expected: str) -> None:
    assert output_format(name, format_).name == expected


@pytest.mark.parametrize(
    ("name", "format_", "what"),
    [
        ("a.bmp", None, "extension '.bmp'"),
        ("a", None, "no extension"),
        ("a.png", "gif", "extension '.gif'"),
        ("a.heic", None, "HEIC, which is read but not written"),
    ],
)
def test_unknown_ones_are_answered_with_the_known(name: str, format_: str | None, what: str) -> None:
    with pytest.raises(OutputError) as error:
        output_format(name, format_)
    assert what in str(error.value)
    for extension in (".jpg", ".png", ".webp", ".tif"):
        assert extension in str(error.value)


@pytest.mark.parametrize(
    ("name", "side", "fits"), [("WEBP", 16_383, ".jpg or .png or .tif"), ("JPEG", 65_535, ".png or .tif")]
)
def test_size_limits_are_exact_and_name_a_format_that_fits(name: str, side: int, fits: str) -> None:
    for width, height in ((side, 10), (10, side)):
        check_size("a", FORMATS[name], width, height)
    for width, height in ((side + 1, 10), (10, side + 1)):
        with pytest.raises(OutputError, match=rf"at most {side} pixels a side .* Use {fits}"):
            check_size("a", FORMATS[name], width, height)


def test_losses_are_told_beforehand() -> None:
    pixels = np.zeros((4, 4, 3), np.float32)
    rich = Picture(pixels, np.ones((4, 4), np.float32), Origin(bits=16))
    assert losses(rich, "a.png") == losses(rich, "a.tif") == ()
    assert [sentence.split(" ")[0] for sentence in losses(rich, "a.jpg")] == ["JPEG", "JPEG"]
    assert "transparency" in losses(rich, "a.jpg")[0]
    assert "8 bits" in losses(rich, "a.webp")[0]
    assert losses(Picture(pixels), "a.jpg") == ()
