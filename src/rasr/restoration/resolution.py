"""Resolution that a picture really has: how far its sharpest edges are blurred, and the size at which they are sharp.

A network that restores sees detail of the size of pixels. What a large soft photo lacks is coarser than that, so it is
reduced until its edges are as sharp as those that the network knows. A photo is as sharp as its sharpest parts, which
rules the spectrum of the whole picture out: sky and a background out of focus make it fall, grain and JPEG fill it up.
So the edges are asked. One more Gaussian of known width flattens a sharp edge much and a soft one little (Zhuo and Sim,
"Defocus map estimation from a single image", 2011). They are asked at half, a quarter, ... of the size as well, as
long as they are blurred there too: reducing takes away noise, which would pass for sharpness.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage, resize
from rasr.restoration.tiles import add_by_strips

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
SMOOTHED, FLATTENED = 0.7, 1.5
"""Deviations, in pixels, of the Gaussian that all is seen through, and of the one that flattens further."""
EDGE = 0.02
"""Least slope of an edge, in the range of pixel values, a pixel: below are noise and flat parts."""
STRONGEST = 0.02
"""Edges looked at, the strongest, as a share of all pixels."""
FEWEST = 50
"""Edges without which nothing is said."""
SHARPEST = 20
"""Percentile of the edges' blur that is the picture's: its sharpest parts, not a speck in them."""
WINDOW, MARGIN = 1024, 8
"""Side of the windows that are looked at, so that memory stays bounded, and pixels seen around them."""
SMALLEST = 64
"""Shorter side of the smallest size that is looked at, and of what is reduced."""
LEVELS = 5
"""Sizes looked at: whole, half, ..., a sixteenth."""
BLURRED_ON = 1.0
"""Blur, in pixels of one size, from which on the next smaller is looked at."""
LARGE = 192
"""Shorter side of the smallest picture that is reduced: a smaller one has none to spare."""
BLURRED = 1.35
"""Blur, in pixels of the picture, from which on it is reduced: the softest of 398 sharp photos has 1.27."""
ENLARGED = 2.0
"""The more a picture is to be enlarged, the blurrier it must be: by half a pixel for each time."""
WANTED = 1.0
"""Blur, in pixels, that is left after reducing."""
TOLD, CALMED = 1.2, 0.4
"""Real blurs as a multiple of those that are told, and the Gaussian that takes noise from what is put back, as a
multiple of the blur."""
COARSE = 4.0
"""Least deviation, in pixels, of the coarser grid on which Gaussians of more than its double are computed."""


def estimate_blur(pixels: FloatImage) -> float:
    """Deviation, in pixels, of the Gaussian by which the sharpest edges of ``pixels`` (H, W, 3) are blurred.

    0 where they are sharp, and where there are no edges to tell.
    """
    import cv2

    level, blur = np.ascontiguousarray(pixels @ LUMA, np.float32), 0.0
    for number in range(LEVELS):
        if min(level.shape) < SMALLEST:
            break
        found = _edges_blur(level)
        if found is None:
            break
        blur = max(blur, found * 2**number)
        # The whole size is passed over: its noise says the least.
        if number and found < BLURRED_ON:
            break
        level = cv2.resize(level, (level.shape[1] // 2, level.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return blur


def sharp_size(pixels: FloatImage, scale: float = 1.0) -> tuple[int, int] | None:
    """(width, height) at which a blurred picture (H, W, 3) is sharp; None for one that is to stay as it is.

    ``scale`` is how many times larger the result will be: the network that fills a result four times larger than the
    picture fills a quarter of it from a picture reduced by half, and the rest is interpolated.
    """
    blur = _blur_to_reduce(pixels, scale)
    return _sharp(pixels, blur) if blur else None


def reduce_blurred(pixels: FloatImage, scale: float = 1.0) -> tuple[FloatImage, float]:
    """Reduce a blurred picture to :func:`sharp_size`; returns it and its blur, another one itself and 0."""
    blur = _blur_to_reduce(pixels, scale)
    return (np.clip(resize(pixels, _sharp(pixels, blur)), 0.0, 1.0), blur) if blur else (pixels, 0.0)


def put_back(pixels: FloatImage, blurred: FloatImage, blur: float) -> None:
    """Change a result (H, W, 3) in place so that, blurred, it is what the picture (h, w, 3) shows.

    What is restored from a reduced picture may contradict the picture: it is blurred, but not noisy, and what it shows
    beyond the result is added (one step of back-projection: Irani and Peleg, "Improving resolution by image
    registration", 1991), through a Gaussian that takes noise out. ``blur`` is the picture's, in its pixels, as
    :func:`reduce_blurred` tells it; nothing is changed with 0.
    """
    if not blur:
        return
    deviation = TOLD * blur * pixels.shape[1] / blurred.shape[1]

    def lacking(shown: FloatImage, result: FloatImage, deviation: float) -> FloatImage:
        return _smooth(shown - _smooth(result, deviation), CALMED * deviation)

    if (times := int(deviation / COARSE)) > 1:  # what is lacking is as smooth as the Gaussians, and needs no finer grid
        height, width = pixels.shape[:2]
        small = max(1, round(width / times)), max(1, round(height / times))
        found = lacking(resize(blurred, small), resize(pixels, small), deviation * small[0] / width)
        add_by_strips(pixels, found, 0, lambda found, _: found)
        return
    reach = math.ceil(5 * (1 + CALMED) * deviation) + 2
    add_by_strips(pixels, blurred, reach, lambda shown, result: lacking(shown, result, deviation))


def tell_reduced(pixels: FloatImage, reduced: FloatImage) -> list[str]:
    """Say that a picture was reduced; nothing of one that is itself."""
    if reduced is pixels:
        return []
    (height, width), (low, narrow) = pixels.shape[:2], reduced.shape[:2]
    told = f"The picture is blurred: restored at the {narrow}×{low} pixels at which it is sharp, of {width}×{height}."
    return [f"{told} --no-reduce (reduce=False) restores all of them."]


def _blur_to_reduce(pixels: FloatImage, scale: float) -> float:
    """Blur of a picture that is to be reduced, 0 for another one."""
    if min(pixels.shape[:2]) < LARGE or (blur := estimate_blur(pixels)) < max(BLURRED, scale / ENLARGED):
        return 0.0
    return blur


def _sharp(pixels: FloatImage, blur: float) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    share = max(WANTED / blur, SMALLEST / min(height, width))
    return max(1, round(width * share)), max(1, round(height * share))


def _edges_blur(level: NDArray[np.float32]) -> float | None:
    """Blur of the sharpest of the strong edges of a plane (H, W), in its pixels; None with too few of them."""
    height, width = level.shape
    # The outermost pixels say nothing: there the filters see the picture's mirror image.
    found = [
        _edges(level[top - MARGIN : top + WINDOW + MARGIN, left - MARGIN : left + WINDOW + MARGIN])
        for top in range(MARGIN, height - MARGIN, WINDOW)
        for left in range(MARGIN, width - MARGIN, WINDOW)
    ]
    slopes, flattened = np.concatenate(found, axis=1)
    count = min(len(slopes), round(STRONGEST * height * width))
    if count < FEWEST:
        return None
    strongest = np.argpartition(slopes, -count)[-count:]
    lost = np.maximum((slopes[strongest] / np.maximum(flattened[strongest], 1e-6)) ** 2 - 1, 1e-3)
    blurs = np.sqrt(np.maximum(FLATTENED**2 / lost - SMOOTHED**2, 0))
    return float(np.percentile(blurs, SHARPEST))


def _edges(part: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, N): slopes at the crests of a part's edges, and what is left of them once flattened further."""
    import cv2

    def slope(deviation: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        seen = _smooth(part, deviation)
        x, y = (
            cv2.Sobel(seen, cv2.CV_32F, *axis, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REFLECT)
            for axis in ((1, 0), (0, 1))
        )
        return np.hypot(x, y), np.abs(x) >= np.abs(y)

    slopes, upright = slope(SMOOTHED)
    flattened, _ = slope(float(np.hypot(SMOOTHED, FLATTENED)))
    inner = (slice(MARGIN, -MARGIN),) * 2
    across = [np.maximum(np.roll(slopes, 1, axis), np.roll(slopes, -1, axis)) for axis in (1, 0)]
    crest = (slopes >= np.where(upright, *across)) & (slopes > EDGE)
    return np.stack([plane[inner][crest[inner]] for plane in (slopes, flattened)])


def _smooth(part: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    """Gaussian at full size however wide it is, so that strips and windows join without a seam."""
    import cv2

    return np.asarray(cv2.GaussianBlur(part, (0, 0), deviation, borderType=cv2.BORDER_REFLECT), np.float32)
