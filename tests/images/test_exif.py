"""EXIF directories, byte for byte: text of any encoding, both byte orders, every format, damaged blocks."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pillow_heif
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from rasr.images import Encoding, encode_picture, read_picture
from rasr.images.exif import Entry, Exif, encode_directory, exif_for_result, load_exif

Save = Callable[..., bytes]

TEXTS = {
    "UTF-8": "© 2021 Jürgen 猫".encode() + b"\0",
    "Latin-1": "© 2021 Jürgen".encode("latin-1") + b"\0",
    "Shift-JIS": "写真".encode("shift-jis") + b"\0",
    "no end": "Jürgen".encode(),
    "two parts": "Fotograf é\0Verlag ü\0".encode(),
}
MAIN = (0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x013B, 0x8298)
DETAILS = (0x9003, 0x9290, 0xA420, 0xA430, 0xA431, 0xA433, 0xA434)
PLACE = (0x08, 0x12, 0x1D)


def block(text: bytes, order: str = "<") -> bytes:
    """An EXIF block whose ASCII tags all hold ``text``, in every directory."""
    pack = struct.pack
    exif = Exif(order)
    exif.main = {tag: Entry(2, text) for tag in MAIN} | {0x0112: Entry(3, pack(order + "H", 1))}
    exif.details = {tag: Entry(2, text) for tag in DETAILS}
    exif.details |= {0x829A: Entry(5, pack(order + "II", 1, 250)), 0x927C: Entry(7, b"maker\xff note")}
    exif.place = {tag: Entry(2, text) for tag in PLACE} | {2: Entry(5, pack(order + "6I", 48, 1, 51, 1, 59, 2))}
    exif.interop = {1: Entry(2, b"R98\0"), 0x1000: Entry(2, text)}
    return exif.to_bytes()


def entries(content: bytes, order: str, offset: int) -> dict[int, tuple[int, bytes]]:
    """Read a directory independently of the code under test: tag → type, bytes."""
    (count,) = struct.unpack_from(order + "H", content, offset)
    found = {}
    for index in range(count):
        tag, kind, values = struct.unpack_from(order + "HHI", content, offset + 2 + 12 * index)
        size = values * {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}[kind]
        place = offset + 2 + 12 * index + 8
        start = place if size <= 4 else struct.unpack_from(order + "I", content, place)[0]
        found[tag] = (kind, content[start : start + size])
    return found


def directories(tiff: bytes) -> dict[str, dict[int, tuple[int, bytes]]]:
    """All four directories of a TIFF structure."""
    order = "<" if tiff.startswith(b"II") else ">"
    result = {"main": entries(tiff, order, struct.unpack_from(order + "I", tiff, 4)[0])}
    for name, parent, tag in (("details", "main", 0x8769), ("place", "main", 0x8825), ("interop", "details", 0xA005)):
        (offset,) = struct.unpack(order + "I", result[parent][tag][1])
        result[name] = entries(tiff, order, offset)
    return result


def tiff_structure(content: bytes, format_: str) -> bytes:
    if format_ == "TIFF":
        return content
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        found: bytes = image.info["exif"]
    return found.removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_every_text_keeps_the_file_s_own_bytes(
    photo: NDArray[np.uint8], saved: Save, source: str, target: str, text: bytes, order: str
) -> None:
    if source == "TIFF":
        data = encode_picture(read_picture(saved(photo, "JPEG", exif=block(text, order))), "TIFF")
    elif source == "HEIF":
        out = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(photo)).save(out, exif=block(text, order))
        data = out.getvalue()
    else:
        data = saved(photo, source, exif=block(text, order))
    found = directories(tiff_structure(encode_picture(read_picture(data), target), target))
    if "TIFF" in {source, target} and not text.endswith(b"\0"):  # its main directory must have it ended
        found["main"] = {tag: (kind, value.removesuffix(b"\0")) for tag, (kind, value) in found["main"].items()}
    for name, tags in (("main", MAIN), ("details", DETAILS), ("place", PLACE), ("interop", (0x1000,))):
        assert {tag: found[name][tag] for tag in tags} == dict.fromkeys(tags, (2, text)), name
    assert found["details"][0x927C] == (7, b"maker\xff note")


def test_our_own_words_replace_nothing_but_the_software(photo: NDArray[np.uint8], saved: Save) -> None:
    text = TEXTS["UTF-8"]
    picture = read_picture(saved(photo, "JPEG", exif=block(text)))
    content = encode_picture(picture, "JPEG", Encoding(software="RASR 1", description='{"of": "é"}'))
    found = directories(tiff_structure(content, "JPEG"))
    assert found["main"].pop(0x0131) == (2, b"RASR 1\0")
    assert all(found["main"][tag] == (2, text) for tag in MAIN if tag != 0x0131)
    assert found["details"][0x9213] == (2, b'{"of": "\\xe9"}\0')
    assert found["details"][0xA002] == (4, struct.pack("<I", 226))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_has_the_byte_order_of_its_exif(photo: NDArray[np.uint8], saved: Save, order: str) -> None:
    """Maker notes and UTF-16 comments follow it, and nobody can turn those round."""
    picture = read_picture(saved(photo, "JPEG", exif=block(b"x\0", order)))
    content = encode_picture(picture, "TIFF")
    assert content[:2] == (b"II" if order == "<" else b"MM")
    found = directories(content)
    assert found["details"][0x829A] == (5, struct.pack(order + "II", 1, 250))
    assert found["place"][2] == (5, struct.pack(order + "6I", 48, 1, 51, 1, 59, 2))
    np.testing.assert_array_equal(read_picture(content).pixels, picture.pixels)
    deep = encode_picture(picture, "TIFF", Encoding(bits=16))
    np.testing.assert_allclose(read_picture(deep).pixels, picture.pixels, atol=1e-5)
    assert encode_picture(read_picture(saved(photo, "PNG")), "TIFF")[:2] == b"II"


def test_directories_behind_a_big_tiff_s_are_big_too() -> None:
    values = {0x9003: Entry(2, b"2024:01:01 00:00:00\0"), 0x8827: Entry(3, b"\x90\1")}
    data = encode_directory(values, "<", 16, {1: Entry(2, b"R98\0")}, big=True)
    assert struct.unpack_from("<Q", data) == (3,)
    tag, kind, count, inline = struct.unpack_from("<HHQQ", data, 8)
    assert (tag, kind, count, inline) == (0x8827, 3, 1, 400)
    tag, kind, count, place = struct.unpack_from("<HHQQ", data, 28)
    assert (tag, kind, count) == (0x9003, 2, 20)
    assert data[place - 16 : place + 4] == b"2024:01:01 00:00:00\0"
    tag, kind, count, place = struct.unpack_from("<HHQQ", data, 48)
    assert (tag, kind, count) == (0xA005, 4, 1)
    assert struct.unpack_from("<QHHQ8s", data, place - 16) == (1, 1, 2, 4, b"R98\0\0\0\0\0")


def test_the_two_densities_change_places_with_the_sides(photo: NDArray[np.uint8], saved: Save) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x011B], exif[0x0128] = 6, 300.0, 150.0, 2
    picture = read_picture(saved(photo, "JPEG", exif=exif))
    assert picture.origin.density == (150, 300, "inch")
    kept = load_exif(picture.origin.exif or b"")
    assert (kept.numbers(kept.main, 0x011A), kept.numbers(kept.main, 0x011B)) == ([150], [300])


def test_an_entry_that_leads_nowhere_costs_itself_alone(photo: NDArray[np.uint8], saved: Save) -> None:
    good = block(b"kept\0")
    place = good.index(struct.pack("<HH", 0x010E, 2)) + 8
    broken = good[:place] + struct.pack("<I", 10**9) + good[place + 4 :]
    picture = read_picture(saved(photo, "JPEG", exif=broken))
    assert picture.notes == ()
    exif = load_exif(picture.origin.exif or b"")
    assert 0x010E not in exif.main
    assert exif.main[0x8298] == Entry(2, b"kept\0")


def test_entries_that_share_their_bytes_are_bounded() -> None:
    """Sixty thousand entries that point at the same megabyte."""
    values = b"x" * (1 << 20)
    table = b"".join(struct.pack("<HHII", tag, 7, len(values), 8) for tag in range(60_000))
    data = b"II*\0" + struct.pack("<I", 8 + len(values)) + values + struct.pack("<H", 60_000) + table + bytes(4)
    exif = load_exif(data)
    assert sum(len(entry.data) for entry in exif.main.values()) <= 16 << 20
    exif.details = exif.main
    assert exif_for_result(exif.to_bytes(), 1, 1, software="RASR", description="x", room=None)


def test_a_name_repeated_for_ever_is_no_block() -> None:
    with pytest.raises(ValueError, match="no byte order"):
        load_exif(b"Exif\0\0" * 2_000_000)
    assert load_exif(b"Exif\0\0" + block(b"kept\0")).main[0x010E] == Entry(2, b"kept\0")


@given(st.binary(max_size=300))
def test_no_block_is_more_than_a_value_error(data: bytes) -> None:
    for order in (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"Exif\0\0II*\0"):
        try:
            exif = load_exif(order + data)
        except (ValueError, struct.error):
            continue
        assert load_exif(exif.to_bytes()) == exif


SUBJECTS = {"point": (10, 20), "circle": (10, 20, 8), "rectangle": (10, 20, 8, 6)}
"""SubjectArea: x and y in the stored pixels, and a diameter or a width and a height."""


@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("what", SUBJECTS)
def test_the_subject_s_place_follows_the_pixels(saved: Save, what: str, orientation: int, target: str) -> None:
    """Turned with them, and scaled: the mark is where the place says, in the result too."""
    array = np.zeros((60, 80, 3), np.uint8)
    x, y = SUBJECTS[what][:2]
    array[y, x] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update(
        {0x9214: SUBJECTS[what], 0xA214: (x, y), 0xA20E: IFDRational(4000), 0xA20F: IFDRational(3000), 0xA210: 2}
    )
    picture = read_picture(saved(array, "PNG", exif=exif.tobytes()))
    doubled = picture.with_pixels(np.repeat(np.repeat(picture.pixels, 2, axis=0), 3, axis=1))
    result = read_picture(encode_picture(doubled, target))
    found = load_exif(result.origin.exif or b"")
    place = [int(value) for value in found.numbers(found.details, 0x9214)]
    assert result.pixels[place[1], place[0]].min() > 0.9
    assert found.numbers(found.details, 0xA214) == place[:2]
    upright = {"point": [], "circle": [24], "rectangle": [8 * 3, 6 * 2] if orientation < 5 else [6 * 3, 8 * 2]}
    assert place[2:] == upright[what]
    per_inch = [4000, 3000] if orientation < 5 else [3000, 4000]
    assert [*found.numbers(found.details, 0xA20E), *found.numbers(found.details, 0xA20F)] == [
        per_inch[0] * 3, per_inch[1] * 2,
    ]  # fmt: skip
    assert found.numbers(found.details, 0xA002) == [picture.width * 3]


@pytest.mark.parametrize("place", [(10,), (10, 20, 1, 1, 1), (80, 20), (10, 60), ()])
def test_an_impossible_place_of_the_subject_is_left_out(saved: Save, place: tuple[int, ...]) -> None:
    block = Exif(details={0x9214: Entry(3, struct.pack(f"<{len(place)}H", *place)), 0x9003: Entry(2, b"2024\0")})
    picture = read_picture(saved(np.zeros((60, 80, 3), np.uint8), "PNG", exif=block.to_bytes()))
    kept = load_exif(picture.origin.exif or b"")
    assert 0x9214 not in kept.details
    assert kept.details[0x9003].data == b"2024\0"


@pytest.mark.parametrize("big", [False, True])
def test_what_only_a_thumbnail_page_says_belongs_to_the_picture(photo: NDArray[np.uint8], big: bool) -> None:
    """Cameras' and scanners' TIFFs have the words in the first directory; its density is the thumbnail's."""
    out = io.BytesIO()
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    words = [(271, 2, 5, b"Maker", True), (700, 1, len(xmp), xmp, True), (33723, 1, 5, b"\x1c\x02\x00\x00\x00", True)]
    with tifffile.TiffWriter(out, bigtiff=big) as file:
        file.write(photo[::8, ::8], subfiletype=1, photometric="rgb", extratags=words, resolution=(9, 9), software="a")
        file.write(photo, photometric="rgb", resolution=(300, 300), resolutionunit=2, software="b")
    picture = read_picture(out.getvalue())
    assert picture.width == photo.shape[1]
    exif = load_exif(picture.origin.exif or b"")
    assert exif.main[271].data.startswith(b"Maker")
    assert exif.main[305].data == b"b\0"
    assert picture.origin.density == (300, 300, "inch")
    assert picture.origin.xmp == xmp
    assert picture.origin.iptc == b"\x1c\x02\x00\x00\x00"
