"""PNG: what its chunks say of colour, transparency and density; text; floods of chunks; rows that are missing."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import PictureError, PictureTooLarge
from rasr.images import encode_picture, losses, read_header, read_picture
from rasr.images.colour import make_profile

Save = Callable[..., bytes]
Chunk = Callable[[bytes, bytes], bytes]

COLOURS = np.array([[220, 40, 40], [40, 190, 60], [30, 60, 220], [0, 0, 0], [255, 255, 255], [7, 90, 200]])
SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
"""Linear Display P3 to linear sRGB, both D65 (CSS Color 4)."""


def linear(srgb: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4)


def encoded(light: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


@pytest.fixture
def png(png_chunk: Chunk) -> Callable[..., bytes]:
    """``png(samples, bits, *chunks)``: gray (H, W) or RGB (H, W, 3) integers as a PNG of that depth, chunks before
    the pixels."""

    def make(samples: NDArray[np.integer], bits: int, *chunks: tuple[bytes, bytes], cut: int | None = None) -> bytes:
        height, width = samples.shape[:2]
        raw = b""
        for row in samples.reshape(height, -1):
            packed = row.astype(">u2").tobytes() if bits == 16 else row.astype(np.uint8).tobytes()
            if bits < 8:
                planes = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
                packed = np.packbits(planes.reshape(-1)).tobytes()
            raw += b"\0" + packed
        header = struct.pack(">IIBBBBB", width, height, bits, 2 if samples.ndim == 3 else 0, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
        data += b"".join(png_chunk(kind, body) for kind, body in chunks)
        return data + png_chunk(b"IDAT", zlib.compress(raw[:cut])) + png_chunk(b"IEND", b"")

    return make


def gama(value: int) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", value)


def chrm(points: tuple[int, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *points)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("exponent", [1.0, 1 / 1.8, 1 / 2.6])
def test_gamma_is_applied_and_kept(png: Callable[..., bytes], exponent: float, bits: int) -> None:
    top = 2**bits - 1
    stored = np.rint(linear(COLOURS / 255) ** exponent * top).astype(np.uint16)
    picture = read_picture(png(stored[None], bits, gama(round(exponent * 1e5))))
    expected = encoded((stored / top) ** (1 / exponent))
    np.testing.assert_allclose(picture.pixels[0], expected, atol=2e-3)
    for target in ("PNG", "TIFF", "JPEG", "WEBP"):
        again = read_picture(encode_picture(picture, target))
        assert again.origin.icc == picture.origin.icc is not None
    with Image.open(io.BytesIO(encode_picture(picture, "TIFF"))) as image:
        if bits == 8:
            assert np.abs(np.asarray(image).astype(int) - stored).max() <= 1


def test_gamma_of_gray(png: Callable[..., bytes]) -> None:
    levels = np.arange(256)[None]
    picture = read_picture(png(levels, 8, gama(100_000)))
    np.testing.assert_allclose(picture.pixels[0, :, 0], encoded(levels[0] / 255), atol=2e-3)
    assert picture.origin.gray
    with Image.open(io.BytesIO(encode_picture(picture, "PNG"))) as image:
        assert np.abs(np.asarray(image).astype(int) - levels).max() <= 1


def p3_colours() -> NDArray[np.floating]:
    return encoded(linear(COLOURS / 255) @ P3_TO_SRGB.T)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "chunks",
    [[(b"cICP", bytes([12, 13, 0, 1]))], [chrm(P3), gama(45455)], [chrm(P3)]],
    ids=["cICP", "cHRM and gAMA", "cHRM"],
)
def test_primaries_are_applied_and_kept(
    png: Callable[..., bytes], chunks: list[tuple[bytes, bytes]], bits: int
) -> None:
    stored = (COLOURS * (257 if bits == 16 else 1))[None]
    picture = read_picture(png(stored, bits, *chunks))
    extended = picture.pixels[0] + (picture.beyond[0] if picture.beyond is not None else 0)
    expected = p3_colours()
    inside = (expected >= 0).all(axis=1) & (expected <= 1).all(axis=1)
    np.testing.assert_allclose(extended[inside], expected[inside], atol=4e-3)
    assert not np.allclose(extended[0], COLOURS[0] / 255, atol=0.02)
    assert picture.notes == ()
    back = read_picture(encode_picture(picture, "PNG"))
    np.testing.assert_allclose(back.pixels, picture.pixels, atol=6e-3)


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(45455)],
        [gama(45455), chrm(SRGB)],
        [(b"cICP", bytes([1, 13, 0, 1]))],
        [(b"cICP", bytes([1, 1, 0, 1]))],
        [(b"sRGB", b"\0"), gama(100_000), chrm(P3)],
    ],
    ids=["gamma", "gamma and primaries", "cICP", "cICP as BT.709", "sRGB before gAMA"],
)
def test_what_is_srgb_anyway_is_left_alone(png: Callable[..., bytes], chunks: list[tuple[bytes, bytes]]) -> None:
    picture = read_picture(png(COLOURS[None], 8, *chunks))
    np.testing.assert_allclose(picture.pixels[0], COLOURS / 255, atol=1e-6)
    assert (picture.origin.icc, picture.notes) == (None, ())


def test_the_order_of_precedence(png: Callable[..., bytes], profiles: dict[str, bytes]) -> None:
    """PNG, third edition, 4.3: cICP, iCCP, sRGB, gAMA and cHRM; what stands behind the pixels does not count."""
    iccp = (b"iCCP", b"p\0\0" + zlib.compress(profiles["adobe-rgb"]))
    p3 = make_profile("rgb", (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06), None)
    assert read_picture(png(COLOURS[None], 8, (b"cICP", bytes([12, 13, 0, 1])), iccp)).origin.icc == p3
    assert (
        read_picture(png(COLOURS[None], 8, iccp, (b"sRGB", b"\0"), gama(100_000))).origin.icc == profiles["adobe-rgb"]
    )
    unknown = read_picture(png(COLOURS[None], 8, (b"cICP", bytes([200, 13, 0, 1])), iccp))
    assert unknown.origin.icc == profiles["adobe-rgb"]
    assert "200 and 13" in unknown.notes[0]
    unspecified = read_picture(png(COLOURS[None], 8, (b"cICP", bytes([2, 2, 0, 1])), iccp))
    assert (unspecified.origin.icc, unspecified.notes) == (profiles["adobe-rgb"], ())
    video = read_picture(png(COLOURS[None], 8, (b"cICP", bytes([1, 13, 0, 0]))))
    assert video.notes == ("the colour chunk cICP is not for full-range RGB and was ignored",)
    data = png(COLOURS[None], 8)
    late = data[:-12] + struct.pack(">I", 4) + b"gAMA" + struct.pack(">II", 100_000, zlib.crc32(b"gAMA\0\1\x86\xa0"))
    assert read_picture(late + data[-12:]).origin.icc is None


def test_an_impossible_description_is_said(png: Callable[..., bytes]) -> None:
    picture = read_picture(png(COLOURS[None], 8, chrm((0,) * 8)))
    assert "the colour description is impossible" in picture.notes[0]
    for value in (0, 1, 9_000, 2_000_000, 2**32 - 1):
        impossible = read_picture(png(COLOURS[None], 8, gama(value)))
        assert f"the colour description is impossible (gAMA {value / 1e5})" in impossible.notes[0]
        np.testing.assert_allclose(impossible.pixels[0], COLOURS / 255, atol=1e-6)
    broken = read_picture(png(COLOURS[None], 8, (b"iCCP", b"p\0\0no zlib")))
    assert broken.notes == ("the colour profile is incomplete; it was ignored",)


@pytest.mark.parametrize(("code", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_never_taken_as_srgb(
    png: Callable[..., bytes], profiles: dict[str, bytes], code: int, name: str
) -> None:
    tag = b"cicp\0\0\0\0" + bytes([9, code, 0, 1])
    profile = profiles["display-p3"] + tag  # found wherever it stands
    heic = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (16, 16))).save(
        heic, save_nclx_profile=True, color_primaries=9, transfer_characteristics=code
    )
    for data in (
        png(COLOURS[None], 8, (b"cICP", bytes([9, code, 0, 1]))),
        png(COLOURS[None], 16, (b"cICP", bytes([9, code, 0, 1]))),
        png(COLOURS[None], 8, (b"iCCP", b"p\0\0" + zlib.compress(profile))),
        heic.getvalue(),
    ):
        with pytest.raises(PictureError, match=rf"picture: this is an HDR picture \({name}\).*Convert it to standard"):
            read_picture(data)


def test_the_colours_of_a_heic_without_a_profile_are_those_of_its_codes() -> None:
    image = Image.new("RGB", (16, 16), (220, 40, 40))
    files = []
    for primaries in (1, 12):
        out = io.BytesIO()
        heif = pillow_heif.from_pillow(image)
        heif.save(
            out, quality=100, chroma=444, color_primaries=primaries, transfer_characteristics=13, matrix_coefficients=1
        )
        files.append(read_picture(out.getvalue()))
    assert files[0].origin.icc is None
    assert files[1].origin.icc is not None
    assert files[1].pixels[8, 8, 0] > files[0].pixels[8, 8, 0] + 0.02


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("share", [0.0, 0.34, 1.0])
@pytest.mark.parametrize("stray", [0, 1])
def test_the_transparent_level_of_gray_of_every_depth(
    png: Callable[..., bytes], bits: int, share: float, stray: int
) -> None:
    top = 2**bits - 1
    levels = np.arange(min(top, 255) + 1)[None] * (257 if bits == 16 else 1)
    level = round(share * top) if bits < 16 else round(share * 255) * 257
    key = level | (stray << bits if bits < 16 else 0)  # unused bits of the entry do not count
    picture = read_picture(png(levels, bits, (b"tRNS", struct.pack(">H", key))))
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha[0] == 0, levels[0] == level)
    np.testing.assert_allclose(picture.pixels[0, :, 0], levels[0] / top, atol=1e-6)


@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_text_is_kept_or_named(png: Callable[..., bytes], target: str) -> None:
    texts = [
        (b"tEXt", b"Title\0My caption"),
        (b"tEXt", b"parameters\0a cat, steps 20"),
        (b"zTXt", b"Author\0\0" + zlib.compress(b"J\xfcrgen")),
        (b"iTXt", b"Description\0\0\0de\0\0" + "Größe 猫".encode()),
    ]
    old = [(b"tEXt", b"Thumb::Image::Width\x0096"), (b"tEXt", b"Raw profile type iptc\0\niptc\n 2\nabcd")]
    picture = read_picture(png(COLOURS[None], 8, *texts, *old))
    assert picture.notes == (
        "PNG text that describes the old file was left out (Thumb::Image::Width, Raw profile type iptc)",
    )
    content = encode_picture(picture, target)
    lost = losses(picture, f"a.{target.lower()}")
    if target == "PNG":
        assert lost == ()
        assert read_picture(content).origin.texts == tuple(kind + body for kind, body in texts)
    else:
        named = "PNG texts (Title, parameters, Author, Description)"
        assert lost == (f"{target} has no place for {named}: left out",)


def test_keywords_reach_the_terminal_few_and_printable(png: Callable[..., bytes]) -> None:
    picture = read_picture(png(COLOURS[None], 8, *[(b"tEXt", b"\x1b[2J%d\0x" % index) for index in range(9)]))
    named = ", ".join(f"?[2J{index}" for index in range(5))
    assert losses(picture, "a.jpg") == (f"JPEG has no place for PNG texts ({named}, 4 more): left out",)
    profile = bytes(16) + b"\x1b[2J" + bytes(200)
    noted = read_picture(png(COLOURS[None], 8, (b"iCCP", b"p\0\0" + zlib.compress(profile))))
    assert noted.notes == ("the colour profile is for ?[2J pixels, the picture is rgb; it was ignored",)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("rows", [0, 1, 30, 49])
def test_pixels_that_end_early_are_not_filled_with_black(png: Callable[..., bytes], rows: int, bits: int) -> None:
    samples = np.random.default_rng(0).integers(1, 2**bits, (50, 40, 3))
    row = 1 + 40 * 3 * bits // 8
    with pytest.raises(PictureError, match="damaged or truncated"):
        read_picture(png(samples, bits, cut=row * rows))
    black = np.zeros((50, 40, 3), int)
    assert read_picture(png(black, bits)).pixels.max() == 0


def test_an_interlaced_picture_that_ends_early(png_chunk: Chunk) -> None:
    """Black, as what is missing would be: only counting the bytes tells."""
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    total = sum((1 + columns) * rows for columns, rows in passes)
    for size in (total, total - 1, total // 2):
        data = start + png_chunk(b"IDAT", zlib.compress(bytes(size))) + png_chunk(b"IEND", b"")
        if size == total:
            assert read_picture(data).width == 8
        else:
            with pytest.raises(PictureError, match="damaged or truncated"):
                read_picture(data)


def test_floods_of_chunks_are_refused_at_once(png: Callable[..., bytes], png_chunk: Chunk) -> None:
    data = png(COLOURS[None], 8)
    empty = png_chunk(b"IDAT", b"")
    for content in (
        data[:33] + png_chunk(b"tEXt", b"a\0b") * 1_000_000 + data[33:],
        data[:-12] + png_chunk(b"tEXt", b"a\0b") * 1_000_000 + data[-12:],
        data[:33] + empty * 3_000_000 + data[33:],
        data[:-12] + png_chunk(b"IDAT", bytes(1_000_000)) * 80 + data[-12:],
        data[:33] + png_chunk(b"abCd", bytes(1_000_000)) * 80 + data[33:],
    ):
        with pytest.raises(PictureTooLarge, match="more than 64 MiB of metadata or stray data"):
            read_header(content)
    assert read_picture(data[:33] + png_chunk(b"abCd", bytes(1_000_000)) * 30 + data[33:]).width == 6
