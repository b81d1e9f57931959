"""JPEG: whole or refused, whatever stands in it, in bounded time; comments and density."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rasr.errors import PictureError, PictureTooLarge
from rasr.images import encode_picture, jpeg, losses, read_header, read_picture

Save = Callable[..., bytes]
END = b"\xff\xd9"
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "4:4:4": {"subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
    "many restarts": {"restart_marker_blocks": 3},
    "progressive": {"progressive": True},
    "progressive, restarts": {"progressive": True, "restart_marker_rows": 2},
}


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def frame_at(data: bytes) -> int:
    """Offset of the frame header."""
    return next(place for marker in (b"\xff\xc0", b"\xff\xc2") if (place := data.find(marker)) > 0)


def odd_sampling(data: bytes, *factors: int) -> bytes:
    """Write equal factors for all channels: the same picture, as long as no scan has more than one channel."""
    out, place = bytearray(data), frame_at(data)
    for index, factor in enumerate(factors):
        out[place + 11 + 3 * index] = factor
    return bytes(out)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_closed_with_an_end_marker_is_not_a_picture(
    photo: NDArray[np.uint8], saved: Save, kind: str, mode: str
) -> None:
    """Cut at forty places and at each of the last twelve bytes: refused, or said, or the pixels are the same."""
    data = saved(Image.fromarray(photo).convert(mode), "JPEG", quality=85, **KINDS[kind])
    whole = read_picture(data)
    assert not any("JPEG" in note for note in whole.notes)
    first, end = data.index(b"\xff\xda") + 14, len(data) - 2
    refused = 0
    cuts = sorted({*range(first, end, (end - first) // 40), *range(end - 12, end)})
    for cut in cuts:
        try:
            part = read_picture(data[:cut] + END)
        except PictureError as error:
            assert "damaged or truncated" in str(error)  # noqa: PT017  (most cuts raise, not all)
            refused += 1
        else:
            assert any("JPEG" in note for note in part.notes) or np.array_equal(part.pixels, whole.pixels)
    assert refused >= len(cuts) - 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [16, 100, 2000])
def test_a_header_that_is_too_tall_is_not_filled_with_gray(
    photo: NDArray[np.uint8], saved: Save, kind: str, rows: int
) -> None:
    for content in (photo, np.full_like(photo, 90)):
        data = bytearray(saved(content, "JPEG", **KINDS[kind]))
        place = frame_at(bytes(data)) + 5
        data[place : place + 2] = struct.pack(">H", 149 + rows)
        with pytest.raises(PictureError, match="damaged or truncated picture"):
            read_picture(bytes(data))


def test_a_cut_is_seen_behind_another_warning_and_with_rare_sampling(photo: NDArray[np.uint8], saved: Save) -> None:
    data = saved(photo, "JPEG", restart_marker_rows=1)
    place = data.index(b"\xff\xd0", data.index(b"\xff\xda"))
    damaged = data[:place] + bytes(2) + data[place:]
    assert read_picture(damaged).notes == ("the JPEG is damaged in places (2 extraneous bytes before marker 0xd1)",)
    rare = odd_sampling(jpeg_in_separate_scans(photo, saved), 0x22, 0x22, 0x22)
    assert read_picture(rare).notes == ()
    for content in (damaged, rare):
        for cut in (0.9, 0.99, 0.999):
            with pytest.raises(PictureError, match="premature end"):
                read_picture(content[: int(len(content) * cut)] + END)


def test_missing_scans_are_said_and_a_missing_channel_is_refused(photo: NDArray[np.uint8], saved: Save) -> None:
    data = saved(photo, "JPEG", progressive=True)
    scans = [index for index in range(len(data)) if data.startswith(b"\xff\xda", index)]
    tables = [data.rindex(b"\xff\xc4", 0, scan) for scan in scans]
    said = read_picture(data[: min(scans[-1], tables[-1])] + END)
    assert said.notes == ("the JPEG ends before its last scan: fine detail is missing",)
    gray_first = jpeg_in_separate_scans(photo, saved)
    assert read_picture(gray_first).notes == ()
    third = [index for index in range(len(gray_first)) if gray_first.startswith(b"\xff\xda", index)][2]
    with pytest.raises(PictureError, match="before all colour channels are there"):
        read_picture(gray_first[:third] + END)


def jpeg_in_separate_scans(photo: NDArray[np.uint8], saved: Save) -> bytes:
    """Sequential, one scan a channel: made of three gray files that share their tables."""
    planes = [saved(Image.fromarray(photo).convert("YCbCr").getchannel(index), "JPEG") for index in range(3)]
    place = frame_at(planes[0])
    frame = segment(
        0xC0,
        b"\x08" + struct.pack(">HH", *photo.shape[:2]) + b"\x03" + b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3)),
    )
    scans = b""
    for index, plane in enumerate(planes):
        start = plane.index(b"\xff\xda")
        scans += plane[start:-2][:5] + bytes([index + 1]) + plane[start:-2][6:]
    tables = planes[0][place + 13 : planes[0].index(b"\xff\xda")]
    return planes[0][:place] + frame + tables + scans + END


def test_whole_files_of_odd_encoders_are_read_without_a_word(photo: NDArray[np.uint8], saved: Save) -> None:
    """What Pillow reads is read, to the same pixels, whatever stands between and behind the segments."""
    data = saved(photo, "JPEG", quality=90)
    scan = data.index(b"\xff\xda")
    without_tables = data
    while (place := without_tables.find(b"\xff\xc4")) > 0:  # as Motion JPEG has it: the standard's tables are meant
        without_tables = (
            without_tables[:place]
            + without_tables[place + 2 + int.from_bytes(without_tables[place + 2 : place + 4], "big") :]
        )
    odd = {
        "fill bytes": data[:scan] + b"\xff" * 7 + data[scan:-2] + b"\xff" * 5 + END,
        "stray zeros before the end": data[:-2] + bytes(3) + END,
        "trailing data": data + bytes(1000),
        "a second picture behind": data + data,
        "stray bytes between segments": data[:scan] + bytes(9) + data[scan:],
        "an unknown segment": data[:2] + segment(0xEB, b"?" * 500) + data[2:],
        "a comment": data[:2] + segment(0xFE, b"hello") + data[2:],
        "no tables": without_tables,
        "no JFIF": data[:2] + data[20:],
        "4:1:1": bytes(imagecodecs.jpeg8_encode(photo, 90, subsampling="411")),
        "4:4:0": bytes(imagecodecs.jpeg8_encode(photo, 90, subsampling="440")),
        "unusual factors": odd_sampling(jpeg_in_separate_scans(photo, saved), 0x22, 0x22, 0x22),
        "gray with factors": odd_sampling(saved(photo[:, :, 0], "JPEG"), 0x22),
        "separate scans": jpeg_in_separate_scans(photo, saved),
        "RGB": bytes(imagecodecs.jpeg8_encode(photo, 90, colorspace="RGB", outcolorspace="RGB")),
    }
    for name, content in odd.items():
        picture = read_picture(content)
        assert picture.notes == (), name
        with Image.open(io.BytesIO(content)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")) / np.float32(255)
        np.testing.assert_allclose(picture.pixels, expected, atol=1e-7, err_msg=name)


def test_a_damaged_profile_does_not_stop_the_decoder_and_is_said(photo: NDArray[np.uint8], saved: Save) -> None:
    data = saved(photo, "JPEG")
    part = segment(0xE2, b"ICC_PROFILE\0\x01\x03" + bytes(400))
    picture = read_picture(data[:2] + part + data[2:])
    assert picture.notes == ("the colour profile is incomplete; it was ignored",)
    np.testing.assert_array_equal(picture.pixels, read_picture(data).pixels)


def floods(data: bytes, progressive: bytes) -> Iterator[bytes]:
    """Fifty to a hundred megabytes of what costs a parser more than its bytes."""
    last = progressive.rindex(b"\xff\xda")
    scan = progressive[last:-2]
    for stray in (
        segment(0xE1, bytes(65_000)) * 1200,
        segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 900,
        segment(0xE1, b"") * 15_000_000,
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5000) * 900,
        segment(0xFE, bytes(65_000)) * 1200,
        b"\xff" * 60_000_000,
        b"\xff\0" * 30_000_000,
        b"\xff\xd0" * 30_000_000,
    ):
        yield data[:2] + stray + data[2:]
    yield progressive[:last] + segment(0xE1, bytes(65_000)) * 1200 + progressive[last:]
    yield progressive[:-2] + scan * (60_000_000 // len(scan)) + END
    yield data[:-2] + bytes(80_000_000) + END
    yield data[:-2] + bytes(80_000_000)


def test_floods_are_refused_in_bounded_time(photo: NDArray[np.uint8], saved: Save) -> None:
    """Some of these took minutes: Pillow joins EXIF segments by copying, and steps over stray bytes in Python."""
    small = np.ascontiguousarray(photo[:64, :64])
    for content in floods(saved(small, "JPEG"), saved(small, "JPEG", progressive=True)):
        with pytest.raises(PictureTooLarge):
            read_picture(content)


def test_a_flood_in_a_file_is_not_held(photo: NDArray[np.uint8], saved: Save, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(next(floods(saved(photo, "JPEG"), saved(photo, "JPEG", progressive=True))))
    code = f"""
from pathlib import Path
import simplejpeg
from rasr.errors import PictureTooLarge
from rasr.images import read_picture
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
before = peak()
try:
    read_picture({str(tmp_path / "a.jpg")!r})
except PictureTooLarge:
    print(peak() - before)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 120


def test_what_real_files_hold_is_within_the_budget(photo: NDArray[np.uint8], saved: Save) -> None:
    """Thirty megabytes of extended XMP with a depth map in it, sixty of trailing video."""
    data = saved(photo, "JPEG")
    content = data[:2] + segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) * 460 + data[2:]
    assert read_picture(content + bytes(60_000_000)).width == 226


def test_scans_are_counted(photo: NDArray[np.uint8], saved: Save) -> None:
    data = saved(photo, "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(PictureTooLarge, match="more than 100 scans"):
        read_picture(data[:-2] + scan * jpeg.MAX_SCANS + END)
    assert read_header(data[:-2] + scan * jpeg.MAX_SCANS + END).width == 226


@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_comments_are_kept_or_named(photo: NDArray[np.uint8], saved: Save, target: str) -> None:
    data = saved(photo, "JPEG")
    comments = ["Jürgen".encode("latin-1"), "猫".encode()]
    picture = read_picture(data[:2] + b"".join(segment(0xFE, comment) for comment in comments) + data[2:])
    content = encode_picture(picture, target)
    if target == "JPEG":
        assert losses(picture, "a.jpg") == ()
        assert read_picture(content).origin.texts == tuple(comments)
    else:
        assert losses(picture, f"a.{target.lower()}") == (f"{target} has no place for JPEG comments: left out",)
        assert comments[1] not in content
