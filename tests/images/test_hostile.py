"""Damaged bytes: whatever they are, a picture or a PictureError, and nothing on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import PictureError
from rasr.images import Encoding, Limits, encode_picture, read_header, read_picture
from rasr.images.encode import FORMATS
from rasr.images.picture import Origin, Picture

Save = Callable[..., bytes]

LIMITS = Limits(max_pixels=1_000_000, max_frames=100)


@pytest.fixture(scope="module")
def seeds(photo: NDArray[np.uint8], saved: Save, profiles: dict[str, bytes]) -> dict[str, bytes]:
    """One small file per kind, rich in metadata: every parser gets something to chew on."""
    small = np.ascontiguousarray(photo[:24, :30])
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769).update({0x9003: "2024:01:01 00:00:00", 0x927C: b"note" * 9})
    exif.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    common: dict[str, Any] = {
        "exif": exif,
        "icc_profile": profiles["display-p3"],
        "xmp": b"<x>tiff:Orientation='6'</x>",
    }
    origin = Origin(bits=16, icc=profiles["adobe-rgb"], exif=exif.tobytes(), xmp=common["xmp"])
    deep = Picture(small / np.float32(255), np.ones((24, 30), np.float32), origin)
    lzw = io.BytesIO()
    tifffile.imwrite(lzw, small.astype(np.uint16) * 257, photometric="rgb", compression="lzw", tile=(16, 16))
    heif = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(small)).save(heif)
    frames = [Image.fromarray(np.roll(small, 9, axis=1))]
    return {
        "jpeg": saved(small, "JPEG", **common),
        "jpeg cmyk": saved(Image.fromarray(small).convert("CMYK"), "JPEG", progressive=True),
        "png": saved(small, "PNG", **common),
        "png palette": saved(Image.fromarray(small).quantize(9), "PNG", transparency=3),
        "png 16": encode_picture(deep, "PNG"),
        "apng": saved(small, "PNG", save_all=True, append_images=frames),
        "webp": saved(small, "WEBP", save_all=True, append_images=frames, exif=exif.tobytes()),
        "webp lossless": saved(Image.fromarray(small).convert("RGBA"), "WEBP", lossless=True),
        "tiff": saved(small, "TIFF", compression="tiff_adobe_deflate", exif=exif),
        "tiff fax": saved(Image.fromarray(small).convert("1"), "TIFF", compression="group4"),
        "tiff jpeg": saved(small, "TIFF", compression="jpeg"),
        "tiff 16": encode_picture(deep, "TIFF"),
        "tiff 16 lzw": lzw.getvalue(),
        "heic": heif.getvalue(),
    }


KINDS = [
    "jpeg", "jpeg cmyk", "png", "png palette", "png 16", "apng", "webp", "webp lossless", "tiff", "tiff fax",
    "tiff jpeg", "tiff 16", "tiff 16 lzw", "heic",
]  # fmt: skip


def survives(data: bytes) -> None:
    for read in (read_header, read_picture):
        with contextlib.suppress(PictureError):
            result = read(data, limits=LIMITS)
            assert result.width * result.height <= LIMITS.max_pixels  # type: ignore[operator]  # set above
            if isinstance(result, Picture):
                assert np.isfinite(result.pixels).all()
                assert 0 <= result.pixels.min() <= result.pixels.max() <= 1
                for format_ in FORMATS.values():  # whatever was read can be written, where its sides fit
                    if max(result.width, result.height) <= format_.max_side:
                        encode_picture(result, format_, Encoding(quality=50, software="RASR", description="settings"))


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bits_and_cut_ends(
    seeds: dict[str, bytes], kind: str, capfd: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    content = bytearray(seeds[kind])
    for _ in range(data.draw(st.integers(0, 6))):
        # Headers and directories are where the parsers are: half of the flips go to the first 200 bytes.
        last = data.draw(st.sampled_from([min(200, len(content)) - 1, len(content) - 1]))
        content[data.draw(st.integers(0, last))] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(1, len(content))) :]
    survives(bytes(content))
    if not kind.startswith("tiff"):  # of the odder TIFFs, libtiff inside Pillow complains on the terminal
        assert not capfd.readouterr().err


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_noise_behind_a_signature(noise: bytes) -> None:
    for signature in (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"II*\0",
        b"MM\0*",
        b"II+\0\x08\0\0\0",
        b"",
    ):
        survives(signature + noise)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seeds_themselves_are_good(seeds: dict[str, bytes], kind: str) -> None:
    assert read_picture(seeds[kind]).width == 30


@pytest.mark.parametrize("kind", KINDS)
def test_every_length_of_a_file(seeds: dict[str, bytes], kind: str) -> None:
    content = seeds[kind]
    for length in range(1, len(content), max(1, len(content) // 60)):
        survives(content[:length])


def test_a_truncated_tiff_of_the_common_kinds_prints_nothing(seeds: dict[str, bytes], tmp_path: Path) -> None:
    """In a process of its own: pytest takes over logging, and with it what would reach a terminal."""
    for kind in ("tiff", "tiff 16", "tiff 16 lzw"):
        (tmp_path / f"{kind}.tif").write_bytes(seeds[kind][: len(seeds[kind]) * 3 // 4])
        (tmp_path / f"{kind} strips.tif").write_bytes(seeds[kind].replace(b"\x11\x01\x04\0", b"\x11\x01\x06\0"))
    code = f"""
from rasr.errors import PictureError
from rasr.images import find_pictures, read_picture
for path in find_pictures({str(tmp_path)!r}):
    try:
        read_picture(path)
    except PictureError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.count("damaged or truncated") >= 3
    assert result.stderr == ""


def test_png_of_wrong_depth_for_its_content() -> None:
    """A 16-bit header over 8-bit rows."""
    data = bytearray(imagecodecs.png_encode(np.zeros((8, 8, 3), np.uint8)))
    data[24] = 16
    survives(bytes(data))


@pytest.mark.large
@pytest.mark.timeout(3600)
def test_ten_thousand_mutants(seeds: dict[str, bytes], saved: Save, photo: NDArray[np.uint8], tmp_path: Path) -> None:
    """No crash, no error outside of the PictureError family, none over half a minute, and little memory."""
    large = {
        "photo jpeg": saved(photo, "JPEG", progressive=True),
        "photo restarts": saved(photo, "JPEG", restart_marker_rows=1),
        "photo png": saved(photo, "PNG", dpi=(300, 300)),
        "photo webp": saved(photo, "WEBP"),
        "photo tiff": saved(photo, "TIFF", compression="tiff_lzw"),
        "photo tiff jpeg": saved(photo, "TIFF", compression="jpeg"),
    }
    for name, content in (seeds | large).items():
        (tmp_path / name).write_bytes(content)
    total: Counter[str] = Counter()
    for first in range(0, 10_000, 1000):
        command = [sys.executable, "-m", "tests.images.mutants", str(tmp_path), str(first), "1000"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        found = json.loads(result.stdout)
        assert found["growth"] < 300
        total.update(found["outcomes"])
    sys.stderr.write(f"{dict(total)}\n")
    assert sum(total.values()) == 10_000
    assert total["read"] > 500
    assert total["PictureError"] > 2000
