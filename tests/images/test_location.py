"""Location: no place in a result, in whatever format and block it was written, and all else as it was."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rasr.images import Encoding, encode_picture, read_picture
from rasr.images.location import without_location
from rasr.images.picture import Metadata, Origin
from rasr.restoration.settings import SaveOptions
from tests.images.test_metadata import WRITTEN, camera_exif, written

Save = Callable[..., bytes]
NO_PLACE = Encoding(metadata="no-location")

XMP = b"""<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>
<rdf:Description rdf:about='' xmlns:exif='http://ns.adobe.com/exif/1.0/' xmlns:photoshop='http://ns.adobe.com/photoshop/1.0/'
 xmlns:dc='http://purl.org/dc/elements/1.1/' xmlns:drone='http://www.dji.com/drone-dji/1.0/'
 xmlns:e='http://iptc.org/std/Iptc4xmpExt/2008-02-29/' xmlns:c='http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/'
 xmlns:geo='http://www.w3.org/2003/01/geo/wgs84_pos#'
 exif:GPSLatitude='48,51.4917N' photoshop:City='PLACE' drone:GpsLongitude='+2.29' exif:FNumber='28/10'
 photoshop:Credit='agency'>
<exif:GPSLongitude>2,17.67E</exif:GPSLongitude><exif:GPSAltitude>PLACE</exif:GPSAltitude>
<photoshop:State>PLACE</photoshop:State><photoshop:Country>PLACE</photoshop:Country><c:Location>PLACE</c:Location>
<c:CountryCode>PLACE</c:CountryCode><dc:coverage>PLACE</dc:coverage><geo:lat>PLACE</geo:lat><geo:long>PLACE</geo:long>
<e:LocationCreated><rdf:Bag><rdf:li rdf:parseType='Resource'><e:City>PLACE</e:City>
<e:Sublocation>PLACE</e:Sublocation></rdf:li></rdf:Bag></e:LocationCreated>
<e:LocationShown rdf:parseType='Resource'><e:WorldRegion>PLACE</e:WorldRegion></e:LocationShown>
<c:CreatorContactInfo rdf:parseType='Resource'><c:CiAdrCity>studio</c:CiAdrCity></c:CreatorContactInfo>
<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>the title</rdf:li></rdf:Alt></dc:title>
<exif:SubjectLocation><rdf:Seq><rdf:li>12</rdf:li></rdf:Seq></exif:SubjectLocation>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"""


def record(dataset: int, value: bytes, number: int = 2) -> bytes:
    return struct.pack(">BBBH", 0x1C, number, dataset, len(value)) + value


IPTC = (
    record(90, b"%G", 1)
    + record(120, b"my caption")
    + b"".join(record(dataset, b"PLACE") for dataset in (26, 27, 90, 92, 95, 100, 101))
    + record(80, b"author")
    + bytes([0x1C, 2, 25, 0x80, 4, 0, 0, 0, 4])
    + b"word"
)


@pytest.mark.parametrize("source", WRITTEN)
@pytest.mark.parametrize("target", WRITTEN)
def test_no_place_is_left_and_the_rest_is(photo: NDArray[np.uint8], saved: Save, source: str, target: str) -> None:
    given = {"exif": camera_exif(1).tobytes(), "xmp": XMP} if source != "TIFF" else {"exif": camera_exif(1).tobytes()}
    if source == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        given = {"exif": given["exif"], "pnginfo": info}
    picture = read_picture(saved(photo, source, **given))
    kept, content = (encode_picture(picture, target, one) for one in (Encoding(), NO_PLACE))
    exif, _ = written(content)
    assert written(kept)[0].get_ifd(0x8825)[1] == "N"
    assert not exif.get_ifd(0x8825)
    assert (exif[0x010F], exif[0x010E], exif[0x8298]) == ("Maker", "my caption", "(c) me")
    details = exif.get_ifd(0x8769)
    assert (details[0x9003], details[0xA434]) == ("2024:06:01 12:00:00", "50mm f/1.8")
    assert b"maker note" in kept
    assert b"maker note" not in content
    if source != "TIFF":
        assert b"PLACE" in kept
        for lost in (b"PLACE", b"GPS", b"Gps", b"geo:l"):
            assert lost not in content, lost
        for stays in (b"28/10", b"agency", b"the title", b"studio", b"SubjectLocation"):
            assert stays in content, stays
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(Image.open(io.BytesIO(kept))))


@pytest.mark.parametrize("target", ["JPEG", "TIFF"])
def test_iptc_keeps_its_other_records(photo: NDArray[np.uint8], saved: Save, target: str) -> None:
    picture = replace(read_picture(saved(photo, "JPEG")), origin=Origin("JPEG", iptc=IPTC))
    content = encode_picture(picture, target, NO_PLACE)
    assert b"PLACE" not in content
    for stays in (b"my caption", b"author", b"word", b"%G"):
        assert stays in content


@pytest.mark.parametrize(
    "damaged", [IPTC[:-2], b"\x1c\x02\x5a", b"no records", IPTC + b"rest", record(90, b"PLACE")[:-1]]
)
def test_records_that_cannot_be_followed_go_whole(damaged: bytes) -> None:
    assert without_location(Origin(iptc=damaged)).iptc is None


def test_records_of_nothing_but_places_leave_none() -> None:
    assert without_location(Origin(iptc=record(90, b"PLACE") + bytes(3))).iptc is None


@pytest.mark.parametrize(
    "packet",
    [
        b"<x>not closed GPSLatitude",
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>&lt;exif:GPSLatitude&gt;48&lt;</x:xmpmeta>",
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><a>geo:48.85,2.29</a></x:xmpmeta>",
    ],
)
def test_a_packet_that_may_still_say_where_goes_whole(packet: bytes) -> None:
    assert without_location(Origin(xmp=packet)).xmp is None


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        (b"tEXtTitle\0the title", True),
        (b"tEXtGPSLatitude\x0048.85", False),
        (b"tEXtexif:GPSInfo\x001234", False),
        (b"tEXtLocation\0Paris", False),
        (b"tEXtDescription\0at +48.8577+002.2950/", False),
        (b"a comment of 1996", True),
        (b"GPS Latitude: 48.85", False),
        (b"ISO 100 +1.5-2.0", True),
    ],
)
def test_texts_with_coordinates_go(text: bytes, stays: bool) -> None:
    assert without_location(Origin(texts=(text,))).texts == ((text,) if stays else ())


@given(st.binary(max_size=200) | st.builds(lambda head, tail: IPTC[:head] + tail, st.integers(0, 90), st.binary()))
def test_whatever_the_records_are_no_place_stays(records: bytes) -> None:
    left = without_location(Origin(iptc=records)).iptc or b""
    position = 0
    while position < len(left):
        assert left[position] == 0x1C
        assert not (left[position + 1] == 2 and left[position + 2] in {26, 27, 90, 92, 95, 100, 101})
        size = int.from_bytes(left[position + 3 : position + 5], "big")
        start = position + 5
        if size & 0x8000:
            start += size & 0x7FFF
            size = int.from_bytes(left[position + 5 : start], "big")
        position = start + size


def test_the_option_offers_what_can_be_written() -> None:
    for choice in get_args(Metadata):
        assert SaveOptions(metadata=choice).metadata == choice


def test_a_picture_without_any_is_saved_as_before(photo: NDArray[np.uint8], saved: Save) -> None:
    picture: Any = read_picture(saved(photo, "PNG"))
    for target in WRITTEN:
        assert encode_picture(picture, target, NO_PLACE) == encode_picture(picture, target)
