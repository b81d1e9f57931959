"""Measures of one photo, for the filters: size, JPEG quality, block artefacts, blur, hash."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.dataset.journal import Measures
from rasr.errors import PictureError
from rasr.files import sha256_file
from rasr.gallery.photo import perceptual_hash
from rasr.images import FloatImage, Header, read_header, read_picture, resize

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "HEIF": ".heic"}
EXAMINED = 1024
"""Long side in pixels of the copy on which blur is measured: sensor noise is averaged away, softness stays."""
TILE = 128
SMALLEST = 16
"""Side in pixels under which blur cannot be told: the measure compares with an 11-pixel mean."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_STANDARD_LUMA_TABLE_SUM = 3689
"""Sum of the luminance table in the JPEG standard (ITU-T T.81, table K.1), which IJG quality 50 uses as it is."""


def measure(path: Path, min_short_side: int) -> tuple[Measures, FloatImage]:
    """Decode and measure a file; also returns its pixels, (H, W, 3) float32 in [0, 1].

    Raises PictureError for a file that is no whole picture, or whose short side is under ``min_short_side`` (found in
    the header: nothing is decoded then).
    """
    header = read_header(path)
    if min(header.width, header.height) < min_short_side:
        raise TooSmall(header)
    pixels = read_picture(path).opaque()
    luma = pixels @ _LUMA
    return Measures(
        sha256=sha256_file(path),
        size=path.stat().st_size,
        suffix=SUFFIXES[header.format],
        real_width=header.width,
        real_height=header.height,
        quality=_jpeg_quality(path) if header.format == "JPEG" else None,
        blockiness=round(blockiness(luma), 4),
        blur=round(blur(luma), 4),
        phash=f"{perceptual_hash(pixels):016x}",
    ), pixels


class TooSmall(PictureError):
    """Raised for a picture that is whole but smaller than wanted."""

    def __init__(self, header: Header) -> None:
        super().__init__(f"{header.width}x{header.height} pixels")


def _jpeg_quality(path: Path) -> int | None:
    """Estimate the IJG quality 1..100 from the file's luminance table; None without one.

    libjpeg scales the standard's table by 5000/q % below 50 and by 200 − 2q % above (jcparam.c); the sum of the table
    tells the scale, for other encoders' tables the nearest in strength. Under 20 entries are clipped at 255 and the
    answer is a little high.
    """
    with Image.open(path, formats=["JPEG"]) as image:
        tables = getattr(image, "quantization", {})
    if not tables:
        return None
    scale = 100.0 * sum(tables[min(tables)]) / _STANDARD_LUMA_TABLE_SUM
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return int(np.clip(round(quality), 1, 100))


def blockiness(luma: NDArray[np.float32]) -> float:
    """Measure the mean step across 8×8 borders over that elsewhere, in the worse direction.

    About 1 for photos without visible JPEG blocks, whatever their content; well above for low qualities, also when the
    file was saved again at a high one. ``luma`` is (H, W).
    """
    ratios = []
    for plane in (luma, luma.T):
        steps = np.abs(np.diff(plane, axis=1)).mean(axis=0)
        border = np.arange(1, len(steps) + 1) % 8 == 0
        if border.any() and not border.all():
            ratios.append(float((steps[border].mean() + 1e-4) / (steps[~border].mean() + 1e-4)))
    return max(ratios, default=1.0)


def blur(luma: NDArray[np.float32]) -> float:
    """Measure how blurred the sharpest part is, 0 sharp to 1 flat; ``luma`` is (H, W).

    Crété's measure (skimage.measure.blur_effect; doi 10.1117/12.702790) on tiles: of an animal before a soft
    background only the animal has to be sharp, so the tenth of the tiles that is sharpest counts.
    """
    from skimage.measure import blur_effect

    height, width = luma.shape
    shrink = EXAMINED / max(height, width)
    if shrink < 1:
        luma = resize(luma, (max(1, round(width * shrink)), max(1, round(height * shrink))), filter="area")
    height, width = luma.shape
    if min(height, width) < SMALLEST:
        return 1.0
    tiles = [
        luma[top : top + TILE, left : left + TILE]
        for top in range(0, max(1, height - TILE + 1), TILE)
        for left in range(0, max(1, width - TILE + 1), TILE)
    ]
    return float(np.quantile([blur_effect(tile) if np.ptp(tile) > 0 else 1.0 for tile in tiles], 0.1))
