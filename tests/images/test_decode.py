"""Reading: every kind of file to the same working pixels."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from rasr import memory
from rasr.errors import ExtraMissing, OutOfMemory, PictureError, PictureTooLarge, UnsupportedFormat, install_command
from rasr.images import Limits, colour, decode, read_header, read_picture

Save = Callable[..., bytes]


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("format_", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 0.02),
        ("TIFF", {"compression": "jpeg", "quality": 95}, 0.02),
    ],
)
def test_eight_bit_colour(
    photo: NDArray[np.uint8], saved: Save, tmp_path: Path, format_: str, options: dict[str, Any], tolerance: float
) -> None:
    file = tmp_path / "misnamed.txt"  # content decides, never the extension
    file.write_bytes(saved(photo, format_, **options))
    picture = read_picture(file)
    expected = photo / np.float32(255)
    if tolerance:
        assert np.abs(picture.pixels - expected).mean() < tolerance
    else:
        np.testing.assert_allclose(picture.pixels, expected, atol=1e-7)
    assert (picture.origin.format, picture.origin.bits, picture.origin.gray) == (format_, 8, False)
    assert (picture.width, picture.height, picture.path, picture.alpha) == (226, 149, file, None)
    header = read_header(file)
    assert (header.format, header.width, header.height, header.bits, header.frames) == (format_, 226, 149, 8, 1)


def test_bytes_are_read_like_a_file(photo: NDArray[np.uint8], saved: Save) -> None:
    picture = read_picture(saved(photo, "PNG"))
    assert picture.path is None
    np.testing.assert_allclose(picture.pixels, photo / np.float32(255), atol=1e-7)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "PA"])
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_other_modes_mean_what_pillow_says_they_mean(
    photo: NDArray[np.uint8], saved: Save, mode: str, format_: str
) -> None:
    image = Image.fromarray(photo).convert("P" if mode == "PA" else mode)
    if mode == "PA":
        image.info["transparency"] = bytes(range(256))
    if mode in {"LA", "RGBA"}:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    if format_ == "TIFF" and mode == "PA":
        pytest.skip("TIFF palettes have no transparency")
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    picture = read_picture(saved(image, format_, **options))
    expected = np.asarray(image.convert("RGBA"), np.float32) / 255
    np.testing.assert_allclose(picture.pixels, expected[:, :, :3], atol=1e-6)
    if mode in {"LA", "PA", "RGBA"}:
        assert picture.alpha is not None
        np.testing.assert_allclose(picture.alpha, expected[:, :, 3], atol=1e-6)
    else:
        assert picture.alpha is None
    assert picture.origin.gray == (mode in {"L", "LA", "1"} and format_ != "WEBP")


def test_one_transparent_colour(photo: NDArray[np.uint8], saved: Save) -> None:
    key = tuple(int(value) for value in photo[3, 5])
    picture = read_picture(saved(photo, "PNG", transparency=key))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha == 0, (photo == key).all(axis=2))
    assert picture.alpha[3, 5] == 0


def deep(photo: NDArray[np.uint8], channels: int) -> NDArray[np.uint16]:
    """16-bit samples whose low bytes matter."""
    wide = photo.astype(np.uint16) * 257
    noise = np.random.default_rng(0).integers(0, 256, (*photo.shape[:2], 4), np.uint16)
    return np.ascontiguousarray((np.dstack([wide, wide[:, :, ::-1]])[:, :, :4] ^ noise)[:, :, :channels])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png(photo: NDArray[np.uint8], channels: int) -> None:
    samples = deep(photo, channels)
    picture = read_picture(bytes(imagecodecs.png_encode(samples[:, :, 0] if channels == 1 else samples)))
    check_deep(picture, samples, "PNG")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib"},
        {"tile": (32, 48), "compression": "zstd"},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_sixteen_bit_tiff(photo: NDArray[np.uint8], channels: int, options: dict[str, Any]) -> None:
    samples = deep(photo, channels)
    kind = {
        "photometric": "rgb" if channels > 2 else "minisblack",
        "planarconfig": "contig" if channels > 1 else None,
        "extrasamples": ["unassalpha"] if channels in {2, 4} else None,
    }
    check_deep(read_picture(tiff(samples[:, :, 0] if channels == 1 else samples, **kind, **options)), samples, "TIFF")


def check_deep(picture: Any, samples: NDArray[np.uint16], format_: str) -> None:
    gray = samples.shape[2] < 3
    colours = samples[:, :, :1].repeat(3, axis=2) if gray else samples[:, :, :3]
    np.testing.assert_allclose(picture.pixels, colours / np.float64(65535), atol=1e-7)
    assert (picture.origin.format, picture.origin.bits, picture.origin.gray) == (format_, 16, gray)
    if samples.shape[2] in {2, 4}:
        np.testing.assert_allclose(picture.alpha, samples[:, :, -1] / np.float64(65535), atol=1e-7)
    else:
        assert picture.alpha is None


def test_sixteen_bit_tiff_in_planes_premultiplied_and_white_is_zero(photo: NDArray[np.uint8]) -> None:
    samples = deep(photo, 3)
    planes = tiff(np.moveaxis(samples, 2, 0), photometric="rgb", planarconfig="separate")
    np.testing.assert_allclose(read_picture(planes).pixels, samples / np.float64(65535), atol=1e-7)

    negative = read_picture(tiff(samples[:, :, 0], photometric="miniswhite"))
    np.testing.assert_allclose(negative.pixels[:, :, 0], 1 - samples[:, :, 0] / np.float64(65535), atol=1e-7)

    alpha = np.full((149, 226, 1), 32768, np.uint16)
    joined = tiff(np.dstack([samples // 2, alpha]), photometric="rgb", extrasamples=["assocalpha"])
    picture = read_picture(joined)
    np.testing.assert_allclose(picture.pixels, samples / np.float64(65535), atol=4e-5)


def test_sixteen_bit_png_with_one_transparent_colour(
    photo: NDArray[np.uint8], png_chunk: Callable[[bytes, bytes], bytes]
) -> None:
    samples = deep(photo, 3)
    data = bytes(imagecodecs.png_encode(samples))
    key = png_chunk(b"tRNS", struct.pack(">HHH", *samples[2, 3]))
    picture = read_picture(data[:33] + key + data[33:])
    assert picture.alpha is not None
    assert picture.alpha[2, 3] == 0
    np.testing.assert_allclose(picture.pixels, samples / np.float64(65535), atol=1e-7)


def test_an_interlaced_sixteen_bit_png(png_chunk: Callable[[bytes, bytes], bytes]) -> None:
    """Adam7 passes written out by hand: no library at hand writes them with 16 bits."""
    samples = np.random.default_rng(1).integers(0, 65536, (11, 13, 3)).astype(np.uint16)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b""
    for top, left, down, across in passes:
        for row in samples[top::down, left::across]:
            raw += (b"\0" + row.astype(">u2").tobytes()) if row.size else b""
    header = struct.pack(">IIBBBBB", 13, 11, 16, 2, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(raw))
    picture = read_picture(data + png_chunk(b"IEND", b""))
    np.testing.assert_allclose(picture.pixels, samples / np.float64(65535), atol=1e-7)


def test_sixteen_bit_gray_and_alpha_keeps_its_profile(photo: NDArray[np.uint8], profiles: dict[str, bytes]) -> None:
    """Pillow cannot open this kind at all."""
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
    picture = read_picture(tiff(deep(photo, 2), iccprofile=profiles["gray"], **options))
    assert (picture.origin.icc, picture.origin.gray, picture.origin.bits) == (profiles["gray"], True, 16)


def test_tiffs_of_other_colour_models_are_refused_in_words(
    photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PictureError, match=r"16-bit TIFF of this colour model \(8\) is not read; save it as RGB"):
        read_picture(tiff(deep(photo, 3), photometric="cielab"))
    monkeypatch.setattr(decode, "plain_tiff", lambda _: False)  # as for a compression that tifffile leaves to Pillow
    premultiplied = tiff(photo[:, :, :2], photometric="minisblack", planarconfig="contig", extrasamples=["assocalpha"])
    with pytest.raises(PictureError, match="La samples are not read; save it as RGB"):
        read_picture(premultiplied)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int16, np.uint32])
def test_samples_that_are_not_8_or_16_bit_integers_are_refused_in_words(kind: type) -> None:
    with pytest.raises(PictureError, match=f"{kind.__name__} samples are not read; save it with 8 or 16 bits"):
        read_picture(tiff(np.zeros((5, 7), kind)))


def test_cmyk_jpeg_with_and_without_a_profile(photo: NDArray[np.uint8], saved: Save, cmyk_profile: bytes) -> None:
    image = Image.fromarray(photo).convert("CMYK")
    picture = read_picture(saved(image, "JPEG", quality=98, subsampling=0))
    assert picture.notes == (
        "converted from CMYK without a profile, so colours are approximate; results are saved as sRGB",
    )
    assert np.abs(picture.pixels - np.asarray(image.convert("RGB")) / np.float32(255)).mean() < 0.02
    assert (picture.origin.icc, picture.origin.gray) == (None, False)

    profile = cmyk_profile
    tagged = read_picture(saved(image, "TIFF", icc_profile=profile))
    assert tagged.notes == ("converted from CMYK by its profile; results are saved as sRGB",)
    assert tagged.origin.icc is None
    by_pillow = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert by_pillow is not None
    np.testing.assert_allclose(tagged.pixels * 255, np.asarray(by_pillow), atol=1.01)


def test_lab_tiff(photo: NDArray[np.uint8], saved: Save) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(photo), srgb, lab, outputMode="LAB")
    assert image is not None
    picture = read_picture(saved(image, "TIFF"))
    assert np.abs(picture.pixels - photo / np.float32(255)).mean() < 0.01
    assert picture.notes == ()


@pytest.mark.parametrize("format_", ["WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_read(photo: NDArray[np.uint8], saved: Save, format_: str) -> None:
    others = [Image.fromarray(np.roll(photo, shift, axis=1)) for shift in (40, 80)]
    options = {"lossless": True} if format_ == "WEBP" else {}
    data = saved(photo, format_, save_all=True, append_images=others, **options)
    picture = read_picture(data)
    assert picture.notes == (f"first of 3 {'pages' if format_ == 'TIFF' else 'frames'}",)
    np.testing.assert_allclose(picture.pixels, photo / np.float32(255), atol=1e-6)
    assert read_header(data).frames == 3


def heic(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, **options)
    return out.getvalue()


def test_heic(photo: NDArray[np.uint8], profiles: dict[str, bytes]) -> None:
    image = Image.fromarray(photo)
    image.info["icc_profile"] = profiles["display-p3"]
    image.info["xmp"] = b"<x:xmpmeta>kept</x:xmpmeta>"
    picture = read_picture(heic(image, quality=95))
    assert (picture.origin.format, picture.origin.bits) == ("HEIF", 8)
    assert picture.origin.icc == profiles["display-p3"]
    assert picture.origin.xmp is not None
    assert b"kept" in picture.origin.xmp


def test_heic_of_ten_bits_keeps_them() -> None:
    ramp = np.linspace(0, 65535, 512).astype(np.uint16)[None, :, None].repeat(64, axis=0).repeat(3, axis=2)
    out = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (512, 64), ramp.tobytes()).save(out, quality=100, chroma=444)
    picture = read_picture(out.getvalue())
    assert picture.origin.bits == 16
    assert len(np.unique(picture.pixels[32, :, 1])) > 300
    assert np.abs(picture.pixels - ramp / np.float32(65535)).max() < 0.02


def test_heic_without_its_package_says_what_to_install(
    photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = heic(Image.fromarray(photo))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ExtraMissing, match=re.escape(install_command("heic"))):
        read_picture(data)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_very_small_pictures(saved: Save, size: tuple[int, int], format_: str) -> None:
    picture = read_picture(saved(Image.new("RGB", size, (255, 255, 255)), format_))
    assert (picture.width, picture.height) == size
    np.testing.assert_allclose(picture.pixels, 1, atol=0.02)


def test_what_is_not_a_picture_is_named_in_one_line(tmp_path: Path, photo: NDArray[np.uint8], saved: Save) -> None:
    def reading(name: str, content: bytes | None = None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(PictureError) as error:
            read_picture(tmp_path / name)
        message = str(error.value)
        assert message.startswith(str(tmp_path / name))
        assert "\n" not in message
        return message.removeprefix(f"{tmp_path / name}: ")

    assert reading("missing.jpg") == "no such file."
    assert reading("empty.jpg", b"") == "the file is empty."
    assert reading("text.jpg", b"Dear all, the photo is") == (
        "this is not a picture; JPEG, PNG, WebP, TIFF and HEIC are read."
    )
    assert reading("short.png", b"\x89PNG").startswith("this is not a picture")
    assert reading("anim.png", saved(photo, "GIF")).startswith("this is a GIF;")
    assert reading("new.jpg", saved(photo, "AVIF")).startswith("this is an AVIF;")
    assert reading("clip.jpg", b"\0\0\0\x20ftypisom" + bytes(20)).startswith("this is a video;")
    assert reading("raw.tif", b"II*\0\x10\0\0\0CR\x02\0" + bytes(20)).startswith("this is a camera raw file;")
    (tmp_path / "folder.jpg").mkdir()
    assert reading("folder.jpg") == "this is a folder, not a picture."
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reading("pipe.jpg") == "not a regular file."
    with pytest.raises(PictureError, match="cannot be opened"):
        read_picture("nul\0byte.jpg")
    with pytest.raises(UnsupportedFormat):
        read_picture(b"text")


def test_a_file_one_may_not_open(tmp_path: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by a stand-in for the operating system: permission bits do not stop root."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "private.png"
    Image.fromarray(photo).save(file)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PictureError, match=r"private.png: cannot be opened \(Permission denied\)"):
        read_picture(file)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_half_a_file_is_an_error_not_half_a_picture(
    photo: NDArray[np.uint8], saved: Save, format_: str, options: dict[str, Any], part: float
) -> None:
    data = saved(photo, format_, **options)
    with pytest.raises(PictureError, match=r"picture: damaged or truncated picture \("):
        read_picture(data[: int(len(data) * part)])


def test_half_a_sixteen_bit_file_too(photo: NDArray[np.uint8]) -> None:
    for data in (bytes(imagecodecs.png_encode(deep(photo, 3))), tiff(deep(photo, 3)), heic(Image.fromarray(photo))):
        with pytest.raises(PictureError):
            read_picture(data[: len(data) // 2])


def test_running_out_of_memory_is_said(photo: NDArray[np.uint8], saved: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decode, "_samples", full)
    with pytest.raises(OutOfMemory, match="picture: not enough memory to decode it"):
        read_picture(saved(photo, "PNG"))


def test_large_pictures_within_the_limit_give_no_warning(saved: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own process-wide limit (a warning, an error at twice) is not ours."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for format_, options in (("PNG", {}), ("JPEG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})):
        assert read_picture(saved(Image.new("RGB", (100, 90)), format_, **options)).width == 100
    with pytest.raises(PictureError, match="--max-megapixels"):
        read_picture(saved(Image.new("RGB", (100, 90)), "TIFF"), limits=Limits.megapixels(0.008))
    with pytest.raises(PictureTooLarge, match="picture: not read, Image size"):  # libwebp's canvas: Pillow insists
        read_picture(saved(Image.new("RGB", (100, 90)), "WEBP"))


@pytest.mark.parametrize("where", ["to_srgb", "usable_profile", "make_profile"])
def test_running_out_of_memory_in_the_colours_is_said_too(
    photo: NDArray[np.uint8], saved: Save, profiles: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(colour, where, full)
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA001: 0xFFFF, 0xA005: {1: "R03"}})
    profile = {} if where == "make_profile" else {"icc_profile": profiles["display-p3"]}
    with pytest.raises(OutOfMemory, match="picture: not enough memory to decode 226×149 pixels"):
        read_picture(saved(photo, "JPEG", exif=exif, **profile))


def test_threads_decode_at_once_only_what_fits_into_half_of_the_memory(
    photo: NDArray[np.uint8], saved: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(photo, "PNG")
    monkeypatch.setattr(memory, "usable_memory", lambda: 2 * 226 * 149 * 24 * 2)
    running, most = [0], [0]
    real, lock = decode._read, threading.Lock()

    def counted(*args: Any) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        try:
            return real(*args)
        finally:
            with lock:
                running[0] -= 1

    monkeypatch.setattr(decode, "_read", counted)
    threads = [threading.Thread(target=read_picture, args=(data,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 2
