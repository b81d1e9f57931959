"""Decoding process: looks at what a client sent, under limits that the system keeps."""

from __future__ import annotations

import importlib
import io
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.child import Pipe, parent_of
from rasr.errors import PictureError, PictureTooLarge, RasrError, UnsupportedFormat, shown
from rasr.images import Limits, Picture, read_header, read_picture
from rasr.memory import LruCache  # noqa: F401  (what reading loads is loaded before the limits are set)

BYTES_PER_PIXEL = 20
"""Peak cost of decoding and of drawing a picture as it is shown."""
ROOM = 64 * 2**20
"""Bytes for what does not depend on the size: parsers, profiles, metadata."""
FRAMES = 1000
ROWS = 64
"""Rows that are made ready to be shown at once."""
THUMBNAIL = 256
LATE = ("PIL.ImageCms", "imagecodecs", "tifffile", "simplejpeg", "rasr.images.exif", "rasr.images.xmp", "pillow_heif")
"""Loaded by some pictures only, and so before the limits are set."""


def main() -> None:
    """Answer the parent's tasks until it hangs up."""
    pipe = parent_of(sys.argv, 2**20)
    for name in LATE:
        with suppress(ImportError):
            importlib.import_module(name)
    Image.init()
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    with suppress(EOFError, OSError):
        config, _ = pipe.receive()
        _limit(int(config["max_pixels"]))
        pipe.send({"ready": True})
        while True:
            task, _ = pipe.receive()
            _limit_cpu(float(task["cpu_seconds"]))
            said, content = _answer(task, pipe)
            pipe.send(said, content)


def _limit(pixels: int) -> None:
    """Bound what this process may take from the system: memory, files, and nothing written."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    memory = used + ROOM + pixels * BYTES_PER_PIXEL
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_cpu(seconds: float) -> None:
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, resource.RLIM_INFINITY))


def _answer(task: dict[str, Any], pipe: Pipe) -> tuple[dict[str, Any], bytes]:
    """Do a task; what a picture does wrong becomes a code and a sentence with its name instead of its place."""
    path, limits = Path(task["path"]), Limits(int(task["max_pixels"]), FRAMES)
    code = "unreadable"
    try:
        header = read_header(path, limits=limits)
        facts = {"width": header.width, "height": header.height, "format": header.format}
        pipe.send({"header": facts})  # from here on there is more time, by size
        picture = read_picture(path, limits=limits)
        content, kind = _drawn(picture, task.get("show"))
        return {**facts, "type": kind, "notes": [shown(note) for note in picture.notes]}, content
    except PictureTooLarge as error:
        code, fault = "too_large", str(error)
    except UnsupportedFormat as error:
        code, fault = "unsupported", str(error)
    except (MemoryError, RasrError) as error:
        memory = isinstance(error, MemoryError) or not isinstance(error, PictureError)
        code = "too_large" if memory and "memory" in (str(error) or "memory") else code
        fault = str(error) or f"{path}: decoding it takes more memory than is allowed."
    except OSError as error:
        fault = f"{path}: cannot be read ({error.strerror or error})."
    return {"code": code, "message": shown(fault.replace(str(path), task["name"]))}, b""


def _drawn(picture: Picture, how: str | None) -> tuple[bytes, str]:
    """The picture as a browser shows it: None, ``png`` at its size, ``photo`` (JPEG if opaque), or ``thumbnail``."""
    if how is None:
        return b"", ""
    levels = to_levels(picture)
    image, buffer = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels), io.BytesIO()
    if how == "thumbnail":
        image.thumbnail((THUMBNAIL, THUMBNAIL), reducing_gap=3.0)
        if "A" in image.mode:
            paper = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
        image.save(buffer, "JPEG", quality=85)
        return buffer.getvalue(), "image/jpeg"
    if how == "photo" and picture.alpha is None:
        image.save(buffer, "JPEG", quality=93, subsampling=0)
        return buffer.getvalue(), "image/jpeg"
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), "image/png"


def to_levels(picture: Picture) -> NDArray[np.uint8]:
    """(H, W, 1 to 4) levels, sRGB of 8 bits, a few rows at a time: gray, with alpha, or colour."""
    gray = picture.origin.gray
    colours = 1 if gray else 3
    levels = np.empty((picture.height, picture.width, colours + (picture.alpha is not None)), np.uint8)
    for top in range(0, picture.height, ROWS):
        part = slice(top, top + ROWS)
        levels[part, :, :colours] = np.rint(np.clip(picture.pixels[part, :, :colours], 0.0, 1.0) * 255)
        if picture.alpha is not None:
            levels[part, :, -1] = np.rint(np.clip(picture.alpha[part], 0.0, 1.0) * 255)
    return levels


if __name__ == "__main__":
    main()
