"""What Python hands in and gets back: Pillow images, arrays, bytes; ``result.image``, notebooks, a short repr."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rasr
from rasr.errors import PictureError, PictureTooLarge, RasrError, UsageError
from rasr.images import Limits, Picture, read_picture
from rasr.restoration import TargetSize
from rasr.restoration.exchange import take_picture

LEVELS = np.random.default_rng(0).integers(1, 256, (6, 8, 4), np.uint8)
RGB = LEVELS[:, :, :3]
GRAY_ALPHA = np.ascontiguousarray(LEVELS[:, :, 2:])


@pytest.fixture(scope="module")
def restorer() -> rasr.Restorer:
    return rasr.Restorer("bicubic")


def saved(image: Image.Image, format: str = "PNG", **facts: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **facts)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("given", "pixels", "alpha", "gray"),
    [
        (RGB, RGB / 255, None, False),
        (RGB.astype(np.float32) / 255, RGB / 255, None, False),
        (RGB.astype(np.float64) / 255, RGB / 255, None, False),
        (RGB[::-1, ::-1], RGB[::-1, ::-1] / 255, None, False),
        (LEVELS, RGB / 255, LEVELS[:, :, 3] / 255, False),
        (LEVELS / 255, RGB / 255, LEVELS[:, :, 3] / 255, False),
        (RGB[:, :, 0], RGB[:, :, [0, 0, 0]] / 255, None, True),
        (RGB[:, :, 0] / 255, RGB[:, :, [0, 0, 0]] / 255, None, True),
        (Image.fromarray(RGB), RGB / 255, None, False),
        (Image.fromarray(LEVELS), RGB / 255, LEVELS[:, :, 3] / 255, False),
        (Image.fromarray(RGB[:, :, 0]), RGB[:, :, [0, 0, 0]] / 255, None, True),
        (Image.fromarray(GRAY_ALPHA), RGB[:, :, [2, 2, 2]] / 255, LEVELS[:, :, 3] / 255, True),
        (Image.fromarray(RGB).convert("RGBX"), RGB / 255, None, False),
        (saved(Image.fromarray(RGB)), RGB / 255, None, False),
    ],
    ids=["uint8", "float32", "float64", "strided", "rgba8", "rgba float", "gray8", "gray float",
         "RGB", "RGBA", "L", "LA", "RGBX", "bytes"],
)  # fmt: skip
def test_what_goes_in(given: Any, pixels: Any, alpha: Any, gray: bool) -> None:
    picture = take_picture(given)
    np.testing.assert_allclose(picture.pixels, pixels, atol=1e-6)
    assert picture.origin.gray is gray
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_allclose(picture.alpha, alpha, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "RGBa", "La"])
def test_every_mode_of_pillow_with_a_range_is_taken(mode: str) -> None:
    flat = Image.new("RGBA", (8, 6), (200, 200, 200, 255))
    if mode == "LAB":
        image = Image.new("LAB", (8, 6), (205, 128, 128))
    elif mode == "I;16":
        image = Image.new("I;16", (8, 6), 200 * 257)
    elif mode == "RGBa":
        image = flat.convert("RGBa")
    elif mode == "La":
        image = flat.convert("LA").convert("La")
    elif mode == "PA":
        image = flat.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE).convert("PA")
    elif mode == "P":
        image = flat.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
    else:
        image = flat.convert("RGB").convert(mode)
    expected = 1.0 if mode == "1" else 200 / 255
    if mode == "1":
        image = Image.new("1", (8, 6), 1)
    pixels = take_picture(image).pixels
    assert pixels.shape == (6, 8, 3)
    np.testing.assert_allclose(pixels, expected, atol=0.06 if mode == "CMYK" else 0.012)


def test_profile_and_orientation_of_an_image_count_as_those_of_its_file(tmp_path: Path) -> None:
    from rasr.images import colour

    exif = Image.Exif()
    exif[0x0112] = 6
    profile = colour.make_profile("rgb", *colour.ADOBE_RGB)
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif, icc_profile=profile)
    with Image.open(tmp_path / "a.png") as image:
        taken, read = take_picture(image), read_picture(tmp_path / "a.png")
    assert taken.pixels.shape == (8, 6, 3)
    assert np.array_equal(taken.pixels, read.pixels)
    assert taken.origin.icc == read.origin.icc


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (lambda: np.zeros((3, 20, 30), np.uint8), PictureError, "transpose(1, 2, 0)"),
        (lambda: np.zeros((2, 20, 30, 3), np.uint8), PictureError, "one picture at a time"),
        (lambda: np.zeros((20, 30, 2), np.uint8), PictureError, "20×30×2 is no picture"),
        (lambda: np.zeros((0, 30, 3), np.uint8), PictureError, "0×30×3 is no picture"),
        (lambda: np.float32(1), PictureError, "a single number is no picture"),
        (lambda: np.full((4, 4, 3), 200.0), PictureError, "from 200 to 200. Divide it by 255."),
        (lambda: np.full((4, 4, 3), -1.0), PictureError, "must lie from 0 to 1"),
        (lambda: np.full((4, 4, 3), np.nan), PictureError, "not finite"),
        (lambda: np.full((4, 4, 3), np.inf, np.float32), PictureError, "not finite"),
        (lambda: np.zeros((4, 4, 3), np.uint16), PictureError, "uint16 is not taken"),
        (lambda: np.zeros((4, 4, 3), np.int64), PictureError, "int64 is not taken"),
        (lambda: np.zeros((4, 4), bool), PictureError, "bool is not taken"),
        (lambda: Image.new("F", (4, 4)), PictureError, "mode 'F'"),
        (lambda: Image.new("I", (4, 4)), PictureError, "mode 'I'"),
        (lambda: Image.open(io.BytesIO(saved(Image.fromarray(LEVELS))[:60])), PictureError, "cannot be read"),
        (lambda: [[1, 2], [3, 4]], UsageError, "not list"),
        (lambda: None, UsageError, "not NoneType"),
        (lambda: b"no picture", PictureError, "not a picture"),
    ],
)
def test_anything_else_is_a_typed_error(
    restorer: rasr.Restorer, given: Callable[[], Any], error: type[RasrError], words: str
) -> None:
    with pytest.raises(error) as raised:
        restorer(given())
    assert words in str(raised.value)


def test_limits_hold_for_arrays_and_images(restorer: rasr.Restorer) -> None:
    for given in (RGB, Image.fromarray(RGB)):
        with pytest.raises(PictureTooLarge):
            restorer(given, limits=Limits(40))


def test_the_callers_array_stays_as_it_is(restorer: rasr.Restorer) -> None:
    given = (LEVELS / 255).astype(np.float32)
    before = given.copy()
    picture = take_picture(given)
    picture.pixels[:] = 0
    restorer(given)
    assert np.array_equal(given, before)


def test_an_image_comes_out(restorer: rasr.Restorer) -> None:
    for given, mode in ((RGB, "RGB"), (LEVELS, "RGBA"), (RGB[:, :, 0], "L"), (GRAY_ALPHA, "LA")):
        result = restorer(Image.fromarray(given), size=TargetSize(scale=1), colour="none")
        assert result.image.mode == mode
        assert result.image.size == (8, 6)
        assert np.array_equal(np.asarray(result.image), given), "one to one, nothing changes"


def test_a_notebook_shows_a_picture_of_bounded_size(restorer: rasr.Restorer) -> None:
    result = restorer(np.zeros((30, 600, 3), np.uint8))
    assert result.image.size == (2400, 120)
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        assert shown.format == "PNG"
        assert shown.size == (1024, 51)


def test_the_repr_is_one_short_line(restorer: rasr.Restorer, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "cat.png")
    assert repr(restorer(tmp_path / "cat.png")) == "<Result 32×24 of cat.png, without a reference>"
    result = restorer(Picture(np.zeros((4, 4, 3), np.float32)), reference=tmp_path / "cat.png", candidates=0)
    assert repr(result) == "<Result 16×16 of a picture, guided by cat.png (1.00)>"
