"""Bands of detail, and how much of each is a photo's: the picture and the photo are weighed by their errors.

A picture that is only small still shows its coarse structure to a fraction of a pixel, and a photo that lies half a
pixel beside it would spoil that; what blur and noise have taken, the photo knows better. So each band is weighed by
itself, as Wiener's filter weighs two measurements of one thing: the picture's error is its noise and the contrast that
it has lost, the photo's is what it lies off. How far that is, is read from the bands in which the picture is sound.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from rasr.images import FloatImage
from rasr.registration.alignment import Alignment
from rasr.registration.planes import Plane, blur, correlation, luma

EDGES = (0.8, 1.6, 3.2, 6.4, 14.0)
"""Sigmas, in pixels, of the Gaussians between which the bands lie; what is coarser is light and colour."""
MIDDLES = (0.55, 1.15, 2.3, 4.6, 9.5)
"""Pixels by which a band's structure must move to become another one."""
CONTRAST_WINDOW = 40.0
CONTRAST_LIMITS = (0.5, 1.6)
WINDOW = 12.0
"""Sigma of the window in which powers are compared."""
MOST_REGAINED = 1.3
FINE = 3
"""Bands, the finest, in which it is told how much of the detail is a photo's."""
SHOWN = 2
"""Bands, from this one on, that even a bad picture shows: by them photos are compared with each other."""
WORSE = 0.05
"""Correlation with the picture by which a photo may be behind the best one before its part falls to 1/e."""
STEP = 4
"""Powers are taken on every fourth pixel: they are smooth."""
DISPLACED = (0.1, 1.0)
"""Pixels that a photo may lie off; the estimate is kept between."""
USUAL_DISPLACEMENT = 0.5
"""What is assumed where the picture is too bad to tell."""
ASSUMED = 0.02
"""How much that assumption counts: as a band of the picture that is hardly sound."""
SOUND = 4
"""Times the error that a band's power must exceed to tell of displacement."""
OTHERWISE_WRONG = 0.02
"""Share of a photo's power that is wrong for other reasons: other light, other lens."""
TINY = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Detail:
    """What photos change in a window of a picture."""

    shares: Plane
    """(R, H, W): share, 0 to 1, of the fine detail (bands to 3.2 pixels) at each pixel that is each photo's."""
    change: FloatImage
    """(H, W, 3): what is to be added to the picture; 0 where all shares are."""


class Weighing:
    """Combines the detail of ``picture``, (H, W, 3), with that of aligned photos, band by band.

    ``enlarged`` is the low-quality picture at this size; ``removed``, (H, W), is the luma that restoring took away
    from it: its noise.
    """

    def __init__(self, picture: FloatImage, enlarged: FloatImage, removed: Plane) -> None:
        levels = luma(enlarged)
        self._shown, self._noise, self._own = bands(levels), bands(removed), bands(picture)
        self._coarse = _coarse(levels)
        self._structure = sum(self._shown[SHOWN:], start=np.zeros_like(levels))
        self._photos: list[_Photo] = []
        self._confidences: list[Plane] = []
        self._fits: list[Plane] = []

    def put(self, number: int, aligned: Alignment) -> None:
        """Weigh photo ``number``: one more, or one that was weighed before and is aligned anew."""
        photo = _Photo(aligned, self._shown, self._noise, _contrast(self._coarse, aligned))
        here = slice(number, number + 1)
        self._photos[here] = [photo]
        self._confidences[here] = [aligned.confidence]
        self._fits[here] = [correlation(self._structure, photo.structure, WINDOW)[0]]

    def detail(self, strength: float = 1.0) -> Detail:
        """What the photos so far change together, scaled by ``strength``, 0 to 1; there is one at least."""
        own, photos = self._own, self._photos
        confidences, fits = np.stack(self._confidences), np.stack(self._fits)
        sure = confidences.max(0)
        taken = strength * sure
        trusted = confidences**2 * np.exp((fits - fits.max(0)) / WORSE)
        mixture = trusted / np.maximum(trusted.sum(0), TINY**2)
        change = np.zeros_like(own[0])
        shares = np.zeros_like(confidences)
        total = np.full(own[0].shape[:2], TINY, np.float32)
        for band in range(len(EDGES)):
            lost = sum(part * photo.lost[band] for part, photo in zip(mixture, photos, strict=True))
            off = sum(part * photo.off[band] for part, photo in zip(mixture, photos, strict=True))
            power = sum(part * photo.power[band] for part, photo in zip(mixture, photos, strict=True))
            parts = mixture * lost / np.maximum(lost + off, TINY**2)
            layers = (
                part[..., None] * (photo.bands[band] - own[band]) for part, photo in zip(parts, photos, strict=True)
            )
            mixed = sum(layers, start=own[band])
            change += taken[..., None] * (mixed * _regained(mixed, power, sure)[..., None] - own[band])
            if band < FINE:
                loudness = np.sqrt(power)
                shares += taken * parts * loudness
                total += loudness
        return Detail(shares / total, change)


def bands(plane: FloatImage | Plane) -> list[FloatImage]:
    """The bands of an (H, W) plane or an (H, W, C) picture, the finest first."""
    found, finer = [], plane
    for edge in EDGES:
        coarser = blur(plane, edge)
        found.append(finer - coarser)
        finer = coarser
    return found


class _Photo:
    """A photo's bands with the picture's contrast, and for each the errors of picture and photo."""

    def __init__(self, aligned: Alignment, shown: list[Plane], noise: list[Plane], contrast: Plane) -> None:
        self.bands = [band * contrast[..., None] for band in bands(aligned.seen)]
        self.structure = luma(sum(self.bands[SHOWN:], start=np.zeros_like(aligned.seen)))
        weights = aligned.confidence + 1e-3
        powers, lost = [], []
        displaced, known = np.float32(0), np.float32(0)
        for one, theirs, noisy, middle in zip(shown, map(luma, self.bands), noise, MIDDLES, strict=True):
            planes = np.stack([theirs * theirs, one * one, noisy * noisy, (theirs - one) ** 2], -1)
            power, seen, taken_off, apart = np.moveaxis(_local_mean(planes, weights), -1, 0)
            power = power + TINY
            left = np.clip(np.sqrt(np.maximum(seen - taken_off, 0) / power), 0, 1)
            error = (1 - left) ** 2 * power + taken_off
            sound = (power / (power + SOUND * error)) ** 2 / middle**2
            displaced = displaced + sound * np.maximum(apart - error, 0) / power
            known = known + sound / middle**2
            powers.append(power)
            lost.append(error)
        squared = (displaced + ASSUMED * USUAL_DISPLACEMENT**2) / (known + ASSUMED)
        squared = np.clip(squared, DISPLACED[0] ** 2, DISPLACED[1] ** 2)
        size = contrast.shape[1], contrast.shape[0]
        self.power = [_whole(one, size) for one in powers]
        self.lost = [_whole(one, size) for one in lost]
        self.off = [
            _whole(one * np.minimum(1, squared / middle**2 + OTHERWISE_WRONG), size)
            for one, middle in zip(powers, MIDDLES, strict=True)
        ]


def _regained(mixed: FloatImage, power: Plane, confidence: Plane) -> Plane:
    """The factor that gives a blend back half of the contrast that it has lost: what is not quite in place cancels."""
    levels = luma(mixed)
    left = _local_mean((levels * levels)[..., None], confidence + 1e-3)[..., 0]
    ratio = power / (_whole(left, (power.shape[1], power.shape[0])) + TINY)
    factor: Plane = np.clip(ratio**0.25, 1, MOST_REGAINED)
    return factor


def _local_mean(planes: FloatImage, weights: Plane) -> FloatImage:
    """Weighted means of (H, W, C) planes around every fourth pixel."""
    size = max(1, weights.shape[1] // STEP), max(1, weights.shape[0] // STEP)

    def around(plane: FloatImage) -> FloatImage:
        return blur(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), WINDOW / STEP).reshape(size[1], size[0], -1)

    mean: FloatImage = around(planes * weights[..., None]) / around(weights)
    return mean


def _whole(plane: Plane, size: tuple[int, int]) -> Plane:
    whole: Plane = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
    return whole


def _coarse(levels: Plane) -> Plane:
    """The band in which contrasts are compared, since both the picture and the photo show it."""
    return blur(levels, EDGES[2] + 0.8) - blur(levels, EDGES[-1])


def _contrast(wanted: Plane, aligned: Alignment) -> Plane:
    """The factor by which a photo's structure is to be multiplied to have the picture's contrast, place by place.

    ``wanted`` is the picture's :func:`_coarse`.
    """
    own = _coarse(luma(aligned.seen))
    trusted = aligned.confidence + 1e-3
    common = blur(trusted * wanted * own, CONTRAST_WINDOW) + 1e-5
    factor = common / (blur(trusted * own * own, CONTRAST_WINDOW) + 1e-5)
    return np.asarray(np.clip(factor, *CONTRAST_LIMITS), np.float32)
