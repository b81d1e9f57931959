"""EXIF, XMP and IPTC through reading and writing."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, IptcImagePlugin
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from rasr.images import Encoding, encode_picture, exif, losses, read_picture
from rasr.images.decode import _upright
from rasr.images.picture import Origin, Picture
from rasr.images.xmp import clean_xmp

Save = Callable[..., bytes]
WRITTEN = ["JPEG", "PNG", "WEBP", "TIFF"]

IPTC = b"\x1c\x02\x78\x00\x07caption\x1c\x02\x50\x00\x06author"


def camera_exif(orientation: int = 6) -> Image.Exif:
    """What a camera writes: maker, place, time, a maker note, sizes, and a thumbnail directory."""
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0110] = "Model"
    exif[0x0112] = orientation
    exif[0x011A] = 300.0
    exif[0x011B] = 300.0
    exif[0x0128] = 2
    exif[0x0131] = "camera firmware 1.0"
    exif[0x010E] = "my caption"
    exif[0x8298] = "(c) me"
    exif.get_ifd(0x8769).update(
        {
            0x829A: 0.004,
            0x8827: 400,
            0x9003: "2024:06:01 12:00:00",
            0x927C: b"maker note " * 4,
            0xA002: 226,
            0xA003: 149,
            0xA001: 1,
            0xA434: "50mm f/1.8",
            0xA005: {1: "R98", 2: b"0100"},
        }
    )
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5), 3: "E", 4: (2.0, 17.0, 40.25)})
    return exif


def written(content: bytes) -> tuple[Image.Exif, dict[str, Any]]:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image.getexif(), dict(image.info)


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("target", WRITTEN)
def test_metadata_crosses_from_every_format_to_every_other(
    photo: NDArray[np.uint8], saved: Save, source: str, target: str
) -> None:
    picture = read_picture(saved(photo, source, exif=camera_exif().tobytes()))
    assert (picture.width, picture.height) == (149, 226)
    doubled = picture.with_pixels(np.repeat(np.repeat(picture.pixels, 2, axis=0), 2, axis=1))
    exif, _ = written(encode_picture(doubled, target))
    assert exif[0x010F] == "Maker"
    assert exif[0x010E] == "my caption"
    assert exif[0x8298] == "(c) me"
    assert float(exif[0x011A]) == 300
    assert exif.get(0x0112, 1) == 1
    details, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    assert details[0x9003] == "2024:06:01 12:00:00"
    assert float(details[0x829A]) == 0.004
    assert details[0x8827] == 400
    assert details[0x927C] == b"maker note " * 4
    assert (details[0xA002], details[0xA003]) == (298, 452)
    assert details[0xA434] == "50mm f/1.8"
    if source != "TIFF":  # Pillow writes a wrong pointer there
        assert exif.get_ifd(0xA005)[1] == "R98"
    assert place[1] == "N"
    assert [float(value) for value in place[2]] == [48, 51, 29.5]


@pytest.mark.parametrize("target", WRITTEN)
def test_strip_leaves_nothing_but_the_profile(
    photo: NDArray[np.uint8], saved: Save, profiles: dict[str, bytes], target: str
) -> None:
    picture = read_picture(
        saved(
            photo, "JPEG", exif=camera_exif(), icc_profile=profiles["display-p3"], xmp=b"<x:xmpmeta>secret</x:xmpmeta>"
        )
    )
    content = encode_picture(picture, target, Encoding(metadata="strip"))
    exif, info = written(content)
    assert not exif.get_ifd(0x8825)
    assert not exif.get_ifd(0x8769)
    assert 0x010F not in exif
    assert info["icc_profile"] == profiles["display-p3"]
    for secret in (b"secret", b"Maker", b"my caption"):
        assert secret not in content
    kept = encode_picture(picture, target)
    assert b"secret" in kept
    assert b"Maker" in kept


@pytest.mark.parametrize("metadata", ["keep", "strip"])
@pytest.mark.parametrize("target", WRITTEN)
def test_software_and_settings_are_written(photo: NDArray[np.uint8], saved: Save, target: str, metadata: Any) -> None:
    picture = read_picture(saved(photo, "JPEG", exif=camera_exif()))
    encoding = Encoding(metadata=metadata, software="RASR 1.0", description='{"reference": "é.jpg"}')
    exif, _ = written(encode_picture(picture, target, encoding))
    assert exif[0x0131] == "RASR 1.0"
    assert exif.get_ifd(0x8769)[0x9213] == '{"reference": "\\xe9.jpg"}'
    assert exif.get(0x010E) == ("my caption" if metadata == "keep" else None)


@pytest.mark.parametrize("target", WRITTEN)
def test_a_picture_without_metadata_gets_none(photo: NDArray[np.uint8], saved: Save, target: str) -> None:
    exif, info = written(encode_picture(read_picture(saved(photo, "PNG")), target))
    assert 0x8769 not in exif
    assert 0x0131 not in exif
    assert not info.get("icc_profile")
    assert not info.get("xmp")


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("target", WRITTEN)
def test_xmp_is_kept_with_its_orientation_reset(
    photo: NDArray[np.uint8], saved: Save, png_chunk: Callable[[bytes, bytes], bytes], source: str, target: str
) -> None:
    packet = b'<x:xmpmeta><a tiff:Orientation="8" dc:title="Lion"/><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    if source == "PNG":
        data = saved(photo, "PNG")
        data = data[:33] + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet) + data[33:]
    elif source == "TIFF":
        data = saved(photo, "TIFF", tiffinfo={700: packet})
    else:
        data = saved(photo, source, xmp=packet)
    picture = read_picture(data)
    expected = packet.replace(b'"8"', b'"1"').replace(b">6<", b">1<")
    assert picture.origin.xmp == expected
    assert read_picture(encode_picture(picture, target)).origin.xmp == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF LZW", "TIFF JPEG", "TIFF 16", "PNG 16"])
def test_pixels_and_alpha_come_upright(photo: NDArray[np.uint8], saved: Save, orientation: int, format_: str) -> None:
    """What must come out is built with flips and turns named as the EXIF standard names them."""
    turned = {
        1: photo,
        2: photo[:, ::-1],
        3: np.rot90(photo, 2),
        4: photo[::-1],
        5: photo.swapaxes(0, 1),
        6: np.rot90(photo, -1),
        7: np.rot90(photo, 2).swapaxes(0, 1),  # mirrored along the other diagonal
        8: np.rot90(photo, 1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    container, _, kind = format_.partition(" ")
    if kind == "16":
        deep = Picture(photo / np.float32(255), photo[:, :, 0] / np.float32(255), Origin(bits=16))
        picture = read_picture(_oriented(encode_picture(deep, container), container, orientation))
        assert picture.alpha is not None
        np.testing.assert_allclose(picture.alpha, turned[orientation][:, :, 0] / np.float32(255), atol=1e-6)
    else:
        options = {"LZW": {"compression": "tiff_lzw"}, "JPEG": {"compression": "jpeg", "quality": 95}}.get(kind, {})
        lossless = {"lossless": True} if container == "WEBP" else {}
        picture = read_picture(saved(photo, container, exif=exif, **options, **lossless))
    expected = turned[orientation] / np.float32(255)
    assert picture.pixels.shape == expected.shape
    assert picture.pixels.flags.c_contiguous
    assert np.abs(picture.pixels - expected).mean() < (0.03 if "JPEG" in format_ else 1e-6)


def _oriented(data: bytes, container: str, orientation: int) -> bytes:
    """A file that we wrote upright, with an orientation put in afterwards."""
    if container == "PNG":
        exif = Image.Exif()
        exif[0x0112] = orientation
        body = exif.tobytes()[6:]
        chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
        return data[:33] + chunk + data[33:]
    # TIFF: turn an entry nobody needs here (ResolutionUnit, 296) into Orientation (274); readers do not mind the order.
    old = struct.pack("<HHI", 296, 3, 1)
    assert data.count(old) == 1
    place = data.index(old)
    return data[:place] + struct.pack("<HHIHH", 274, 3, 1, orientation, 0) + data[place + 12 :]


def test_upright_is_pillow_s_transpose(photo: NDArray[np.uint8]) -> None:
    from PIL import ImageOps

    for orientation in range(1, 9):
        image = Image.fromarray(photo)
        image.getexif()[0x0112] = orientation
        transposed = ImageOps.exif_transpose(image)
        assert transposed is not None
        np.testing.assert_array_equal(_upright(photo, orientation), np.asarray(transposed))


@pytest.mark.parametrize("source", ["JPEG", "TIFF"])
def test_iptc_captions_are_kept_where_there_is_a_place(photo: NDArray[np.uint8], saved: Save, source: str) -> None:
    if source == "JPEG":
        resource = b"8BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC + b"\0" * (len(IPTC) % 2)
        body = b"Photoshop 3.0\0" + resource
        data = saved(photo, "JPEG", extra=b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body)
    else:
        data = saved(photo, "TIFF", tiffinfo={33723: IPTC})
    picture = read_picture(data)
    assert picture.origin.iptc is not None
    assert picture.origin.iptc.rstrip(b"\0") == IPTC
    for target in ("JPEG", "TIFF"):
        assert losses(picture, f"a.{target.lower()}") == ()
        with Image.open(io.BytesIO(encode_picture(picture, target))) as image:
            records = IptcImagePlugin.getiptcinfo(image)
        assert records is not None
        assert records[(2, 120)] == b"caption"
        assert records[(2, 80)] == b"author"
    assert "IPTC" in losses(picture, "a.png")[0]


def test_blocks_too_long_for_a_jpeg_segment(photo: NDArray[np.uint8], saved: Save) -> None:
    exif = camera_exif()
    exif.get_ifd(0x8769)[0x927C] = bytes(70_000)
    picture = read_picture(saved(photo, "PNG", exif=exif))
    found = losses(picture, "a.jpg")
    assert len(found) == 1
    assert "maker note" in found[0]
    result, _ = written(encode_picture(picture, "JPEG", Encoding(software="RASR")))
    assert 0x927C not in result.get_ifd(0x8769)
    assert result.get_ifd(0x8769)[0x9003] == "2024:06:01 12:00:00"
    assert result[0x0131] == "RASR"

    exif.get_ifd(0x8769)[0x9286] = bytes(70_000)  # a comment as long: now nothing of it fits
    huge = read_picture(saved(photo, "PNG", exif=exif))
    result, _ = written(encode_picture(huge, "JPEG", Encoding(software="RASR", description="x" * 70_000)))
    assert dict(result) == {0x0131: "RASR"}

    long_xmp = Picture(picture.pixels, origin=Origin(xmp=b"<x>" + bytes(70_000), iptc=bytes(70_000)))
    assert len(losses(long_xmp, "a.jpg")) == 2
    _, info = written(encode_picture(long_xmp, "JPEG"))
    assert "xmp" not in info
    assert "photoshop" not in info


def test_a_damaged_exif_block_costs_the_block_not_the_picture(photo: NDArray[np.uint8], saved: Save) -> None:
    block = bytearray(camera_exif().tobytes())
    for index in range(40, len(block), 3):
        block[index] ^= 0xA5
    picture = read_picture(saved(photo, "JPEG", exif=bytes(block)))
    assert picture.width in {149, 226}
    encode_picture(picture, "JPEG")


def test_an_exif_block_that_defeats_the_parser_is_said(
    photo: NDArray[np.uint8], saved: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(photo, "JPEG", exif=camera_exif())

    def broken(*_: object, **__: object) -> None:
        raise struct.error("unpack")

    monkeypatch.setattr(exif, "_load", broken)
    picture = read_picture(data)
    assert picture.notes == ("the EXIF block is damaged and was left out (error)",)
    assert picture.origin.exif is None
    assert picture.width == 149  # still upright


def test_tags_of_unusual_types_reach_a_tiff(photo: NDArray[np.uint8], saved: Save) -> None:
    """Bytes, a number, a resolution of zero: written as they are, or left out."""
    exif = Image.Exif()
    exif[0x9C9B] = "Lion".encode("utf-16-le")
    exif[0x4746] = 5
    exif[0x011A] = IFDRational(0, 0)
    exif[0x011B] = 300.0
    picture = read_picture(saved(photo, "PNG", exif=exif))
    result, _ = written(encode_picture(picture, "TIFF"))
    assert bytes(result[0x9C9B]).decode("utf-16-le").rstrip("\0") == "Lion"
    assert result[0x4746] == 5
    assert float(result[0x011A]) == 1  # TIFF's own default


def test_iptc_declared_as_long_words(photo: NDArray[np.uint8]) -> None:
    words = IPTC + b"\0" * (-len(IPTC) % 4)
    for order in ("<", ">"):
        out = io.BytesIO()
        values = struct.unpack(f"{order}{len(words) // 4}I", words)
        tifffile.imwrite(
            out, photo, photometric="rgb", byteorder=order, extratags=[(33723, 4, len(values), values, True)]
        )
        assert read_picture(out.getvalue()).origin.iptc == words


def test_xmp_written_as_text_in_a_png_counts(photo: NDArray[np.uint8]) -> None:
    out, chunks = io.BytesIO(), PngInfo()
    chunks.add_text("XML:com.adobe.xmp", "<x>tiff:Orientation='3'</x>")
    Image.fromarray(photo).save(out, "PNG", pnginfo=chunks)
    picture = read_picture(out.getvalue())
    assert picture.origin.xmp == b"<x>tiff:Orientation='1'</x>"
    assert picture.origin.texts == ()
    assert clean_xmp(b"\0\0") == (None, [])


def test_a_thumbnail_is_dropped(photo: NDArray[np.uint8], saved: Save) -> None:
    thumbnail = saved(photo[:40, :40], "JPEG")
    block = camera_exif(1).tobytes()
    with Image.open(io.BytesIO(saved(photo, "JPEG", exif=block + thumbnail))) as image:
        assert thumbnail in image.info["exif"]
        data = io.BytesIO()
        image.save(data, "JPEG", exif=image.info["exif"])
    assert thumbnail in data.getvalue()
    assert thumbnail not in encode_picture(read_picture(data.getvalue()), "JPEG")


DENSITIES = {
    "JPEG inch": ("JPEG", {"dpi": (300, 300)}, (300, 300, "inch")),
    "JPEG not square": ("JPEG", {"dpi": (200, 100)}, (200, 100, "inch")),
    "PNG": ("PNG", {"dpi": (300, 300)}, (11811, 11811, "m")),
    "TIFF inch": ("TIFF", {"dpi": (72.5, 72.5)}, (72.5, 72.5, "inch")),
    "TIFF cm": ("TIFF", {"resolution_unit": "cm", "x_resolution": 118.0, "y_resolution": 118.0}, (118, 118, "cm")),
}


def stated(content: bytes, format_: str) -> tuple[float, float]:
    """Pixels per inch, as Pillow finds them in the container itself."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        if format_ == "WEBP":
            exif = image.getexif()
            assert exif[0x0128] in {2, 3}
            factor = 2.54 if exif[0x0128] == 3 else 1.0
            return float(exif[0x011A]) * factor, float(exif[0x011B]) * factor
        if format_ == "JPEG":
            factor = {1: 1.0, 2: 2.54}[image.info["jfif_unit"]]
            across, down = image.info["jfif_density"]
            return across * factor, down * factor
        across, down = image.info["dpi"]
        return float(across), float(down)


@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize("kind", DENSITIES)
def test_a_result_of_any_size_has_the_density_of_the_file(
    photo: NDArray[np.uint8], saved: Save, kind: str, target: str
) -> None:
    source, options, expected = DENSITIES[kind]
    picture = read_picture(saved(photo, source, **options))
    assert picture.origin.density == pytest.approx(expected)
    doubled = picture.with_pixels(np.repeat(np.repeat(picture.pixels, 2, axis=0), 2, axis=1))
    across, down, unit = expected
    per_inch = {"inch": 1.0, "cm": 2.54, "m": 0.0254}[unit]
    for encoding in (Encoding(), Encoding(software="RASR"), Encoding(metadata="strip")):
        if target == "WEBP" and encoding.metadata == "strip":
            continue  # EXIF is the only place it has
        found = stated(encode_picture(doubled, target, encoding), target)
        assert found == pytest.approx((across * per_inch, down * per_inch), abs=0.51)


def test_density_survives_the_same_format_exactly(photo: NDArray[np.uint8], saved: Save) -> None:
    for source, options, expected in DENSITIES.values():
        picture = read_picture(saved(photo, source, **options))
        assert read_picture(encode_picture(picture, source)).origin.density == pytest.approx(expected)
    cm = bytearray(saved(photo, "JPEG", dpi=(118, 118)))
    cm[13] = 2
    assert read_picture(encode_picture(read_picture(bytes(cm)), "JPEG")).origin.density == (118, 118, "cm")


def test_the_shape_of_pixels_that_are_not_square(photo: NDArray[np.uint8], saved: Save) -> None:
    data = bytearray(saved(photo, "JPEG"))
    data[13:18] = struct.pack(">BHH", 0, 16, 15)
    picture = read_picture(bytes(data))
    assert picture.origin.density == (16, 15, "")
    assert read_picture(encode_picture(picture, "JPEG")).origin.density == (16, 15, "")
    assert read_picture(encode_picture(picture, "PNG")).origin.density == (16, 15, "")
    assert read_picture(encode_picture(picture, "TIFF")).origin.density == (16, 15, "")


def test_a_camera_s_exif_states_the_density_where_the_container_does_not(photo: NDArray[np.uint8], saved: Save) -> None:
    picture = read_picture(saved(photo, "WEBP", exif=camera_exif(1)))
    assert picture.origin.density == (300, 300, "inch")
    assert stated(encode_picture(picture, "PNG"), "PNG") == pytest.approx((300, 300), abs=0.1)
    assert read_picture(saved(photo, "JPEG")).origin.density is None
    nothing = read_picture(encode_picture(read_picture(saved(photo, "JPEG")), "PNG"))
    assert nothing.origin.density is None


def test_a_turned_picture_turns_its_density(photo: NDArray[np.uint8], saved: Save) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture(saved(photo, "JPEG", exif=exif, dpi=(200, 100))).origin.density == (100, 200, "inch")
