"""What a picture carries besides its pixels comes through ``rasr restore``: orientation, profile, depth, alpha, EXIF.

Every picture shows the same smooth scene. All are restored by one run of the real command line at twice the size; the
result, reduced again, must show the scene in the file's own colour space, depth and orientation.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab

from rasr.images import read_header, read_picture

WHITE = [0.3127, 0.3290, 1]
PROFILES = {
    "display-p3": imagecodecs.cms_profile(
        "rgb", whitepoint=WHITE, primaries=[0.68, 0.32, 1, 0.265, 0.69, 1, 0.15, 0.06, 1], gamma=2.2
    ),
    "adobe-rgb": imagecodecs.cms_profile(
        "rgb", whitepoint=WHITE, primaries=[0.64, 0.33, 1, 0.21, 0.71, 1, 0.15, 0.06, 1], gamma=563 / 256
    ),
    "gray": imagecodecs.cms_profile("gray", whitepoint=WHITE, gamma=1.8),
}
TURNS = {1: 0, 3: 2, 6: 1, 8: 3}
"""EXIF orientation → quarter turns clockwise that make the stored picture upright."""


def scene() -> NDArray[np.float64]:
    """A smooth colourful picture, (36, 48, 3) in [0, 1]: no two edges or corners are alike, saturated at the right."""
    y, x = np.mgrid[0:36, 0:48] / np.array([35, 47]).reshape(2, 1, 1)
    return np.stack([0.1 + 0.85 * x, 0.15 + 0.7 * y, 0.9 - 0.8 * x * y], axis=2)


def stored(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """How a camera stores upright pixels under an EXIF orientation; written out, not computed as the reader does."""
    return {
        1: lambda p: p,
        2: np.fliplr,
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: np.transpose(p, (1, 0, 2)),
        6: lambda p: np.rot90(p, 1),  # the reader turns it clockwise
        7: lambda p: np.rot90(np.transpose(p, (1, 0, 2)), 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation](pixels)


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of results, beside the folder ``in``."""
    root = tmp_path_factory.mktemp("golden")
    source = root / "in"
    source.mkdir()
    eight = (scene() * 255).round().astype(np.uint8)
    sixteen = (scene() * 65535).round().astype(np.uint16)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        for suffix in ("jpg", "png"):
            image = Image.fromarray(np.ascontiguousarray(stored(eight, orientation)))
            image.save(source / f"turned{orientation}.{suffix}", exif=exif, quality=98, subsampling=0)
    for name in ("display-p3", "adobe-rgb"):
        for suffix in ("png", "jpg", "webp", "tif"):
            options = {"quality": 98} | ({"subsampling": 0} if suffix == "jpg" else {})
            image = Image.fromarray(eight)
            image.save(source / f"{name}-{suffix}.{suffix}", icc_profile=bytes(PROFILES[name]), **options)
    Image.fromarray(eight[:, :, 0]).save(source / "gray.png", icc_profile=bytes(PROFILES["gray"]))
    Image.fromarray(eight[:, :, 0]).save(source / "gray.jpg", quality=98)
    alpha = np.zeros((36, 48, 1), np.uint8)
    alpha[6:30, 8:40] = 255
    hidden = np.where(alpha > 0, eight, 0).astype(np.uint8)
    Image.fromarray(np.dstack([hidden, alpha])).save(source / "alpha.png")
    Image.fromarray(np.dstack([hidden, alpha])).save(source / "alpha.webp", lossless=True)
    Image.fromarray(np.dstack([eight, np.full_like(alpha, 77)])).save(source / "veil.png")
    (source / "deep.png").write_bytes(imagecodecs.png_encode(sixteen))
    tifffile.imwrite(source / "deep.tif", sixteen, photometric="rgb")
    tifffile.imwrite(source / "deep-gray.tif", sixteen[:, :, 0], photometric="minisblack")
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2019:05:04 03:02:01"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    Image.fromarray(eight).save(source / "exif.jpg", exif=exif, quality=98)
    Image.fromarray(eight[:1, :1]).save(source / "dot.png")
    command = [sys.executable, "-m", "rasr", "restore", str(source), "-o", str(root / "out"), "--preset", "bicubic"]
    done = subprocess.run([*command, "--scale", "2", "--name", "{name}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return root / "out"


def difference(path: Path, expected: NDArray[Any], *, border: int = 2) -> tuple[float, float]:
    """Mean and largest CIEDE2000 between a result reduced by two and the scene, away from the picture's border."""
    pixels = read_picture(path).pixels
    assert pixels.shape[:2] == (2 * expected.shape[0], 2 * expected.shape[1])
    reduced = pixels.reshape(expected.shape[0], 2, expected.shape[1], 2, 3).mean(axis=(1, 3))
    inner = slice(border, -border)
    error = deltaE_ciede2000(rgb2lab(reduced), rgb2lab(expected))[inner, inner]
    return float(error.mean()), float(error.max())


def lab(pixels: NDArray[Any], profile: str) -> NDArray[Any]:
    """CIELAB of numbers in [0, 1] that are meant in ``profile``, by LittleCMS."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[profile]))
    transform = ImageCms.buildTransform(opened, ImageCms.createProfile("LAB"), "RGB", "LAB")
    image = ImageCms.applyTransform(Image.fromarray((pixels * 255).round().astype(np.uint8)), transform)
    assert image is not None
    values = np.asarray(image)
    return np.dstack([values[:, :, 0] * (100 / 255), values[:, :, 1:].astype(np.int8).astype(np.float64)])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_orientations_come_out_upright_with_the_tag_reset(restored: Path, orientation: int, suffix: str) -> None:
    path = restored / f"turned{orientation}.{suffix}"
    mean, largest = difference(path, scene())
    assert mean < 0.5
    assert largest < (3 if suffix == "jpg" else 1)
    with Image.open(path) as image:
        assert image.size == (96, 72)
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("name", ["display-p3", "adobe-rgb"])
def test_wide_gamuts_keep_their_profile_and_their_numbers(restored: Path, name: str, suffix: str) -> None:
    path = restored / f"{name}-{suffix}.{suffix}"
    with Image.open(path) as image:
        assert image.info["icc_profile"] == bytes(PROFILES[name])
        numbers = np.asarray(image.convert("RGB"), np.float64).reshape(36, 2, 48, 2, 3).mean(axis=(1, 3)) / 255
    # In the file's own space: what lies outside sRGB, as the saturated right side does, is not cut off.
    error = deltaE_ciede2000(lab(numbers, name), lab(scene(), name))[2:-2, 2:-2]
    assert error.mean() < 1
    lossy = suffix in {"jpg", "webp"}  # WebP keeps colour at half the resolution
    assert np.abs(numbers - scene())[2:-2, 2:-2].mean() < (0.01 if lossy else 0.002)
    assert np.abs(numbers - scene())[2:-2, 2:-2].max() < (0.08 if lossy else 0.01)


def test_gray_stays_one_channel_with_its_profile(restored: Path) -> None:
    for name, icc in (("gray.png", bytes(PROFILES["gray"])), ("gray.jpg", None)):
        with Image.open(restored / name) as image:
            assert image.mode == "L"
            assert image.info.get("icc_profile") == icc
            levels = np.asarray(image, np.float64).reshape(36, 2, 48, 2).mean(axis=(1, 3)) / 255
        assert np.abs(levels - scene()[:, :, 0])[2:-2, 2:-2].max() < 0.01


@pytest.mark.parametrize("name", ["alpha.png", "alpha.webp"])
def test_transparency_grows_with_the_picture_and_black_does_not_leak(restored: Path, name: str) -> None:
    with Image.open(restored / name) as image:
        assert image.mode == "RGBA"
        result = np.asarray(image, np.float64) / 255
    assert result[:8, :, 3].max() < 0.05
    assert result[16:56, 20:76, 3].min() > 0.98
    reduced = result.reshape(36, 2, 48, 2, 4).mean(axis=(1, 3))
    # Up to the very edge of what is visible (rows 6 to 29, columns 8 to 39), colours are the scene's.
    assert np.abs(reduced[6:30, 8:40, :3] - scene()[6:30, 8:40]).max() < 0.03


def test_a_constant_veil_stays_exactly_that(restored: Path) -> None:
    with Image.open(restored / "veil.png") as image:
        assert set(np.asarray(image)[:, :, 3].flat) == {77}


def test_sixteen_bits_are_sixteen_bits(restored: Path) -> None:
    for name in ("deep.png", "deep.tif", "deep-gray.tif"):
        assert read_header(restored / name).bits == 16
    levels = imagecodecs.png_decode((restored / "deep.png").read_bytes())
    assert levels.dtype == np.uint16
    assert len(np.unique(levels)) > 3000
    reduced = levels.reshape(36, 2, 48, 2, 3).mean(axis=(1, 3)) / 65535
    assert np.abs(reduced - scene())[2:-2, 2:-2].max() < 0.001, "finer than 8 bits can be"
    assert tifffile.imread(restored / "deep-gray.tif").shape == (72, 96)


def test_date_place_and_camera_are_kept_with_a_word_on_the_software(restored: Path) -> None:
    with Image.open(restored / "exif.jpg") as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == "Camera"
        assert exif[ExifTags.Base.Software].startswith("RASR")
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2019:05:04 03:02:01"
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_a_single_pixel_becomes_four(restored: Path) -> None:
    with Image.open(restored / "dot.png") as image:
        assert image.size == (2, 2)
        assert np.abs(np.asarray(image, np.float64)[..., :3] - scene()[0, 0] * 255).max() <= 1


def test_metadata_can_be_stripped_and_the_picture_restored_by_the_network(restored: Path, tmp_path: Path) -> None:
    source = restored.parent / "in"
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rasr", "restore", str(source / "exif.jpg"), str(source / "turned6.jpg")]
    command += [str(source / "dot.png"), str(source / "display-p3-png.png"), str(source / "alpha.png")]
    done = subprocess.run(
        [*command, "-o", str(out), "--scale", "2", "--metadata", "strip", "--name", "{name}", "--preset", "realesrgan"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(out / "exif.jpg") as image:
        assert not dict(image.getexif())
    with Image.open(out / "display-p3-png.png") as image:
        assert image.info["icc_profile"] == bytes(PROFILES["display-p3"]), "without it colours would change"
    assert difference(out / "turned6.jpg", scene(), border=4)[0] < 2
    with Image.open(out / "alpha.png") as image:
        assert image.mode == "RGBA"
    with Image.open(out / "dot.png") as image:
        assert image.size == (2, 2)
        assert np.abs(np.asarray(image, np.float64)[..., :3] - scene()[0, 0] * 255).max() <= 20
