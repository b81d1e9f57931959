"""Alignment: a photo of the same scene brought onto a picture to a fraction of a pixel, and how far to trust it where.

The homography of the verdict is off by several pixels wherever the scene is not flat. Optical flow (DIS, Kroeger et
al., ECCV 2016) finds the rest, but flow follows every edge of a restored picture, and these are drawn up to a pixel
beside the true ones. So only its locally affine part is kept: what a small piece of a real surface does between two
photos. The windows over which it is fitted grow finer only where the photo then agrees better with the picture.
What is left on the whole is taken out last, by least squares over wide windows (Lucas and Kanade, IJCAI 1981).
Both are looked at half as large as they are: what is finer is drawn, and must not steer.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage
from rasr.registration.features import Matrix, Points, scaling
from rasr.registration.matching import transform
from rasr.registration.scene import SceneMatch, as_fine_as, warp

LOOK = 2
"""Pixels of the picture along one in which it is compared with the photo. Sizes below are in these larger pixels."""
GUIDE_BLUR = 0.7
"""Sigma: detail finer than this is drawn, not seen."""
BAND = (0.4, 4.0)
"""Sigmas of the band in which picture and photo are compared, on top of the blur."""
FLOW_WINDOW = 8.0
"""Sigma within which light and contrast are taken out before flow is sought."""
COARSE_WINDOWS = (24.0, 12.0)
FINE_WINDOWS = (12.0, 6.0, 4.0)
"""Sigmas of the windows over which an affine motion is fitted."""
FIT_WINDOWS = (3.5, 6.0)
"""Sigmas over which picture and photo are correlated, and over which that is averaged to choose between motions."""
FINER_WHERE = 0.06
"""Rise in correlation that a finer window must bring: some comes from following the noise."""
CLEARLY = 0.02
"""Rise in correlation that decides between places by the picture's own matches and by the homography, and loss of it
that is allowed where a photo was aligned a second time."""
AGAIN_WINDOW = 12.0
"""Sigma over which correlation is averaged to choose between the first and the second time."""
STEP = 2
"""Fields are fitted on every second pixel: they are smooth."""
SETTLE_WINDOW = 24.0
"""Sigma of the windows that are shifted as wholes at the end; smaller ones follow the noise."""
SETTLE_ROUNDS = 3
SETTLE_REACH = 1.0
"""Pixels that one round may shift a place by."""
SETTLE_RIDGE = 1e-3
UNLIKE = 0.5
"""Difference, in local contrasts, at which a pixel counts a half: another thing, or noise."""
SPARSE_WINDOW = 20.0
SURE_WINDOW = 4.5
"""Sigma over which picture and photo are correlated to tell how sure a place is."""
SURE_CORRELATION = (0.2, 0.5)
"""Correlation with the picture from which a place is trusted, and from which it is trusted fully."""
BENT = 0.2
"""Strain (change of the offset from a pixel to the next) up to which a place is trusted; at twice this not at all."""
COLOUR_WINDOW = 2.5
OTHER_COLOUR = 0.15
"""Difference of colours, once the photo's are matched, at which trust has fallen to 1/e: another thing stands there."""
FLAT = 0.006
"""Contrast below which a place has nothing to compare; it is trusted as its surroundings are."""

LOUDER = 3.0
"""Times the picture's contrast that a photo's may have: where a wall stands before the sky, trust falls."""

NARROWEST = 3.0
"""Pixels of sigma that a wide Gaussian keeps when it is taken on a smaller picture."""

Plane = NDArray[np.float32]
"""(H, W) float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """A photo as the picture sees it."""

    seen: FloatImage
    """(H, W, 3), the photo warped onto the picture."""
    confidence: Plane
    """(H, W), 0 to 1: how sure it is that the photo shows this very place, this very thing."""
    offsets: NDArray[np.float32]
    """(H, W, 2): the place x, y of the photo is that of the homography at x + offset."""


def align(
    picture: FloatImage,
    enlarged: FloatImage,
    photo: FloatImage,
    found: SceneMatch,
    origin: tuple[int, int] = (0, 0),
    *,
    sharper: FloatImage | None = None,
    before: Alignment | None = None,
) -> Alignment:
    """Bring ``photo`` onto a window of the picture whose left upper corner lies at ``origin`` (x, y).

    ``picture`` and ``enlarged`` are that window of the restored picture and of the low-quality one at the same size,
    (H, W, 3) in [0, 1]; ``found`` comes from :meth:`SceneQuery.compare` on the whole picture. ``sharper`` is the
    picture with the detail of photos, by which places are then sought; ``before`` is an earlier alignment of the same
    photo, kept wherever the picture itself agrees better with it.
    """
    height, width = picture.shape[:2]
    size = max(1, -(-width // LOOK)), max(1, -(-height // LOOK))
    larger = scaling(size, (width, height))
    unit = np.diag(larger)[:2].astype(np.float32)
    to_photo = found.to_reference @ np.array([[1.0, 0, origin[0]], [0, 1.0, origin[1]], [0, 0, 1.0]])
    light = cv2.resize(enlarged, size, interpolation=cv2.INTER_AREA)

    def guide(shown: FloatImage) -> Plane:
        levels: Plane = 0.5 * luma(cv2.resize(shown, size, interpolation=cv2.INTER_AREA)) + 0.5 * luma(light)
        return levels

    look = plain = _Look(guide(picture), *as_fine_as(photo, to_photo @ larger, size))
    if sharper is not None:
        look = _Look(guide(sharper), plain.photo, plain.to_photo)
    offsets = look.field(found, origin, larger)
    if before is not None:
        offsets = plain.better(cv2.resize(before.offsets, size, interpolation=cv2.INTER_AREA) / unit, offsets)
    seen, inside = plain.see(offsets)
    sure = cv2.resize(_confidence(plain.guide, light, seen, inside, offsets), (width, height))
    whole = cv2.resize(offsets, (width, height), interpolation=cv2.INTER_CUBIC) * unit
    seen, inside = warp(*as_fine_as(photo, to_photo, (width, height)), (width, height), whole)
    return Alignment(seen, sure * inside, whole)


class _Look:
    """The photo under any field of offsets, compared with the picture."""

    def __init__(self, guide: Plane, photo: FloatImage, to_photo: Matrix) -> None:
        self.guide = blur(guide, GUIDE_BLUR)
        self.size = (guide.shape[1], guide.shape[0])
        self.photo, self.to_photo = photo, to_photo
        self._band = _band(self.guide, *BAND)
        self._levels = _levels(self.guide)
        grid = np.meshgrid(np.arange(self.size[0], dtype=np.float32), np.arange(self.size[1], dtype=np.float32))
        self._grid = np.stack(grid, -1)

    def see(self, offsets: NDArray[np.float32]) -> tuple[FloatImage, NDArray[np.bool_]]:
        """The photo as seen, and where there is one."""
        return warp(self.photo, self.to_photo, self.size, offsets)

    def fit(self, offsets: NDArray[np.float32]) -> Plane:
        """Local correlation with the picture, −1 outside the photo."""
        seen, inside = self.see(offsets)
        fit, _, _ = correlation(self._band, _band(blur(luma(seen), GUIDE_BLUR), *BAND), FIT_WINDOWS[0])
        return np.where(inside, fit, -1).astype(np.float32)

    def field(self, found: SceneMatch, origin: tuple[int, int], larger: Matrix) -> NDArray[np.float32]:
        """The offsets under which the photo fits, sought from the homography and from the matches that were found."""
        starts = [np.zeros((self.size[1], self.size[0], 2), np.float32)]
        if len(found.points):
            smaller = np.linalg.inv(larger)
            points = transform(smaller.astype(np.float64), found.points - np.array(origin)).astype(np.float32)
            starts.append(_spread(points, found.offsets * np.diag(smaller)[:2].astype(np.float32), self.size))
        flows = [self.refine(start) for start in starts]
        fits = [blur(self.fit(flow), FIT_WINDOWS[1]) for flow in flows]
        flow = flows[0]
        if len(flows) > 1:
            flow = np.where((fits[1] > fits[0] + CLEARLY)[..., None], flows[1], flows[0])
        offsets = self.smooth(flow, COARSE_WINDOWS)
        return self.settle(self.smooth(self.refine(offsets), FINE_WINDOWS, offsets))

    def better(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of two fields the later one, but the earlier where the picture agrees with that clearly better."""
        fits = [blur(self.fit(offsets), AGAIN_WINDOW) for offsets in (before, after)]
        share = blur((fits[1] > fits[0] - CLEARLY).astype(np.float32), 4)[..., None]
        chosen: NDArray[np.float32] = before * (1 - share) + after * share
        return chosen

    def refine(self, offsets: NDArray[np.float32]) -> NDArray[np.float32]:
        """``offsets`` followed by the optical flow that is left."""
        seen, _ = self.see(offsets)
        flow = _flow(self._levels, _levels(blur(luma(seen), GUIDE_BLUR)))
        moved = cv2.remap(offsets, self._grid + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        result: NDArray[np.float32] = flow + moved
        return result

    def smooth(
        self, flow: NDArray[np.float32], windows: tuple[float, ...], start: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """The locally affine part of ``flow``, by ever finer windows where these fit better than what there is."""
        weights = np.clip(self.fit(flow), 0, 1) ** 2
        current = start
        for window in windows:
            finer = fit_affine(flow, weights, window)
            if current is None:
                current = finer
                continue
            fit, finer_fit = (blur(self.fit(one), FIT_WINDOWS[1]) for one in (current, finer))
            share = blur((finer_fit > fit + FINER_WHERE).astype(np.float32), 2)[..., None]
            current = current * (1 - share) + finer * share
        if current is None:
            raise ValueError("no windows")
        return current

    def settle(self, offsets: NDArray[np.float32]) -> NDArray[np.float32]:
        """``offsets``, and the shift of the wide window around each place under which the photo fits better."""
        wanted = _normalised(self.guide)
        for _ in range(SETTLE_ROUNDS):
            seen, inside = self.see(offsets)
            got = _normalised(blur(luma(seen), GUIDE_BLUR))
            missing = wanted - got
            fit, _, _ = correlation(wanted, got, FIT_WINDOWS[0])
            counted = inside * np.clip(fit, 0.05, 1) ** 2 / (1 + (missing / UNLIKE) ** 2)
            along, across = np.gradient((wanted + got) / 2, axis=(1, 0))
            products = (along * along, along * across, across * across, along * missing, across * missing)
            xx, xy, yy, xm, ym = (blur((counted * one).astype(np.float32), SETTLE_WINDOW) for one in products)
            xx, yy = xx + SETTLE_RIDGE, yy + SETTLE_RIDGE
            shift = np.stack([yy * xm - xy * ym, xx * ym - xy * xm], -1) / (xx * yy - xy * xy)[..., None]
            length = np.linalg.norm(shift, axis=-1, keepdims=True)
            offsets = offsets + (shift * np.minimum(1, SETTLE_REACH / np.maximum(length, 1e-6))).astype(np.float32)
        return offsets


def fit_affine(field: NDArray[Any], weights: Plane, window: float, *, tau: float = 1.0) -> NDArray[np.float32]:
    """Fit the (H, W, 2) ``field`` by an affine motion in a Gaussian window around each pixel, robustly.

    ``weights`` (H, W) say how far each place counts; what lies more than about ``tau`` pixels off the common motion of
    its surroundings counts less and less (three reweightings of least squares).
    """
    height, width = weights.shape
    small = (max(1, width // STEP), max(1, height // STEP))
    moved = cv2.resize(field, small, interpolation=cv2.INTER_AREA).astype(np.float64).reshape(small[1], small[0], 2)
    trusted = cv2.resize(weights, small, interpolation=cv2.INTER_AREA).astype(np.float64) + 1e-6
    y, x = np.mgrid[0 : small[1], 0 : small[0]].astype(np.float64)
    sigma = window / STEP
    ridge = (0.3 * sigma) ** 2
    fitted, robust = moved, np.ones_like(trusted)
    for _ in range(4):
        counted = trusted * robust
        total = _mean(counted, sigma)
        mx, my = _mean(counted * x, sigma) / total, _mean(counted * y, sigma) / total
        xx = _mean(counted * x * x, sigma) / total - mx * mx + ridge
        xy = _mean(counted * x * y, sigma) / total - mx * my
        yy = _mean(counted * y * y, sigma) / total - my * my + ridge
        determinant = xx * yy - xy * xy
        parts = []
        for axis in range(2):
            value = counted * moved[..., axis]
            mean = _mean(value, sigma) / total
            cx, cy = _mean(value * x, sigma) / total - mean * mx, _mean(value * y, sigma) / total - mean * my
            along_x, along_y = (cx * yy - cy * xy) / determinant, (cy * xx - cx * xy) / determinant
            parts.append(mean + along_x * (x - mx) + along_y * (y - my))
        fitted = np.stack(parts, -1)
        robust = (1 + ((fitted - moved) ** 2).sum(-1) / tau**2) ** -2
    whole = cv2.resize(fitted, (width, height), interpolation=cv2.INTER_CUBIC)
    fine: NDArray[np.float32] = whole.astype(np.float32).reshape(height, width, 2)
    return fine


def _spread(points: Points, offsets: Points, size: tuple[int, int]) -> NDArray[np.float32]:
    """A field of offsets from those of single places, without the ones that their neighbours contradict."""
    width, height = size
    if len(points) > 8:
        distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
        nearest = np.argsort(distances, 1)[:, 1:9]
        reach = np.take_along_axis(distances, nearest[:, -1:], 1)[:, 0]
        common = np.median(offsets[nearest], 1)
        agree = np.linalg.norm(offsets - common, axis=1) < np.maximum(2.0, 0.25 * reach)
        points, offsets = points[agree], offsets[agree]
    field, counts = np.zeros((height, width, 2), np.float32), np.zeros((height, width), np.float32)
    reached = (points > -2 * SPARSE_WINDOW).all(1) & (points < np.array(size) + 2 * SPARSE_WINDOW).all(1)
    for (x, y), offset in zip(points[reached], offsets[reached], strict=True):
        row = min(max(round(float(y)), 0), height - 1) // STEP * STEP
        column = min(max(round(float(x)), 0), width - 1) // STEP * STEP
        field[row : row + STEP, column : column + STEP] += offset
        counts[row : row + STEP, column : column + STEP] += 1
    return fit_affine(field / np.maximum(counts, 1)[..., None], counts, SPARSE_WINDOW, tau=2.0)


def _confidence(
    guide: Plane, enlarged: FloatImage, seen: FloatImage, inside: NDArray[np.bool_], offsets: NDArray[np.float32]
) -> Plane:
    fit, contrast, other = correlation(_band(guide, *BAND), _band(blur(luma(seen), GUIDE_BLUR), *BAND), SURE_WINDOW)
    low, high = SURE_CORRELATION
    trust = (np.clip((fit - low) / (high - low), 0, 1) * inside).astype(np.float32)
    flat = np.exp(-np.maximum(contrast, other) / FLAT**2)
    loud = other / (LOUDER**2 * contrast + FLAT**2 * LOUDER)
    trust = trust * np.exp(-np.maximum(loud - 1, 0))
    trust = np.maximum(trust, flat * np.clip(1.2 * blur(trust, FIT_WINDOWS[1]), 0, 1))
    alike = _matched_colours(seen, enlarged, trust * inside + 1e-4)
    apart = np.sqrt(((blur(enlarged, COLOUR_WINDOW) - blur(alike, COLOUR_WINDOW)) ** 2).mean(-1))
    across, along = np.gradient(offsets, axis=(1, 0))
    strain = blur(np.sqrt((across**2).sum(-1) + (along**2).sum(-1)).astype(np.float32), 3)
    trust = trust * np.exp(-((apart / OTHER_COLOUR) ** 4)) * np.clip(2 - strain / BENT, 0, 1) * inside
    confidence: Plane = (blur(trust.astype(np.float32), 1) * inside).astype(np.float32)
    return confidence


def _matched_colours(seen: FloatImage, picture: FloatImage, weights: Plane) -> FloatImage:
    """The photo with each channel's mean and spread made the picture's, where ``weights`` say both show the same."""
    matched, total = np.empty_like(seen), weights.sum()
    for channel in range(3):
        own, wanted = seen[..., channel], picture[..., channel]
        mean, target = (weights * own).sum() / total, (weights * wanted).sum() / total
        spread = (weights * (own - mean) ** 2).sum() / total
        common = (weights * (own - mean) * (wanted - target)).sum() / total
        matched[..., channel] = (own - mean) * np.clip((common + 1e-4) / (spread + 1e-4), 0.3, 3) + target
    return matched


def _flow(levels: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The (H, W, 2) flow after which ``other`` looks like ``levels``; on one thread, since stripes change its bits."""
    if min(levels.shape) < 16:
        return np.zeros((*levels.shape, 2), np.float32)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setPatchSize(8)
    search.setPatchStride(3)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        flow: NDArray[np.float32] = search.calc(levels, other, None)
    finally:
        cv2.setNumThreads(threads)
    return np.nan_to_num(flow, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _normalised(plane: Plane) -> Plane:
    """Luma with its local mean and contrast taken out: other light is no motion."""
    mean = blur(plane, FLOW_WINDOW)
    spread = np.sqrt(np.maximum(blur(plane * plane, FLOW_WINDOW) - mean * mean, 0))
    return np.asarray((plane - mean) / (spread + 0.02), np.float32)


def _levels(plane: Plane) -> NDArray[np.uint8]:
    """Normalised luma in the levels that flow wants."""
    return np.clip(_normalised(plane) * 40 + 128, 0, 255).astype(np.uint8)


def correlation(one: Plane, other: Plane, sigma: float) -> tuple[Plane, Plane, Plane]:
    """Local correlation in a Gaussian window, and both variances."""
    mean, other_mean = blur(one, sigma), blur(other, sigma)
    variance: Plane = np.maximum(blur(one * one, sigma) - mean * mean, np.float32(0))
    other_variance: Plane = np.maximum(blur(other * other, sigma) - other_mean * other_mean, np.float32(0))
    common = blur(one * other, sigma) - mean * other_mean
    fit = common / np.sqrt((variance + 1e-5) * (other_variance + 1e-5))
    return np.asarray(fit, np.float32), variance, other_variance


def _band(plane: Plane, fine: float, coarse: float) -> Plane:
    return blur(plane, fine) - blur(plane, coarse)


def blur(plane: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian of ``sigma`` pixels over an (H, W) plane or an (H, W, C) picture, reflected at the border."""
    blurred: NDArray[np.float32] = _gaussian(plane, sigma, cv2.BORDER_REFLECT)
    return blurred


def _mean(plane: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    averaged: NDArray[np.float64] = _gaussian(plane, sigma, cv2.BORDER_CONSTANT)
    return averaged


def _gaussian(plane: NDArray[Any], sigma: float, border: int) -> NDArray[Any]:
    """A Gaussian, wide ones on a smaller picture: what is left of it is as smooth, for a fraction of the time."""
    height, width = plane.shape[:2]
    factor = 1 << max(0, int(np.log2(sigma / NARROWEST)))
    if factor == 1 or min(height, width) < 4 * factor:
        whole: NDArray[Any] = cv2.GaussianBlur(plane, (0, 0), sigma, borderType=border)
        return whole
    small = cv2.resize(plane, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=border)
    blurred: NDArray[Any] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).reshape(plane.shape)
    return blurred


def luma(pixels: FloatImage) -> Plane:
    """(H, W): Rec. 601 luma of (H, W, 3) pixels."""
    return (pixels @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float32)
