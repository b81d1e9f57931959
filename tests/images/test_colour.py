"""ICC profiles to sRGB and back."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, xyz2lab

from rasr.images import Encoding, Picture, colour, encode_picture, read_picture
from rasr.images.colour import ADOBE_RGB, _is_srgb, from_srgb, make_profile, to_srgb, usable_profile

Save = Callable[..., bytes]

# Linear RGB to XYZ (D65), from each space's primaries: SMPTE EG 432-1, Adobe RGB (1998) 4.3.5.3, IEC 61966-2-1.
TO_XYZ = {
    "display-p3": [[0.486571, 0.265668, 0.198217], [0.228975, 0.691739, 0.079287], [0.0, 0.045113, 1.043944]],
    "adobe-rgb": [[0.576669, 0.185558, 0.188229], [0.297345, 0.627364, 0.075291], [0.027031, 0.070689, 0.991338]],
    "srgb": [[0.412391, 0.357584, 0.180481], [0.212639, 0.715169, 0.072192], [0.019331, 0.119195, 0.950532]],
}
GAMMA = {"display-p3": 2.2, "adobe-rgb": 563 / 256}


def to_xyz(encoded: NDArray[np.floating], space: str) -> NDArray[np.float64]:
    """The spaces' own equations, written without a colour library."""
    value = encoded.astype(np.float64)
    if space == "srgb":  # mirrored below 0, as CSS Color 4 extends it
        size = np.abs(value)
        linear = np.sign(value) * np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4)
    else:
        linear = value ** GAMMA[space]
    return linear @ np.array(TO_XYZ[space]).T


def delta_e(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIEDE2000 between XYZ colours."""
    return deltaE_ciede2000(xyz2lab(one), xyz2lab(other))


@pytest.fixture(scope="module")
def colours() -> NDArray[np.uint8]:
    """A grid over the whole RGB cube, corners included: many of these lie outside of sRGB."""
    axis = np.linspace(0, 255, 13).round().astype(np.uint8)
    return np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(13, 169, 3)


@pytest.mark.parametrize("space", ["display-p3", "adobe-rgb"])
@pytest.mark.parametrize("bits", [8, 16])
def test_pixels_are_the_same_colours_in_srgb(
    colours: NDArray[np.uint8], profiles: dict[str, bytes], space: str, bits: int
) -> None:
    samples = colours if bits == 8 else colours.astype(np.uint16) * 257
    pixels, beyond = to_srgb(samples, "rgb", profiles[space])
    assert beyond is not None
    assert 0 <= pixels.min() <= pixels.max() <= 1
    expected = to_xyz(colours / 255, space)
    error = delta_e(to_xyz(pixels + beyond, "srgb"), expected)
    assert error.max() < 0.5
    inside = (beyond == 0).all(axis=2)
    assert 0.3 < inside.mean() < 0.95
    assert delta_e(to_xyz(pixels, "srgb"), expected)[inside].max() < 0.5
    assert delta_e(to_xyz(pixels, "srgb"), expected)[~inside].max() > 3  # what clipping alone would cost


@pytest.mark.parametrize("space", ["display-p3", "adobe-rgb", "srgb", "gray"])
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_files_come_back_in_their_own_space_with_the_same_colours(
    photo: NDArray[np.uint8], saved: Save, profiles: dict[str, bytes], space: str, format_: str
) -> None:
    image = Image.fromarray(photo)
    if space == "gray":
        if format_ == "WEBP":
            pytest.skip("WebP has no gray")
        image = image.convert("L")
    original = np.asarray(image)
    picture = read_picture(saved(image, "PNG", icc_profile=profiles[space]))
    content = encode_picture(picture, format_)
    with Image.open(io.BytesIO(content)) as result:
        assert result.info["icc_profile"] == profiles[space]
        assert result.mode == image.mode
        difference = np.abs(np.asarray(result, np.int16) - original)
    assert difference.max() <= 1 if format_ in {"PNG", "TIFF"} else difference.mean() < 3


@pytest.mark.parametrize("space", ["display-p3", "adobe-rgb"])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_whole_gamut_survives_the_round_trip(
    colours: NDArray[np.uint8], saved: Save, profiles: dict[str, bytes], space: str, bits: int
) -> None:
    """The bar: ΔE ≤ 1 from file to file, also for colours that sRGB cannot show."""
    if bits == 8:
        picture = read_picture(saved(colours, "PNG", icc_profile=profiles[space]))
    else:
        out = io.BytesIO()
        tifffile.imwrite(out, colours.astype(np.uint16) * 257, photometric="rgb", iccprofile=profiles[space])
        picture = read_picture(out.getvalue())
        assert picture.origin.bits == 16
    with Image.open(io.BytesIO(encode_picture(picture, "PNG", Encoding(bits=8)))) as file:
        levels = np.asarray(file)
        assert file.info["icc_profile"] == profiles[space]
    assert delta_e(to_xyz(levels / 255, space), to_xyz(colours / 255, space)).max() < 1
    assert np.abs(levels.astype(np.int16) - colours).max() <= 1


def test_strips_do_not_show(
    colours: NDArray[np.uint8], profiles: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = to_srgb(colours, "rgb", profiles["display-p3"])
    monkeypatch.setattr(colour, "_STRIP", 169 * 3)
    parts = to_srgb(colours, "rgb", profiles["display-p3"])
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_array_equal(parts[1], whole[1])


def test_colours_beyond_srgb_follow_the_picture_to_another_size(saved: Save, profiles: dict[str, bytes]) -> None:
    half = np.zeros((40, 40, 3), np.uint8)
    half[:, :20] = (0, 255, 0)  # the greenest green of Display P3
    half[:, 20:] = (255, 0, 0)
    picture = read_picture(saved(half, "PNG", icc_profile=profiles["display-p3"]))
    enlarged = picture.with_pixels(np.repeat(np.repeat(picture.pixels, 3, axis=0), 3, axis=1))
    with Image.open(io.BytesIO(encode_picture(enlarged, "PNG"))) as file:
        levels = np.asarray(file).astype(np.int16)
    assert levels.shape == (120, 120, 3)
    assert np.abs(levels[:, :56] - (0, 255, 0)).max() <= 1
    assert np.abs(levels[:, 64:] - (255, 0, 0)).max() <= 1
    assert levels[:, 56:64].max(axis=2).min() > 80  # between them a mixture, no black line


def test_lcms_in_pillow_agrees(photo: NDArray[np.uint8], saved: Save, profiles: dict[str, bytes]) -> None:
    pixels = read_picture(saved(photo, "PNG", icc_profile=profiles["adobe-rgb"])).pixels
    expected = ImageCms.profileToProfile(
        Image.fromarray(photo),
        ImageCms.ImageCmsProfile(io.BytesIO(profiles["adobe-rgb"])),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert np.abs(pixels * 255 - np.asarray(expected)).max() <= 1.01


def test_gray_profiles_by_their_own_equation(profiles: dict[str, bytes]) -> None:
    """Gamma 1.8 to sRGB's curve, in 8 and in 16 bits."""
    for dtype in (np.uint8, np.uint16):
        whole = np.iinfo(dtype).max
        levels = np.linspace(0, whole, 256).round().astype(dtype)[None, :, None]
        pixels, beyond = to_srgb(levels, "gray", profiles["gray"])
        linear = (levels[0, :, 0] / whole) ** 1.8
        expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(pixels[0], expected[:, None].repeat(3, axis=1), atol=2e-3)
        assert beyond is None
        assert (pixels[:, :, 0] == pixels[:, :, 1]).all()
        np.testing.assert_allclose(
            from_srgb(pixels, "gray", profiles["gray"])[0, :, 0], levels[0, :, 0] / whole, atol=1 / 255
        )


def test_sixteen_bits_survive_a_profile(profiles: dict[str, bytes]) -> None:
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    samples = np.dstack([ramp, ramp, ramp])
    pixels, beyond = to_srgb(samples, "rgb", profiles["adobe-rgb"])
    assert len(np.unique(pixels[:, :, 1])) == 4096
    extended = pixels if beyond is None else pixels + beyond
    back = from_srgb(extended, "rgb", profiles["adobe-rgb"]) * 65535
    assert np.abs(back - samples).max() < 4


def test_srgb_in_other_clothes_is_left_alone(photo: NDArray[np.uint8], saved: Save, profiles: dict[str, bytes]) -> None:
    assert _is_srgb(profiles["srgb"])
    assert not _is_srgb(profiles["adobe-rgb"])
    picture = read_picture(saved(photo, "PNG", icc_profile=profiles["srgb"]))
    np.testing.assert_allclose(picture.pixels, photo / np.float32(255), atol=1e-7)
    with Image.open(io.BytesIO(encode_picture(picture, "PNG"))) as file:
        np.testing.assert_array_equal(np.asarray(file), photo)


@pytest.mark.parametrize(
    ("mode", "profile", "reason"),
    [("L", "display-p3", "is for RGB pixels, the picture is gray"), ("RGB", "gray", "is for GRAY pixels")],
)
def test_a_profile_for_other_pixels_is_ignored_and_said(
    photo: NDArray[np.uint8], saved: Save, profiles: dict[str, bytes], mode: str, profile: str, reason: str
) -> None:
    image = Image.fromarray(photo).convert(mode)
    picture = read_picture(saved(image, "TIFF", icc_profile=profiles[profile]))
    assert len(picture.notes) == 1
    assert reason in picture.notes[0]
    assert picture.origin.icc is None
    np.testing.assert_allclose(picture.pixels, np.asarray(image.convert("RGB")) / np.float32(255), atol=1e-7)


def test_a_damaged_profile_is_ignored_and_said(
    photo: NDArray[np.uint8], saved: Save, profiles: dict[str, bytes]
) -> None:
    broken = profiles["display-p3"][:200]
    assert usable_profile(broken, "rgb") is not None
    picture = read_picture(saved(photo, "TIFF", icc_profile=broken))
    assert "the colour profile is damaged" in picture.notes[0]
    np.testing.assert_allclose(picture.pixels, photo / np.float32(255), atol=1e-7)


def test_adobe_rgb_said_by_a_camera_without_a_profile(photo: NDArray[np.uint8], saved: Save) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA001: 0xFFFF, 0xA005: {1: "R03"}})
    picture = read_picture(saved(photo, "JPEG", exif=exif, quality=95))
    assert "Adobe RGB by the camera" in picture.notes[0]
    assert picture.origin.icc == make_profile("rgb", *ADOBE_RGB)
    expected = read_picture(saved(photo, "JPEG", icc_profile=picture.origin.icc, quality=95))
    np.testing.assert_array_equal(picture.pixels, expected.pixels)


def test_gray_is_weighed_like_bt_709() -> None:
    strip = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]], np.float32)
    np.testing.assert_allclose(from_srgb(strip, "gray", None)[0, :, 0], [0.2126, 0.7152, 0.0722, 0.5], atol=1e-6)


def test_a_picture_without_wide_colours_carries_nothing_extra(photo: NDArray[np.uint8], saved: Save) -> None:
    assert read_picture(saved(photo, "PNG")).beyond is None
    assert Picture(np.zeros((2, 2, 3), np.float32)).beyond is None
