"""TIFF: every depth, ink and page; compressions that are read; strips that hold something else than they should."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
import skimage.data
import tifffile
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from rasr.errors import PictureError, PictureTooLarge, UnsupportedFormat
from rasr.images import Encoding, colour, encode_picture, read_header, read_picture

Save = Callable[..., bytes]


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def directory(entries: dict[int, tuple[int, int, int]], data: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory (tag → type, count, value) with ``data`` behind it."""
    body = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4) + data


def one_strip(width: int, height: int, bits: int, compression: int, data: bytes, count: int = 1) -> bytes:
    """A gray TIFF whose ``count`` strips all are the same bytes."""
    entries = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, bits), 259: (3, 1, compression), 262: (3, 1, 1),
        277: (3, 1, 1), 278: (4, 1, height // count),
    }  # fmt: skip
    start = 8 + 2 + 12 * 9 + 4
    if count == 1:
        return directory(entries | {273: (4, 1, start), 279: (4, 1, len(data))}, data)
    place = start + 8 * count
    arrays = struct.pack(f"<{count}I", *[place] * count) + struct.pack(f"<{count}I", *[len(data)] * count)
    entries |= {273: (4, count, start), 279: (4, count, start + 4 * count)}
    return directory(entries, arrays + data)


@pytest.mark.parametrize("colour", ["gray", "RGB"])
@pytest.mark.parametrize("bits", [*range(2, 17)])
def test_every_depth_up_to_sixteen_bits(bits: int, colour: str) -> None:
    top = 2**bits - 1
    samples = np.random.default_rng(bits).integers(0, top + 1, (20, 31) + ((3,) if colour == "RGB" else ()))
    samples.flat[:2] = 0, top
    options = {"photometric": "rgb" if colour == "RGB" else "minisblack", "bitspersample": bits}
    picture = read_picture(tiff(samples.astype(np.uint8 if bits <= 8 else np.uint16), **options))
    expected = samples / top if colour == "RGB" else (samples / top)[:, :, None].repeat(3, axis=2)
    np.testing.assert_allclose(picture.pixels, expected, atol=0.51 / (255 if bits <= 8 else 65535))
    assert (picture.pixels.reshape(-1, 3)[:2, 0] == [0, 1]).all() or colour == "RGB"
    assert picture.origin.bits == (8 if bits <= 8 else 16)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [4, 5])
def test_ink_of_both_depths_with_and_without_alpha(
    photo: NDArray[np.uint8], cmyk_profile: bytes, channels: int, bits: int
) -> None:
    """The sample maximum is the type's, with a profile and without; 8 and 16 bits give the same colours."""
    ink = np.asarray(Image.fromarray(photo).convert("CMYK"))
    cover = np.tile(np.linspace(0, 255, photo.shape[1]).round().astype(np.uint8), (photo.shape[0], 1))
    stored = np.dstack([ink, cover])[:, :, :channels].astype(np.uint8 if bits == 8 else np.uint16)
    stored *= 1 if bits == 8 else 257
    for profile in (None, cmyk_profile):
        options = {"extrasamples": ["unassalpha"] if channels == 5 else None, "iccprofile": profile}
        picture = read_picture(tiff(stored, photometric="separated", planarconfig="contig", **options))
        reference = read_picture(tiff(ink, photometric="separated", planarconfig="contig", iccprofile=profile))
        np.testing.assert_allclose(picture.pixels, reference.pixels, atol=6e-3)  # 8 bits go through tables
        if profile is None:
            np.testing.assert_allclose(picture.pixels, photo / 255, atol=1e-4)
        if channels == 5:
            np.testing.assert_allclose(picture.alpha, cover / 255, atol=1e-6)
        else:
            assert picture.alpha is None


def pages(*given: tuple[NDArray[Any], int], **options: Any) -> bytes:
    """Pages with their NewSubfileType."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out, **options) as writer:
        for array, kind in given:
            writer.write(array, photometric="rgb", subfiletype=kind, compression="deflate")
    return out.getvalue()


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=str)
@pytest.mark.parametrize("thumb", [8, 16])
@pytest.mark.parametrize("full", [8, 16])
@pytest.mark.parametrize("before", [1, 2])
def test_a_thumbnail_that_comes_first_is_not_the_picture(
    photo: NDArray[np.uint8], before: int, full: int, thumb: int, options: dict[str, Any]
) -> None:
    def deep(array: NDArray[np.uint8], bits: int) -> NDArray[Any]:
        return array if bits == 8 else array.astype(np.uint16) * 257

    small = deep(np.ascontiguousarray(photo[::8, ::8]), thumb)
    data = pages(*[(small, 1)] * before, (deep(photo, full), 0), **options)
    picture = read_picture(data)
    np.testing.assert_allclose(picture.pixels, photo / np.float32(255), atol=1e-6)
    assert picture.notes == (f"first full picture of {before + 1} pages; those before it are thumbnails or masks",)
    header = read_header(data)
    assert (header.width, header.height, header.bits, header.frames) == (226, 149, full, before + 1)


def test_a_thumbnail_alone_is_said_and_a_raw_file_refused(photo: NDArray[np.uint8]) -> None:
    alone = read_picture(pages((photo, 1)))
    assert alone.notes == ("the file says that this is a thumbnail, and has no other picture",)
    assert read_picture(pages((photo, 0), (photo, 1))).notes == ("first of 2 pages",)
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(photo[::4, ::4], photometric="rgb", subfiletype=1, subifds=1)
        writer.write(photo, photometric="rgb", subfiletype=0)
    with pytest.raises(UnsupportedFormat, match="camera raw file, or a TIFF of which only the thumbnail can be read"):
        read_picture(out.getvalue())


CODECS: dict[int, Callable[[NDArray[Any]], bytes]] = {
    34712: lambda array: bytes(imagecodecs.jpeg2k_encode(array)),
    50001: lambda array: bytes(imagecodecs.webp_encode(np.ascontiguousarray(array[:, :, None].repeat(3, axis=2)))),
    50002: lambda array: bytes(imagecodecs.jpegxl_encode(array)),
    7: lambda array: bytes(imagecodecs.jpeg8_encode(array)),
    34887: lambda array: bytes(imagecodecs.lerc_encode(array)),
}


@pytest.mark.parametrize("side", [16, 400])
@pytest.mark.parametrize("compression", CODECS)
def test_sixteen_bits_hold_no_file_of_another_format(compression: int, side: int) -> None:
    """A picture inside, of the declared size or another, is not decoded: the list of compressions is closed."""
    inside = CODECS[compression](np.full((side, side), 200, np.uint8))
    for bits in (16,) if compression in {7, 50001} else (8, 16):
        with pytest.raises(PictureError, match=f"TIFF.* with compression {compression} is not read; save it with"):
            read_picture(one_strip(16, 16, bits, compression, inside))


@pytest.mark.parametrize("compression", [7, 50001])
def test_a_strip_larger_than_it_says_is_refused_before_it_is_decoded(
    compression: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoding(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    from PIL import ImageFile, TiffImagePlugin

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", decoding)
    inside = CODECS[compression](np.full((400, 400), 200, np.uint8))
    with pytest.raises(PictureError, match="header and content disagree"):
        read_picture(one_strip(16, 16, 8, compression, inside))


@pytest.mark.parametrize("compression", [1, 5, 8, 32773, 34925, 50000])
@pytest.mark.parametrize("bits", [8, 16])
def test_strips_that_share_their_bytes_are_no_more_work_than_the_declared_size(compression: int, bits: int) -> None:
    """A thousand strips of 64 pixels, each of which would be half a megabyte to decompress."""
    data = np.random.default_rng(0).integers(0, 256, 1 << 19, np.uint8).tobytes()
    with pytest.raises(PictureError, match="strips hold more than the picture has"):
        read_picture(one_strip(64, 1000, bits, compression, data, count=1000))


def test_strips_are_counted() -> None:
    count = 600_000
    with pytest.raises(PictureTooLarge, match="of metadata or stray data"):
        read_picture(one_strip(1, count, 8, 8, b"x", count=count))


def test_strips_that_are_the_same_are_fine() -> None:
    """Writers store equal tiles once."""
    import zlib

    picture = read_picture(one_strip(64, 100, 8, 8, zlib.compress(bytes([77]) * 64), count=100))
    np.testing.assert_allclose(picture.pixels, 77 / 255, atol=1e-6)


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.98])
@pytest.mark.parametrize("planar", [False, True])
def test_a_jpeg_inside_that_ends_early_is_refused(
    photo: NDArray[np.uint8], planar: bool, cut: float, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"compression": "jpeg", "rowsperstrip": 48}
    if planar:
        data = tiff(np.moveaxis(photo, 2, 0), photometric="rgb", planarconfig="separate", **options)
    else:
        data = tiff(photo, photometric="ycbcr", **options)
    assert read_picture(data).width == 226
    with tifffile.TiffFile(io.BytesIO(data)) as parsed:
        page = parsed.pages[0]
        start, length = page.dataoffsets[1], page.databytecounts[1]
    kept = int(length * cut)
    broken = data[: start + kept] + b"\xff\xd9" + bytes(length - kept - 2) + data[start + length :]
    with pytest.raises(PictureError, match="damaged or truncated"):
        read_picture(broken)
    assert capfd.readouterr().err == ""


def test_scans_inside_are_counted(saved: Save) -> None:
    data = saved(Image.new("L", (64, 64), 90), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    flood = data[:-2] + scan * 200 + b"\xff\xd9"
    with pytest.raises(PictureTooLarge, match="more than 100 scans"):
        read_picture(one_strip(64, 64, 8, 7, flood))


def test_tags_that_share_their_bytes_are_refused() -> None:
    entries = {1000 + index: (7, 40_000_000, 8) for index in range(5000)}
    entries |= {256: (3, 1, 1), 257: (3, 1, 1), 258: (3, 1, 8), 262: (3, 1, 1), 273: (4, 1, 8), 279: (4, 1, 1)}
    with pytest.raises(PictureTooLarge, match="of metadata or stray data"):
        read_header(directory(entries, bytes(40_000_000)))


def test_what_is_written_has_the_density_the_exif_and_the_gps(photo: NDArray[np.uint8], saved: Save) -> None:
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 118.0, 118.0, 3
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5)})
    picture = read_picture(saved(photo, "WEBP", exif=exif))
    with tifffile.TiffFile(io.BytesIO(encode_picture(picture, "TIFF", Encoding(software="RASR")))) as file:
        tags = file.pages.first.tags
        assert (tags["XResolution"].value, tags["ResolutionUnit"].value) == ((118, 1), 3)
        assert tags["GPSTag"].value["GPSLatitude"] == (48, 1, 51, 1, 59, 2)
        assert tags["Software"].value == "RASR"


FAX = {"group4": (4, 0), "group3": (3, 0), "group3 2D": (3, 1), "group3 aligned": (3, 4), "tiff_ccitt": (2, 0)}
"""Pillow's name → compression and T4Options."""


@pytest.fixture(scope="module")
def page() -> Image.Image:
    """A scanned page of text."""
    return Image.fromarray(skimage.data.page()).convert("1")


def fax(page: Image.Image, kind: str, order: int, cut: Callable[[bytes], bytes] = bytes) -> bytes:
    """A page as a TIFF of one strip, cut as said, with a FillOrder (2: the lowest bit first)."""
    compression, options = FAX[kind]
    out = io.BytesIO()
    page.save(out, "TIFF", compression=kind.partition(" ")[0], tiffinfo={292: options} if compression == 3 else {})
    out.seek(0)
    with tifffile.TiffFile(out) as file:
        (offset,), (count,) = file.pages.first.dataoffsets, file.pages.first.databytecounts
    strip = np.frombuffer(cut(out.getvalue()[offset : offset + count]), np.uint8)
    if order == 2:
        strip = np.packbits(np.unpackbits(strip, bitorder="little"))
    entries = {
        256: (4, 1, page.width), 257: (4, 1, page.height), 258: (3, 1, 1), 259: (3, 1, compression), 262: (3, 1, 1),
        266: (3, 1, order), 273: (4, 1, 8 + 2 + 12 * 11 + 4), 277: (3, 1, 1), 278: (4, 1, page.height),
        279: (4, 1, len(strip)), 292: (4, 1, options),
    }  # fmt: skip
    return directory(entries, strip.tobytes())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", FAX)
def test_a_fax_that_is_whole_is_read(page: Image.Image, kind: str, order: int) -> None:
    picture = read_picture(fax(page, kind, order))
    assert picture.notes == ()
    assert np.array_equal(picture.pixels[:, :, 0] > 0.5, np.asarray(page))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("how", ["shorter", "zeroed", "hole"])
@pytest.mark.parametrize("kind", FAX)
def test_a_fax_cut_in_its_strip_is_refused(page: Image.Image, kind: str, how: str, part: float, order: int) -> None:
    """libtiff leaves the rest white, or makes it up, and says nothing to its caller."""

    def cut(strip: bytes) -> bytes:
        place = int(len(strip) * part)
        kept = strip[:place]
        if how == "hole":
            place = min(place, len(strip) - 700)
            return strip[:place] + bytes(600) + strip[place + 600 :]
        return kept if how == "shorter" else kept + bytes(len(strip) - place)

    with pytest.raises(PictureError, match="damaged or truncated"):
        read_picture(fax(page, kind, order, cut))


@pytest.mark.parametrize("kind", ["group4", "group3", "tiff_ccitt"])
def test_a_fax_of_many_strips_is_read_and_each_counts(
    page: Image.Image, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TiffImagePlugin, "STRIP_SIZE", 1024)
    out = io.BytesIO()
    page.save(out, "TIFF", compression=kind)
    out.seek(0)
    with tifffile.TiffFile(out) as file:
        offset, count = file.pages.first.dataoffsets[-1], file.pages.first.databytecounts[-1]
        assert len(file.pages.first.dataoffsets) > 5
    data = out.getvalue()
    assert np.array_equal(read_picture(data).pixels[:, :, 0] > 0.5, np.asarray(page))
    with pytest.raises(PictureError, match="damaged or truncated"):
        read_picture(data[: offset + count // 2] + bytes(count - count // 2) + data[offset + count :])


P3 = (0.3127, 0.3290, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
"""Display P3: white, red, green, blue."""


def colorimetry(points: tuple[float, ...] | None, curve: list[int] | None) -> list[Any]:
    """Tags WhitePoint, PrimaryChromaticities and TransferFunction, as tifffile writes them."""
    tags: list[Any] = []
    if points:
        ratios = [number for value in points for number in (round(value * 10_000), 10_000)]
        tags += [(318, 5, 2, ratios[:4], True), (319, 5, 6, ratios[4:], True)]
    return [*tags, (301, 3, len(curve), curve, True)] if curve else tags


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_curve_of_a_tiff_is_applied_and_kept(bits: int, channels: int) -> None:
    """Samples that are linear light: 55 of 255 is sRGB's 128."""
    levels = [round(value * 65535 / ((1 << bits) - 1)) for value in range(1 << bits)]
    array = np.full((8, 9) if channels == 1 else (8, 9, 3), 55 if bits == 8 else 55 * 257, f"uint{bits}")
    options = {"photometric": "rgb" if channels == 3 else "minisblack"}
    picture = read_picture(tiff(array, **options, extratags=colorimetry(None, levels * channels)))
    assert np.abs(picture.pixels * 255 - 128.1).max() < 0.5
    again = read_picture(encode_picture(picture, "PNG"))
    assert np.abs(again.pixels - picture.pixels).max() < 1 / 255


@pytest.mark.parametrize("bits", [8, 16])
def test_primaries_of_a_tiff_are_applied_and_kept(photo: NDArray[np.uint8], bits: int) -> None:
    """As the ICC profile of the same primaries and curve does it."""
    array = photo if bits == 8 else photo.astype(np.uint16) * 257
    picture = read_picture(tiff(array, photometric="rgb", extratags=colorimetry(P3, None)))
    profile = colour.make_profile("rgb", P3, None)
    expected = read_picture(tiff(array, photometric="rgb", iccprofile=profile))
    assert np.abs(picture.pixels - expected.pixels).max() < 1e-3
    assert picture.pixels[:, :, 0].max() > photo[:, :, 0].max() / 255
    assert picture.origin.icc


def test_a_tiff_that_says_it_is_srgb_is_left_alone(photo: NDArray[np.uint8], profiles: dict[str, bytes]) -> None:
    """ImageMagick writes these tags into all it saves. An embedded profile counts before them."""
    data = tiff(photo, photometric="rgb", extratags=colorimetry(colour.SRGB_POINTS, None))
    assert read_picture(data).origin.icc is None
    both = tiff(photo, photometric="rgb", iccprofile=profiles["adobe-rgb"], extratags=colorimetry(P3, None))
    assert read_picture(both).origin.icc == profiles["adobe-rgb"]


@pytest.mark.parametrize(
    ("points", "curve"),
    [((0.3, 0.3, 0, 0, 0, 0, 0, 0), None), ((0, 0, *P3[2:]), None), (None, [0, 65535]), (None, [*range(768)])],
)
def test_impossible_colours_of_a_tiff_are_said(
    photo: NDArray[np.uint8], points: tuple[float, ...] | None, curve: list[int] | None
) -> None:
    picture = read_picture(tiff(photo, photometric="rgb", extratags=colorimetry(points, curve)))
    assert np.array_equal(np.rint(picture.pixels * 255), photo)
    assert [note[:34] for note in picture.notes] == ["the colour description is impossib"]


def test_layers_of_photoshop_are_let_by_and_other_blocks_counted(photo: NDArray[np.uint8]) -> None:
    """Layers are often larger than the picture; XMP has 64 MiB like that of other formats."""
    large = bytes(70 << 20)
    for tag, kind, content in ((37724, 7, large), (700, 1, large[: 60 << 20])):
        data = tiff(photo, photometric="rgb", extratags=[(tag, kind, len(content), content, True)])
        assert np.array_equal(np.rint(read_picture(data).pixels * 255), photo)
    with pytest.raises(PictureTooLarge, match="64 MiB of metadata"):
        read_picture(tiff(photo, photometric="rgb", extratags=[(700, 1, len(large), large, True)]))
