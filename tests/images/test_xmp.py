"""XMP: statements on the old file corrected or left out and said, everything else byte for byte; extended XMP."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from rasr.images import Origin, Picture, encode_picture, losses, read_picture
from rasr.images.xmp import clean_xmp, jpeg_segments, xmp_for_result

Save = Callable[..., bytes]

SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "x": "adobe:ns:meta/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stDim": "http://ns.adobe.com/xmp/sType/Dimensions#",
}
TITLE = "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>Größe 猫 &amp; &lt;GPano&gt;</rdf:li></rdf:Alt></dc:title>"


def packet(inner: str, *prefixes: str, attributes: str = "") -> bytes:
    declared = " ".join(f'xmlns:{prefix}="{SPACES[prefix]}"' for prefix in ("dc", *prefixes))
    return (
        "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>\n<x:xmpmeta xmlns:x='adobe:ns:meta/'>\n<rdf:RDF "
        f"xmlns:rdf='{SPACES['rdf']}'>\n<rdf:Description rdf:about='' {declared} {attributes}>\n{inner}\n"
        "</rdf:Description>\n</rdf:RDF>\n</x:xmpmeta>\n" + " " * 50 + "\n<?xpacket end='w'?>"
    ).encode()


OLD_FILE = {
    "panorama": ("<GPano:FullPanoWidthPixels>96</GPano:FullPanoWidthPixels>", ("GPano",)),
    "motion photo, depth or camera": ("<GCamera:MotionPhoto>1</GCamera:MotionPhoto>", ("GCamera",)),
    "container": (
        "<Container:Directory><rdf:Seq><Container:Item Item:Length='7'/></rdf:Seq></Container:Directory>",
        ("Container", "Item"),
    ),
    "gain map": ("<hdrgm:GainMapMax>2.5</hdrgm:GainMapMax>", ("hdrgm",)),
    "gain map or depth": ("<HDRGainMap:HDRGainMapVersion>65536</HDRGainMap:HDRGainMapVersion>", ("HDRGainMap",)),
    "thumbnail": (
        "<xmp:Thumbnails><rdf:Alt><rdf:li><xmpGImg:image>/9j/&#xA;</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails>",
        ("xmp", "xmpGImg"),
    ),
}


@pytest.mark.parametrize("what", OLD_FILE)
@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_what_describes_the_old_file_goes_and_is_named(
    photo: NDArray[np.uint8], saved: Save, what: str, target: str
) -> None:
    element, prefixes = OLD_FILE[what]
    picture = read_picture(saved(photo, "JPEG", xmp=packet(TITLE + element, *prefixes)))
    assert len(picture.notes) == 1
    assert f"({what})" in picture.notes[0]
    kept = read_picture(encode_picture(picture, target)).origin.xmp
    assert kept is not None
    assert TITLE.encode() in kept
    assert element.encode() not in kept
    for prefix in prefixes:
        assert prefix == "xmp" or f"{prefix}:".encode() not in kept.replace(b"xmp:", b"")


def test_attributes_count_like_elements_and_other_prefixes_too() -> None:
    data = packet(
        TITLE,
        "tiff",
        attributes="tiff:Make='K' tiff:Orientation='6' xmlns:P='http://ns.google.com/photos/1.0/panorama/' "
        "P:UsePanoramaViewer='True'\n tiff:ImageWidth = '96'",
    )
    cleaned, notes = clean_xmp(data)
    assert notes == ["XMP entries that describe the old file were left out (panorama)"]
    expected = data.replace(b"'6'", b"'1'").replace(b" P:UsePanoramaViewer='True'", b"")
    expected = expected.replace(b" xmlns:P='http://ns.google.com/photos/1.0/panorama/'", b"")
    assert cleaned == expected
    assert xmp_for_result(cleaned, 384, 256) == expected.replace(b"'96'", b"'384'")


def test_sizes_are_those_of_the_result(photo: NDArray[np.uint8], saved: Save) -> None:
    inner = (
        "<tiff:ImageWidth>96</tiff:ImageWidth><tiff:ImageLength>64</tiff:ImageLength>"
        "<exif:PixelXDimension>96</exif:PixelXDimension><exif:PixelYDimension>64</exif:PixelYDimension>"
        "<tiff:BitsPerSample><rdf:Seq><rdf:li>8</rdf:li></rdf:Seq></tiff:BitsPerSample>"
        "<mwg-rs:Regions rdf:parseType='Resource'><mwg-rs:AppliedToDimensions stDim:w='96' stDim:h='64' "
        "stDim:unit='pixel'/></mwg-rs:Regions>"
    )
    data = packet(TITLE + inner, "tiff", "exif", "mwg-rs", "stDim")
    picture = read_picture(saved(photo, "JPEG", xmp=data))
    assert picture.notes == ()
    doubled = picture.with_pixels(np.repeat(np.repeat(picture.pixels, 2, axis=0), 2, axis=1))
    kept = read_picture(encode_picture(doubled, "PNG")).origin.xmp or b""
    for name, value in (("tiff:ImageWidth", 452), ("tiff:ImageLength", 298), ("exif:PixelXDimension", 452)):
        assert f"<{name}>{value}</{name}>".encode() in kept
    assert b"stDim:w='452' stDim:h='298'" in kept
    assert b"BitsPerSample" not in kept
    assert b"96" not in kept


def test_faces_of_a_picture_that_was_turned_are_left_out() -> None:
    data = packet("<mwg-rs:Regions><mwg-rs:RegionList/></mwg-rs:Regions>", "mwg-rs")
    assert clean_xmp(data)[0] == data
    turned, notes = clean_xmp(data, turned=True)
    assert b"Regions" not in (turned or b"")
    assert "region" in notes[0]


def test_what_is_not_touched_is_the_file_s_own_bytes() -> None:
    data = packet(
        TITLE + "<my:own xmlns:my='urn:x' a=\"&gt;'\">\u00e9\ud55c<![CDATA[<tiff:Orientation>]]></my:own><!-- GPano -->"
    )
    assert clean_xmp(data) == (data, [])
    assert clean_xmp(data + b"\0\0") == (data, [])
    assert clean_xmp(data.decode().encode("utf-16"))[0] == data


@pytest.mark.parametrize(
    "long",
    [
        b"<x a='b'" + b" " * 5_000_000 + b"/>",
        b"<x>" + b"tiff:Orientation" + b" " * 5_000_000 + b"</x>",
        b"<x " + b"a" * 5_000_000 + b"='b'/>",
        b"<x a='" + b"=" * 100_000 + b"b=" * 100_000 + b"'/>",
        b"<x xmlns:G='http://ns.google.com/photos/'"
        + b"".join(b" G:a%d='1'" % index for index in range(100_000))
        + b"/>",
        b"<x>" + b" " * 5_000_000 + b"</x>",
    ],
    ids=["spaces in a tag", "spaces in text", "name", "equals signs", "attributes", "text"],
)
def test_long_packets_take_no_longer_than_their_bytes(long: bytes) -> None:
    """Nothing here is more than a second; a search that starts again at each byte would take days."""
    cleaned, _ = clean_xmp(long)
    assert cleaned is None or len(xmp_for_result(cleaned, 1, 1)) <= len(long)


@pytest.mark.parametrize(
    "bad",
    [
        b"<x:xmpmeta><open>",
        b"no XML at all",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
        b"<a>" * 5000 + b"</a>" * 5000,
        b"<x>" + b"<a/>" * 500_000 + b"</x>",
        b"<x " + b" ".join(b"a%d=''" % index for index in range(500_000)) + b"/>",
    ],
    ids=["cut", "text", "entities", "deep", "wide", "attributes"],
)
def test_a_packet_that_cannot_be_corrected_goes_and_is_named(bad: bytes) -> None:
    assert clean_xmp(bad) == (None, ["the XMP block is damaged and was left out"])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_a_note(data: bytes) -> None:
    for start in (b"", b"<x a='", b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>"):
        cleaned, notes = clean_xmp(start + data)
        assert cleaned is None or xmp_for_result(cleaned, 1, 1)
        assert cleaned is not None or notes or not (start + data).strip(b"\0\xfe\xff").strip()


def extended(data: bytes, main: bytes, more: bytes, *, digest: str = "", drop: int = -1, step: int = 65_000) -> bytes:
    """Put a packet and extended XMP into a JPEG, as cameras do."""
    guid = (digest or hashlib.md5(more).hexdigest().upper()).encode()
    segments = b""
    for index, offset in enumerate(range(0, len(more), step)):
        body = b"http://ns.adobe.com/xmp/extension/\0" + guid + struct.pack(">II", len(more), offset)
        body += more[offset : offset + step]
        segments += b"" if index == drop else b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    main = b"http://ns.adobe.com/xap/1.0/\0" + main
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(main) + 2) + main + segments + data[2:]


MAIN = packet(TITLE + "<xmpNote:HasExtendedXMP>0123456789ABCDEF0123456789ABCDEF</xmpNote:HasExtendedXMP>", "xmpNote")
LONG = f"<dc:description>{'word ' * 30_000}</dc:description>"


def extension(inner: str) -> bytes:
    return (
        f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='{SPACES['rdf']}'><rdf:Description rdf:about='' "
        f"xmlns:dc='{SPACES['dc']}' xmlns:GPano='{SPACES['GPano']}'>{inner}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_extended_xmp_is_kept_in_every_format(photo: NDArray[np.uint8], saved: Save, target: str) -> None:
    more = extension(LONG + "<GPano:FullPanoWidthPixels>96</GPano:FullPanoWidthPixels>")
    picture = read_picture(extended(saved(photo, "JPEG"), MAIN, more))
    assert picture.notes == ("XMP entries that describe the old file were left out (panorama)",)
    assert losses(picture, f"a.{target.lower()}") == ()
    content = encode_picture(picture, target)
    kept = read_picture(content).origin.xmp or b""
    assert TITLE.encode() in kept
    assert LONG.encode() in kept
    assert b"GPano:" not in kept
    assert b"0123456789ABCDEF" not in kept
    if target == "JPEG":
        assert content.count(b"http://ns.adobe.com/xmp/extension/\0") == 3
        with Image.open(io.BytesIO(content)) as image:
            assert image.info["xmp"].count(b"HasExtendedXMP") == 1


@pytest.mark.parametrize("drop", [0, 1, 2])
def test_extended_xmp_with_a_part_missing_is_named(photo: NDArray[np.uint8], saved: Save, drop: int) -> None:
    more = extension(LONG)
    picture = read_picture(extended(saved(photo, "JPEG"), MAIN, more, drop=drop))
    assert picture.notes == (f"the extended XMP ({len(more)} bytes) is incomplete and was left out",)
    assert TITLE.encode() in (picture.origin.xmp or b"")


def test_extended_xmp_that_cannot_be_merged_is_named(photo: NDArray[np.uint8], saved: Save) -> None:
    for more in (b"<x>" + b"y" * 70_000, extension(LONG).replace(b":rdf", b":r").replace(b"rdf:", b"r:")):
        picture = read_picture(extended(saved(photo, "JPEG"), MAIN, more))
        assert picture.notes == (f"the extended XMP ({len(more)} bytes) is damaged and was left out",)


def test_a_long_packet_is_split_for_jpeg_or_named() -> None:
    pixels = np.zeros((8, 8, 3), np.float32)
    whole = packet(TITLE + LONG)
    main, segments = jpeg_segments(whole, 65_000)
    assert main is not None
    assert len(main) < 1000
    assert segments.count(b"\xff\xe1") == 3
    picture = Picture(pixels, origin=Origin(xmp=whole))
    assert losses(picture, "a.jpg") == ()
    back = read_picture(encode_picture(picture, "JPEG")).origin.xmp or b""
    assert LONG.encode() in back
    broken = Picture(pixels, origin=Origin(xmp=b"<x>" + bytes(70_000)))
    assert losses(broken, "a.jpg") == ("the XMP block is too long for JPEG: it is left out",)
