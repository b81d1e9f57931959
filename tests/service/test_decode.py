"""Files that would hurt: refused in seconds, in a process that stays small, with nothing left behind."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import SOURCE, Served, picture

DECODER = "rasr.service.decode"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes, rows: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def huge_png() -> bytes:
    """50 000 × 50 000 pixels, of zeros."""
    return png(50_000, 50_000, rows=zlib.compress(b"\0" * 10_000_000, 9))


def text_bomb() -> bytes:
    """A small picture with text that unpacks to 256 MiB."""
    packed = zlib.compressobj(9)
    text = b"".join(packed.compress(b"\0" * 2**20) for _ in range(256)) + packed.flush()
    return png(8, 8, chunk(b"zTXt", b"Comment\0\0" + text), rows=zlib.compress(b"\0" * 200))


def profile_bomb() -> bytes:
    packed = zlib.compressobj(9)
    icc = b"".join(packed.compress(b"\0" * 2**20) for _ in range(256)) + packed.flush()
    return png(8, 8, chunk(b"iCCP", b"icc\0\0" + icc), rows=zlib.compress(b"\0" * 200))


def tiff_chain() -> bytes:
    """Directories that follow each other in a circle."""
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 8)


def long_tiff_chain() -> bytes:
    """20 000 pages of one pixel."""
    content, offset = b"II*\0" + struct.pack("<I", 8), 8
    parts = [content]
    entries = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (279, 4, 1, 1)]  # fmt: skip
    size = 2 + 12 * len(entries) + 4
    for _ in range(20_000):
        offset += size
        directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in entries)
        parts.append(directory + struct.pack("<I", offset))
    return b"".join(parts)


def webp_film() -> bytes:
    """A WebP of 1 500 frames."""
    stream = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), (number % 256, number // 256, 0)) for number in range(1500)]
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return stream.getvalue()


def tiff_of_webp() -> bytes:
    """A TIFF whose strip is a WebP of 16 000 × 16 000 pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "WEBP", lossless=True)
    webp = bytearray(stream.getvalue())
    entries = [(256, 4, 1, 16_000), (257, 4, 1, 16_000), (258, 3, 1, 8), (259, 3, 1, 50_001), (262, 3, 1, 2),
               (273, 4, 1, 200), (277, 3, 1, 3), (278, 4, 1, 16_000), (279, 4, 1, len(webp))]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one) for one in entries)
    head = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0)
    return head.ljust(200, b"\0") + bytes(webp)


def just_too_many() -> bytes:
    """A true picture of more than 25 megapixels."""
    stream = io.BytesIO()
    Image.new("L", (5_100, 5_000)).save(stream, "PNG")
    return stream.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "huge.png": huge_png,
    "text.png": text_bomb,
    "profile.png": profile_bomb,
    "circle.tif": tiff_chain,
    "chain.tif": long_tiff_chain,
    "film.webp": webp_film,
    "strip.tif": tiff_of_webp,
    "many.png": just_too_many,
    "empty.png": lambda: b"",
    "text.txt": lambda: b"hello",
    "cut.png": lambda: picture()[:100],
    "page.svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "old.gif": lambda: b"GIF89a" + b"\0" * 50,
}
FINE = {"text.png", "profile.png", "circle.tif"}
"""May also be read: what is too much in them is left out."""


class Watch:
    """Highest resident memory of the decoding processes."""

    def __init__(self, served: Served) -> None:
        self.peak = 0
        self._served, self._over = served, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._over.wait(0.005):
            for child in self._served.children(DECODER):
                try:
                    self.peak = max(self.peak, int(Path(f"/proc/{child}/statm").read_text().split()[1]) * page)
                except OSError:
                    continue

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    service = Served(tmp_path_factory.mktemp("strict") / "data")
    yield service
    assert service.stop() == 0


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_file_is_refused(strict: Served, name: str) -> None:
    content = HOSTILE[name]()
    with Watch(strict) as watch:
        begun = time.monotonic()
        answer = strict.submit(content, name, scale="1")
        took = time.monotonic() - begun
    allowed = {413, 415, 422} | ({202} if name in FINE else set())
    assert answer.status_code in allowed, answer.text
    if answer.status_code != 202:
        assert name in answer.json()["error"]["message"]
        assert str(strict.data) not in answer.text
    assert took < 15  # 3 s on a machine that does nothing else
    assert watch.peak < 600 * 2**20
    assert not list((strict.data / "tmp").iterdir())


SITE = """
import sys
if "-m" in sys.orig_argv and "rasr.service.decode" in sys.orig_argv:
    import rasr.service.decode as decode
    before = decode.read_header
    def read_header(path, **limits):
        if "hang.png" in str(path):
            import time
            while True: {hang}
        if "eat.png" in str(path):
            held = []
            while True: held.append(bytearray(2**20))
        if "crash.png" in str(path):
            import ctypes
            ctypes.string_at(0)
        return before(path, **limits)
    decode.read_header = read_header
    decode.main()
    sys.exit()
"""


@pytest.mark.parametrize("hang", ["pass", "time.sleep(1)"])
def test_a_decoder_that_hangs_eats_or_crashes_is_replaced(
    start: Callable[..., Served], tmp_path: Path, hang: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE.format(hang=hang))
    served = start(PYTHONPATH=f"{tmp_path / 'site'}{os.pathsep}{SOURCE}")
    with Watch(served) as watch:
        for name, words in [
            ("hang.png", ["took too long"]),
            ("eat.png", ["memory", "took too long"]),  # whichever limit is reached first
            ("crash.png", ["signal 11"]),
        ]:
            begun = time.monotonic()
            answer = served.submit(picture(), name)
            assert answer.status_code in {413, 422}, answer.text
            assert any(one in answer.json()["error"]["message"] for one in words)
            assert time.monotonic() - begun < 15
            assert served.submit(picture(), "fine.png", scale="1").status_code == 202
    assert watch.peak < 600 * 2**20
    assert not list((served.data / "tmp").iterdir())


def test_the_largest_picture_fits_its_process(strict: Served) -> None:
    """25 megapixels, with a profile, shown as PNG: within the memory that is allowed."""
    from PIL import ImageCms

    pixels = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    stream = io.BytesIO()
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).resize((5000, 5000)).save(stream, "JPEG", icc_profile=icc)
    job = strict.submit(stream.getvalue(), "large.jpg", scale="0.1")
    assert job.status_code == 202, job.text
    with Watch(strict) as watch:
        assert strict.client.get(f"/jobs/{job.json()['id']}/input").status_code == 200
    assert watch.peak < 600 * 2**20
