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
from rasr.registration.planes import (
    Plane,
    band_of,
    blur,
    correlation,
    flow_between,
    flow_levels,
    luma,
    mean_around,
    normalised,
)
from rasr.registration.scene import SceneMatch, as_fine_as, warp

LOOK = 2
"""Pixels of the picture along one in which it is compared with the photo. Sizes below are in these larger pixels."""
GUIDE_BLUR = 0.7
"""Sigma: detail finer than this is drawn, not seen."""
BAND = (0.4, 4.0)
"""Sigmas of the band in which picture and photo are compared, on top of the blur."""
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
) -> Alignment:
    """Bring ``photo`` onto a window of the picture, as :class:`Sight` says."""
    return Sight(picture, enlarged, photo, found, origin).align()


class Sight:
    """A photo and the window of a picture onto which it is brought, half as large as they are.

    ``picture`` and ``enlarged`` are the window of the restored picture, and of the low-quality one at the same size,
    whose left upper corner lies at ``origin`` (x, y): (H, W, 3) in [0, 1]. ``found`` comes from
    :meth:`SceneQuery.compare` on the whole picture.
    """

    def __init__(
        self,
        picture: FloatImage,
        enlarged: FloatImage,
        photo: FloatImage,
        found: SceneMatch,
        origin: tuple[int, int] = (0, 0),
    ) -> None:
        height, width = picture.shape[:2]
        self._whole = (width, height)
        self._size = max(1, -(-width // LOOK)), max(1, -(-height // LOOK))
        self._larger = scaling(self._size, self._whole)
        self._unit = np.diag(self._larger)[:2].astype(np.float32)
        self._found, self._origin = found, origin
        to_photo = found.to_reference @ np.array([[1.0, 0, origin[0]], [0, 1.0, origin[1]], [0, 0, 1.0]])
        self._fine = as_fine_as(photo, to_photo, self._whole)
        self._light = cv2.resize(enlarged, self._size, interpolation=cv2.INTER_AREA)
        self.look = Look(self._guide(picture), *as_fine_as(photo, to_photo @ self._larger, self._size))

    def _guide(self, shown: FloatImage) -> Plane:
        small = cv2.resize(shown, self._size, interpolation=cv2.INTER_AREA)
        levels: Plane = 0.5 * luma(small) + 0.5 * luma(self._light)
        return levels

    def align(self, sharper: FloatImage | None = None, before: Alignment | None = None) -> Alignment:
        """Bring the photo onto the picture.

        ``sharper`` is the picture with the detail of photos, by which places are then sought; ``before`` is an earlier
        alignment, kept wherever the picture itself agrees better with it.
        """
        look = self.look
        if sharper is not None:
            look = Look(self._guide(sharper), look.photo, look.to_photo)
        offsets = look.field(self._found, self._origin, self._larger)
        if before is not None:
            offsets = self.look.better(self.offsets(before), offsets)
        return self.finish(offsets)

    def offsets(self, aligned: Alignment) -> NDArray[np.float32]:
        """(H/2, W/2, 2): the offsets of an alignment as :attr:`look` counts them."""
        offsets: NDArray[np.float32] = cv2.resize(aligned.offsets, self._size, interpolation=cv2.INTER_AREA)
        return offsets / self._unit

    def finish(self, offsets: NDArray[np.float32]) -> Alignment:
        """The photo at its whole size under offsets of :attr:`look`, and how sure it is."""
        look = self.look
        seen, inside = look.see(offsets)
        sure = cv2.resize(_confidence(look.guide, self._light, seen, inside, offsets), self._whole)
        whole = cv2.resize(offsets, self._whole, interpolation=cv2.INTER_CUBIC) * self._unit
        seen, inside = warp(*self._fine, self._whole, whole)
        return Alignment(seen, sure * inside, whole)


class Look:
    """The photo under any field of offsets, compared with the picture."""

    def __init__(self, guide: Plane, photo: FloatImage, to_photo: Matrix) -> None:
        self.guide = blur(guide, GUIDE_BLUR)
        self.size = (guide.shape[1], guide.shape[0])
        self.photo, self.to_photo = photo, to_photo
        self._band = band_of(self.guide, *BAND)
        self._levels = flow_levels(self.guide)
        grid = np.meshgrid(np.arange(self.size[0], dtype=np.float32), np.arange(self.size[1], dtype=np.float32))
        self.grid = np.stack(grid, -1)

    def see(self, offsets: NDArray[np.float32]) -> tuple[FloatImage, NDArray[np.bool_]]:
        """The photo as seen, and where there is one."""
        return warp(self.photo, self.to_photo, self.size, offsets)

    def fit(self, offsets: NDArray[np.float32]) -> Plane:
        """Local correlation with the picture, −1 outside the photo."""
        seen, inside = self.see(offsets)
        fit, _, _ = correlation(self._band, band_of(blur(luma(seen), GUIDE_BLUR), *BAND), FIT_WINDOWS[0])
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

    def gain(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> Plane:
        """How much better, in correlation around each place, the picture agrees with the later of two fields."""
        fits = [blur(self.fit(offsets), AGAIN_WINDOW) for offsets in (before, after)]
        return fits[1] - fits[0]

    def better(
        self, before: NDArray[np.float32], after: NDArray[np.float32], loss: Plane | float = CLEARLY
    ) -> NDArray[np.float32]:
        """Of two fields the later one, but the earlier where the picture agrees with that better by ``loss``."""
        share = blur((self.gain(before, after) > -loss).astype(np.float32), 4)[..., None]
        chosen: NDArray[np.float32] = before * (1 - share) + after * share
        return chosen

    def refine(self, offsets: NDArray[np.float32]) -> NDArray[np.float32]:
        """``offsets`` followed by the optical flow that is left."""
        seen, _ = self.see(offsets)
        flow = flow_between(self._levels, flow_levels(blur(luma(seen), GUIDE_BLUR)))
        moved = cv2.remap(offsets, self.grid + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
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

    def differences(self, wanted: Plane, offsets: NDArray[np.float32]) -> tuple[Plane, Plane, Plane, Plane]:
        """What is missing to ``wanted``, normalised, how far each place counts, and the slopes along x and y."""
        seen, inside = self.see(offsets)
        got = normalised(blur(luma(seen), GUIDE_BLUR))
        missing: Plane = wanted - got
        fit, _, _ = correlation(wanted, got, FIT_WINDOWS[0])
        counted: Plane = np.asarray(inside * np.clip(fit, 0.05, 1) ** 2 / (1 + (missing / UNLIKE) ** 2), np.float32)
        along, across = (np.asarray(one) for one in np.gradient((wanted + got) / 2, axis=(1, 0)))
        return missing, counted, along, across

    def settle(self, offsets: NDArray[np.float32]) -> NDArray[np.float32]:
        """``offsets``, and the shift of the wide window around each place under which the photo fits better."""
        wanted = normalised(self.guide)
        for _ in range(SETTLE_ROUNDS):
            missing, counted, along, across = self.differences(wanted, offsets)
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
        total = mean_around(counted, sigma)
        mx, my = mean_around(counted * x, sigma) / total, mean_around(counted * y, sigma) / total
        xx = mean_around(counted * x * x, sigma) / total - mx * mx + ridge
        xy = mean_around(counted * x * y, sigma) / total - mx * my
        yy = mean_around(counted * y * y, sigma) / total - my * my + ridge
        determinant = xx * yy - xy * xy
        parts = []
        for axis in range(2):
            value = counted * moved[..., axis]
            mean = mean_around(value, sigma) / total
            cx, cy = (
                mean_around(value * x, sigma) / total - mean * mx,
                mean_around(value * y, sigma) / total - mean * my,
            )
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
    fit, contrast, other = correlation(band_of(guide, *BAND), band_of(blur(luma(seen), GUIDE_BLUR), *BAND), SURE_WINDOW)
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
