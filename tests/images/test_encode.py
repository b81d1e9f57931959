"""Writing: which format a name asks for and what it can hold, working pixels to each format and back."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from rasr.errors import OutOfMemory, OutputError
from rasr.images import Encoding, Origin, Picture, encode, encode_picture, losses, read_picture, resize
from rasr.images.encode import FORMATS, check_format, output_format

LOSSLESS = [("PNG", 8), ("PNG", 16), ("TIFF", 8), ("TIFF", 16), ("WEBP", 8)]


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


@given(
    st.sampled_from(LOSSLESS),
    st.integers(1, 40),
    st.integers(1, 40),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9),
)
@settings(max_examples=150, deadline=None)
def test_lossless_formats_give_back_every_level(
    target: tuple[str, int], width: int, height: int, gray: bool, alpha: bool, profile: bool, seed: int
) -> None:
    format_, bits = target
    random = np.random.default_rng(seed)
    levels = 2**bits - 1
    samples = random.integers(0, levels + 1, (height, width, 1 if gray else 3)).repeat(3 if gray else 1, axis=2)
    cover = random.integers(0, levels + 1, (height, width))
    icc = read_profile() if profile and not gray else None
    picture = Picture(
        (samples / levels).astype(np.float32),
        (cover / levels).astype(np.float32) if alpha else None,
        Origin(format=format_, bits=bits, gray=gray, icc=icc),
    )
    back = read_picture(encode_picture(picture, format_, Encoding("lossless" if format_ == "WEBP" else None)))
    np.testing.assert_array_equal(np.rint(back.pixels * levels), samples)
    if alpha and not (format_ == "WEBP" and (cover == levels).all()):  # libwebp drops an alpha of nothing but ones
        assert back.alpha is not None
        np.testing.assert_array_equal(np.rint(back.alpha * levels), cover)
    else:
        assert back.alpha is None
    assert back.origin.bits == bits
    assert back.origin.gray == (gray and format_ != "WEBP")
    assert back.origin.icc == icc
    assert back.notes == ()


def read_profile() -> bytes:
    """SRGB under another name: embedded and kept, and no reason to touch the pixels."""
    import imagecodecs

    return bytes(imagecodecs.cms_profile("srgb"))


@given(st.sampled_from(["JPEG", "WEBP"]), st.integers(8, 60), st.integers(8, 60), st.booleans())
@settings(max_examples=40, deadline=None)
@example("WEBP", 42, 9, False)  # the worst of all sizes
def test_lossy_formats_stay_close(format_: str, width: int, height: int, gray: bool) -> None:
    random = np.random.default_rng(width * 100 + height)
    smooth = resize(random.random((4, 4, 3), np.float32), (width, height), filter="bilinear")
    if gray:
        smooth = smooth[:, :, :1].repeat(3, axis=2)
    back = read_picture(encode_picture(Picture(smooth, origin=Origin(gray=gray)), format_))
    assert (back.width, back.height) == (width, height)
    assert back.origin.gray == (gray and format_ == "JPEG")
    # WebP halves the resolution of colour, which below 16 pixels is coarser than these pictures' own four cells.
    bound = 0.06 if format_ == "WEBP" and min(width, height) < 16 else 0.03
    assert np.abs(back.pixels - smooth).mean() < bound


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
@pytest.mark.parametrize("gray", [True, False])
def test_sixteen_bits_are_real(format_: str, gray: bool) -> None:
    """Not 8 bits times 257: a ramp keeps thousands of levels."""
    ramp = np.linspace(0, 1, 5000, dtype=np.float32)[None, :, None].repeat(3, axis=2).repeat(2, axis=0)
    content = encode_picture(Picture(ramp, origin=Origin(gray=gray)), format_, Encoding(bits=16))
    back = read_picture(content)
    assert back.origin.bits == 16
    assert len(np.unique(back.pixels[0, :, 1])) == 5000
    np.testing.assert_allclose(back.pixels, ramp, atol=0.5 / 65535 + 1e-7)


@pytest.mark.parametrize(("format_", "expected"), [("PNG", 16), ("TIFF", 16), ("JPEG", 8), ("WEBP", 8)])
def test_the_origin_s_depth_is_kept_where_the_format_has_it(format_: str, expected: int) -> None:
    picture = Picture(np.full((4, 4, 3), 0.3, np.float32), origin=Origin(bits=16))
    assert read_picture(encode_picture(picture, format_)).origin.bits == expected
    assert read_picture(encode_picture(picture, format_, Encoding(bits=8))).origin.bits == 8


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_sixteen_bits_where_there_are_none(format_: str) -> None:
    picture = Picture(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(OutputError, match=r"cannot hold 16 bits per channel; use .png or .tif"):
        encode_picture(picture, format_, Encoding(bits=16))
    with pytest.raises(OutputError, match="choose 8 or 16"):
        encode_picture(picture, format_, Encoding(bits=12))


def test_jpeg_is_4_4_4_at_quality_95() -> None:
    noise = np.random.default_rng(0).random((64, 64, 3), np.float32)
    image = opened(encode_picture(Picture(noise), "JPEG"))
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    assert JpegImagePlugin.get_sampling(image) == 0
    reference = io.BytesIO()
    Image.new("RGB", (8, 8)).save(reference, "JPEG", quality=95)
    assert image.quantization == opened(reference.getvalue()).quantization
    smaller = encode_picture(Picture(noise), "JPEG", Encoding(quality=40))
    assert len(smaller) < len(encode_picture(Picture(noise), "JPEG")) / 2


@pytest.mark.parametrize(("format_", "quality"), [("JPEG", 0), ("JPEG", 101), ("JPEG", "lossless"), ("WEBP", -1)])
def test_impossible_qualities(format_: str, quality: Any) -> None:
    with pytest.raises(ValueError, match="quality must be 1 to 100"):
        encode_picture(Picture(np.zeros((4, 4, 3), np.float32)), format_, Encoding(quality=quality))


def test_transparency_in_a_jpeg_is_laid_on_the_background() -> None:
    pixels = np.zeros((32, 32, 3), np.float32)
    pixels[:, :, 0] = 1
    alpha = np.zeros((32, 32), np.float32)
    alpha[:, 16:] = 0.5
    for background, left, right in (
        ((1.0, 1.0, 1.0), (255, 255, 255), (255, 128, 128)),
        ((0.0, 0.0, 1.0), (0, 0, 255), (128, 0, 128)),
    ):
        content = encode_picture(Picture(pixels, alpha), "JPEG", Encoding(background=background))
        levels = np.asarray(opened(content)).astype(int)
        np.testing.assert_allclose(levels[16, 4], left, atol=4)
        np.testing.assert_allclose(levels[16, 28], right, atol=4)


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_colours_under_full_transparency_survive(format_: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 9, 3)).astype(np.float32) / 255
    picture = Picture(pixels, np.zeros((9, 9), np.float32))
    back = read_picture(encode_picture(picture, format_, Encoding("lossless" if format_ == "WEBP" else None)))
    np.testing.assert_allclose(back.pixels, pixels, atol=1e-6)


def test_values_outside_the_range_are_clipped_and_rounding_is_to_the_nearest() -> None:
    row = np.array([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 254.4 / 255, 1.0, 7.0], np.float32)
    picture = Picture(np.ascontiguousarray(row[None, :, None].repeat(3, axis=2)))
    assert np.asarray(opened(encode_picture(picture, "PNG")))[0, :, 0].tolist() == [0, 0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_not_numbers_are_a_bug_not_a_file(bad: float) -> None:
    pixels = np.zeros((4, 4, 3), np.float32)
    pixels[1, 1, 1] = bad
    if np.isinf(bad):
        assert np.asarray(opened(encode_picture(Picture(pixels), "PNG")))[1, 1].tolist() == [0, 255, 0]
    else:
        with pytest.raises(ValueError, match="not finite"):
            encode_picture(Picture(pixels), "PNG")


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch, photo: NDArray[np.uint8]) -> None:
    picture = Picture(
        photo / np.float32(255), photo[:, :, 0] / np.float32(255), beyond=np.full((50, 70, 3), 0.1, np.float32)
    )
    whole = encode_picture(picture, "TIFF")
    monkeypatch.setattr(encode, "_STRIP_PIXELS", 226 * 7)
    np.testing.assert_array_equal(np.asarray(opened(encode_picture(picture, "TIFF"))), np.asarray(opened(whole)))


def test_the_way_metadata_goes_must_be_a_known_one() -> None:
    with pytest.raises(ValueError, match="'keep', 'no-location' or 'strip'"):
        encode_picture(Picture(np.zeros((4, 4, 3), np.float32)), "PNG", Encoding(metadata="lose"))  # type: ignore[arg-type]  # on purpose


def test_running_out_of_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(encode, "_samples", full)
    with pytest.raises(OutOfMemory, match="4×4 PNG"):
        encode_picture(Picture(np.zeros((4, 4, 3), np.float32)), "PNG")


def test_the_same_picture_gives_the_same_bytes(photo: NDArray[np.uint8]) -> None:
    for format_ in ("JPEG", "PNG", "WEBP", "TIFF"):
        picture = Picture(photo / np.float32(255))
        assert encode_picture(picture, format_) == encode_picture(picture, format_)


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
        check_format("a", FORMATS[name], width, height, Origin(), None)
    for width, height in ((side + 1, 10), (10, side + 1)):
        with pytest.raises(OutputError, match=rf"at most {side} pixels a side .* Use {fits}"):
            check_format("a", FORMATS[name], width, height, Origin(), None)


def test_losses_are_told_beforehand() -> None:
    pixels = np.zeros((4, 4, 3), np.float32)
    rich = Picture(pixels, np.ones((4, 4), np.float32), Origin(bits=16))
    assert losses(rich, "a.png") == losses(rich, "a.tif") == ()
    assert [sentence.split(" ")[0] for sentence in losses(rich, "a.jpg")] == ["JPEG", "JPEG"]
    assert "transparency" in losses(rich, "a.jpg")[0]
    assert "8 bits" in losses(rich, "a.webp")[0]
    assert losses(Picture(pixels), "a.jpg") == ()
