"""Same scene or not: whether a photo shows what a picture shows, told by geometry and not by likeness.

Two looks. The first matches a few features at each size, the reference as it stands and as it may be turned; most
photos of other things end here. The second warps the photo by the homography found and matches again: what is really
there is found within a few pixels now, and a look-alike falls apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage
from rasr.registration.features import QUERY_SIDES, LocalFeatures, Matrix, Points, extract, scaling
from rasr.registration.matching import Indices, homography, is_plausible, match, nearest, scale_at, transform
from rasr.registration.repetition import fits_elsewhere, surroundings

FEW = 512
"""Features matched in the first look."""
HOPELESS = 5
"""Matches at a photo's finer size below which its coarser one is not tried, unless it may be turned."""
WORTH_A_LOOK = 20
"""Matches of the first look below which a photo is turned down."""
TURNED_NEAREST = 12
"""Nearest neighbours that a turned photo must have, and half as many again as the upright one."""
TOLERANCE = 6.0
"""Pixels of the reference's canvas that a match may be off the homography: real scenes are not flat."""
NEAR = 0.0625
"""Share of the query's longer side within which the second look must find a place again."""
CELLS = 12
"""The query is divided into 12 × 12 cells to see how much of it is matched."""
ENOUGH_MATCHES = 80
ENOUGH_CELLS = 10
"""What the second look must find for the same scene (benchmarks/same_scene.py, false acceptances)."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneMatch:
    """What was found between a picture and a photo."""

    same_scene: bool
    matches: int = 0
    """Places of the photo found again in the picture, of the second look; of the first where that was the last."""
    covered: float = 0.0
    """Share of the picture's cells, 0 to 1, in which a place was found again."""
    repeats: bool = False
    """Whether the photo fits better elsewhere than where these places were found: a pattern, and no sign of a scene."""
    turned: int = 0
    """Degrees, to the left, that the picture has to be turned to stand like the photo: 0, 90, 180 or 270."""
    to_reference: Matrix = field(default_factory=lambda: np.eye(3))
    """(3, 3) homography from pixels of the picture to those of the photo."""
    points: Points = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    """(M, 2) places in the picture that were found again."""
    offsets: Points = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    """(M, 2) how far from them, in pixels of the picture, they lie in the photo warped by ``to_reference``."""

    @property
    def why(self) -> str:
        """The facts in plain words."""
        if self.same_scene:
            turned = f", turned by {self.turned}°" if self.turned else ""
            return f"Same scene: {self.matches} places of it found again in {self.covered:.0%} of the picture{turned}."
        return f"Not the same scene: {self.found_again}."

    @property
    def found_again(self) -> str:
        """What was found of another scene."""
        repeated = ", but other places of the photo fit better: it repeats itself" if self.repeats else ""
        return f"{self.matches or 'no'} places found again{repeated}"


class SceneQuery:
    """A picture to be found in photos. Its features are taken when they are first asked for.

    ``pixels`` are (H, W, 3) in [0, 1]: the restored picture, since what blur and noise leave cannot be matched.
    """

    def __init__(self, pixels: FloatImage) -> None:
        self.size = (pixels.shape[1], pixels.shape[0])
        self._side = min(QUERY_SIDES[1], max(*self.size, min(QUERY_SIDES[0], 2 * max(self.size))))
        self._small = _reduced(pixels, self._side)
        self._turned: dict[int, LocalFeatures] = {}

    def features(self, turned: int = 0) -> LocalFeatures:
        """Features of the picture turned by ``turned`` × 90° to the left, placed in the upright picture."""
        if turned not in self._turned:
            found = extract(self._small, self._side, turned=turned)
            whole = scaling((self._small.shape[1], self._small.shape[0]), self.size)
            self._turned[turned] = LocalFeatures(
                found.points, found.descriptors, found.canvas, whole @ found.to_picture
            )
        return self._turned[turned]

    def compare(self, reference: Sequence[LocalFeatures], pixels: Callable[[], FloatImage]) -> SceneMatch:
        """Tell whether the photo with the features ``reference`` shows the same scene.

        ``pixels`` gives the photo itself, (H, W, 3) in [0, 1], and is called only when the first look is promising.
        """
        turned, one, pairs = self._first_look(reference)
        if len(pairs) < WORTH_A_LOOK:
            return SceneMatch(same_scene=False, matches=len(pairs))
        query = self.features(turned)
        pairs = match(query, one)  # all of them: a better start is worth 0.3 dB of the result
        unit = abs(scale_at(one.to_picture, (0.0, 0.0)))
        found = homography(query.where(pairs[:, 0]), one.where(pairs[:, 1]), TOLERANCE * unit)
        if found is None or not is_plausible(found[0], self.size):
            return SceneMatch(same_scene=False, matches=0)
        return self._second_look(found[0], 90 * turned, pixels())

    def _first_look(self, reference: Sequence[LocalFeatures]) -> tuple[int, LocalFeatures, Indices]:
        """The turn and the size of the photo with the most matches among the first features, and these."""
        best = (0, reference[0], np.zeros((0, 2), np.int64))
        for one in reference:
            few = one.first(FEW)
            counts = [len(nearest(self.features(turned).first(FEW), few)) for turned in range(4)]
            likely = int(np.argmax(counts))
            turns = [0]
            if one is not reference[0] and len(best[2]) < HOPELESS and counts[likely] < TURNED_NEAREST:
                break
            if likely and counts[likely] >= max(TURNED_NEAREST, 1.5 * counts[0]):
                turns.append(likely)
            for turned in turns:
                pairs = match(self.features(turned).first(FEW), few)
                if len(pairs) > len(best[2]):
                    best = (turned, one, pairs)
        return best

    def _second_look(self, to_reference: Matrix, turned: int, photo: FloatImage) -> SceneMatch:
        """Warp the photo, and match again: only what lies near counts."""
        query = self.features()
        warped, inside = warp(*as_fine_as(photo, to_reference @ query.to_picture, query.canvas), query.canvas)
        again = extract(warped, max(query.canvas))
        kept = inside[tuple(np.rint(again.points[:, ::-1]).astype(int).T)] if len(again.points) else np.zeros(0, bool)
        again = LocalFeatures(again.points[kept], again.descriptors[kept], again.canvas, np.eye(3))
        pairs = match(query, again)
        points, moved = query.points[pairs[:, 0]], again.points[pairs[:, 1]]
        near = np.hypot(*(moved - points).T) < NEAR * max(query.canvas)
        points, moved = points[near], moved[near]
        cells = {(int(x), int(y)) for x, y in points * CELLS / np.array(query.canvas)}
        unit = abs(scale_at(query.to_picture, (0.0, 0.0)))
        enough = len(points) >= ENOUGH_MATCHES and len(cells) >= ENOUGH_CELLS
        repeats = enough and self._repeats(photo, to_reference, query.where(pairs[near, 0]))
        return SceneMatch(
            same_scene=enough and not repeats,
            matches=len(points),
            covered=len(cells) / CELLS**2,
            repeats=repeats,
            turned=turned,
            to_reference=to_reference,
            points=query.where(pairs[near, 0]),
            offsets=((moved - points) * unit).astype(np.float32),
        )

    def _repeats(self, photo: FloatImage, to_reference: Matrix, points: Points) -> bool:
        """Whether the photo fits better beside where it was found."""
        around, size = surroundings(to_reference, self.size)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # beyond the picture there may be a horizon
            seen, inside = warp(*as_fine_as(photo, around, size), size)
        x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        depth = around[2, 0] * x + around[2, 1] * y + around[2, 2]
        inside &= depth * depth[size[1] // 2, size[0] // 2] > 0
        return fits_elsewhere(self._small, seen, inside, points, self.size)


def warp(
    photo: FloatImage, to_photo: Matrix, size: tuple[int, int], offsets: NDArray[np.float32] | None = None
) -> tuple[FloatImage, NDArray[np.bool_]]:
    """Show a photo as a picture of ``size`` (width, height) sees it: its pixels, and where the photo has any.

    ``to_photo`` maps pixels of the picture to those of the photo; ``offsets``, (H, W, 2), are added to the picture's
    places first. A photo with much finer pixels must come from :func:`as_fine_as`, or it aliases.
    """
    width, height = size
    grid = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
    places = transform(to_photo, grid if offsets is None else grid + offsets).astype(np.float32)
    seen = cv2.remap(photo, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    last = np.array([photo.shape[1] - 2, photo.shape[0] - 2], np.float32)
    inside: NDArray[np.bool_] = np.all((places > 1) & (places < last), axis=-1)
    return np.clip(seen, 0, 1), inside


def as_fine_as(photo: FloatImage, to_photo: Matrix, size: tuple[int, int]) -> tuple[FloatImage, Matrix]:
    """The photo with pixels no finer than those of a picture of ``size`` (width, height), and the map to it.

    ``to_photo`` maps pixels of the picture to those of the photo as it is; finer pixels are averaged.
    """
    scale = abs(scale_at(to_photo, ((size[0] - 1) / 2, (size[1] - 1) / 2)))
    if scale <= 1.05:
        return photo, to_photo
    smaller = (max(8, round(photo.shape[1] / scale)), max(8, round(photo.shape[0] / scale)))
    to_photo = np.linalg.inv(scaling(smaller, (photo.shape[1], photo.shape[0]))) @ to_photo
    return cv2.resize(photo, smaller, interpolation=cv2.INTER_AREA), to_photo


def _reduced(pixels: FloatImage, long_side: int) -> FloatImage:
    height, width = pixels.shape[:2]
    factor = long_side / max(width, height)
    if factor >= 1:
        return pixels
    size = max(1, round(width * factor)), max(1, round(height * factor))
    reduced = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    as_floats: FloatImage = reduced.astype(np.float32, copy=False)
    return as_floats
