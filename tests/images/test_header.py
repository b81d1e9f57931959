"""Headers: what is said about a file before anything is decoded, and bombs that never go off."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from rasr.errors import PictureError, PictureTooLarge
from rasr.images import Limits, header, read_header, read_picture
from rasr.images.plugins import Budget
from rasr.images.tiff import read_directories

Save = Callable[..., bytes]
Chunk = Callable[[bytes, bytes], bytes]


def tiff_directories(count: int, *, loop: bool = False) -> bytes:
    """A 1×1 gray TIFF whose directory chain has ``count`` links, or bites its tail."""
    entries = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (278, 3, 1, 1),
        (279, 4, 1, 1),
    ]
    size = 2 + 12 * len(entries) + 4
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    first = 10
    data = b"II*\0" + struct.pack("<I", first) + b"\x80\0"
    parts = [body + struct.pack("<I", first + size * (index + 1)) for index in range(count - 1)]
    return data + b"".join(parts) + body + struct.pack("<I", first if loop else 0)


@pytest.fixture(scope="module")
def bombs(png_chunk: Chunk, saved: Save) -> dict[str, bytes]:
    """Small files that announce, or unpack to, something huge."""
    signature = b"\x89PNG\r\n\x1a\n"
    end = png_chunk(b"IDAT", zlib.compress(b"\0\0\0\0")) + png_chunk(b"IEND", b"")

    def header(width: int, height: int) -> bytes:
        return signature + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))

    jpeg = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65_535, 65_535)
    frames = [Image.new("RGB", (16, 16), (index, 255 - index, 0)) for index in range(100)]
    webp = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, method=0)
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + (16_382).to_bytes(3, "little") * 2
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 * 2**20), 9))
    profile = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100 * 2**20), 9))
    wide_tiff = bytearray(saved(Image.new("L", (1, 1)), "TIFF"))
    for tag in (256, 257):
        place = wide_tiff.index(struct.pack("<HH", tag, 4))
        wide_tiff[place + 8 : place + 12] = struct.pack("<I", 1_000_000)
    return {
        "png 50k": header(50_000, 50_000) + end,
        "png text": header(1, 1) + text + end,
        "png profile": header(1, 1) + profile + end,
        "jpeg 65k": bytes(jpeg),
        "webp canvas": b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas,
        "webp frames": webp,
        "tiff chain": tiff_directories(100_000),
        "tiff size": bytes(wide_tiff),
    }


STRICT = Limits(max_pixels=50_000_000, max_frames=60)
BOMBS = ["png 50k", "png text", "png profile", "jpeg 65k", "webp canvas", "webp frames", "tiff chain", "tiff size"]


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_anything_is_decoded(
    bombs: dict[str, bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoding(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    expected = PictureError if name in {"png text", "png profile"} else PictureTooLarge
    for read in (read_picture, read_header):
        with pytest.raises(expected):
            read(bombs[name], limits=STRICT)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_little_memory(bombs: dict[str, bytes], name: str, tmp_path: Path) -> None:
    """Peak growth in a fresh process, where nothing else moves: under 50 MB, at 50 megapixels and 60 frames."""
    (tmp_path / "bomb").write_bytes(bombs[name])
    code = f"""
from pathlib import Path
from rasr.errors import PictureError
from rasr.images import Limits, read_picture
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
before = peak()
try:
    read_picture({str(tmp_path / "bomb")!r}, limits=Limits(50_000_000, 60))
except PictureError:
    print(peak() - before)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 50


def test_a_chain_of_directories_that_bites_its_tail_ends(tmp_path: Path) -> None:
    data = tiff_directories(5, loop=True)
    assert read_header(data).frames == 5
    (tmp_path / "loop.tif").write_bytes(data)
    with (tmp_path / "loop.tif").open("rb") as file:
        assert read_directories(file, 3, Budget("loop")).pages == 4  # one above what is allowed is enough to refuse it


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_gives_the_upright_size_without_decoding(
    photo: NDArray[np.uint8], saved: Save, format_: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(photo, format_, exif=exif)

    def decoding(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    header = read_header(data)
    assert header.orientation == orientation
    assert (header.width, header.height) == ((226, 149) if orientation < 5 else (149, 226))


def test_an_exif_chunk_behind_the_pixels_of_a_png_counts(
    photo: NDArray[np.uint8], saved: Save, png_chunk: Chunk
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(photo, "PNG")
    late = data[:-12] + png_chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:]
    assert read_header(late).orientation == 6
    np.testing.assert_allclose(read_picture(late).pixels, np.rot90(photo, -1) / np.float32(255), atol=1e-7)


def test_limits_apply_to_headers_too(photo: NDArray[np.uint8], saved: Save, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(saved(photo, "PNG"))
    with pytest.raises(PictureTooLarge, match=r"a.png: not read, it has 226×149 pixels"):
        read_header(file, limits=Limits.megapixels(0.01))
    with pytest.raises(PictureTooLarge, match=r"picture: not read, it has 226×149 pixels"):
        read_header(file.read_bytes(), limits=Limits.megapixels(0.01))


def test_a_caller_s_own_error_is_not_blamed_on_the_file(photo: NDArray[np.uint8], saved: Save) -> None:
    from rasr.images.header import open_header

    def use() -> Any:
        with open_header(saved(photo, "PNG"), Limits()):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        use()


def test_the_default_comes_from_memory_with_a_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "usable_memory", lambda: 2**30)
    assert Limits.from_memory().max_pixels == 89_478_485
    monkeypatch.setattr(header, "usable_memory", lambda: 480 * 10**9)
    assert Limits.from_memory().max_pixels == 10 * 10**9
    assert Limits.from_memory(4).max_pixels == 2.5 * 10**9, "four processes beside one another"


def test_megapixels_are_exact_at_the_border_and_none_is_no_limit() -> None:
    Limits.megapixels(1).check(1000, 1000, 1, "x")
    with pytest.raises(PictureTooLarge, match=r"x: not read, it has 1001×1000 pixels .*--max-megapixels N"):
        Limits.megapixels(1).check(1001, 1000, 1, "x")
    Limits.megapixels(None).check(10**6, 10**6, 1, "x")


def test_frames_are_counted_and_the_refusal_says_nothing_of_megapixels() -> None:
    limits = Limits(max_frames=60)
    limits.check(1, 1, 60, "x")
    with pytest.raises(PictureTooLarge, match="more than 60 frames") as refused:
        limits.check(1, 1, 61, "x")
    assert "--max" not in str(refused.value)


def test_one_s_own_long_scan_counts_only_the_page_that_is_read() -> None:
    Limits(max_pixels=10**7).check(3000, 3000, 200, "scan.tif")


def test_files_and_pictures_held_beside_count(photo: NDArray[np.uint8], saved: Save, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(saved(photo, "PNG"))
    size = file.stat().st_size
    assert read_header(file, limits=Limits(max_bytes=size)).width == 226
    with pytest.raises(
        PictureTooLarge, match=r"a.png: not read, the file has 0.0 GiB and the limit is 0.0. '--max-meg"
    ):
        read_header(file, limits=Limits(max_bytes=size - 1))
    assert Limits.megapixels(None).max_bytes is None
    pixels = 226 * 149
    read_picture(file, limits=Limits(pixels + 5, held_pixels=5))
    with pytest.raises(PictureTooLarge, match=r"beside 0\.0 megapixels of pictures that are needed with it"):
        read_picture(file, limits=Limits(pixels + 5, held_pixels=6))


@pytest.mark.parametrize(
    ("name", "start"), [("WEBP", b"RIFF\xf8\xff\xff\x3fWEBPVP8 "), ("HEIF", b"\0\0\0\x18ftypheic")]
)
def test_what_its_library_reads_whole_is_bounded(tmp_path: Path, name: str, start: bytes) -> None:
    file = tmp_path / "hole"
    file.write_bytes(start + bytes(30))
    with file.open("ab") as out:
        out.truncate(2**30)
    with pytest.raises(PictureTooLarge, match=f"{name} files are read up to 512 MiB"):
        read_header(file)
