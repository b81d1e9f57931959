"""Matching of local features between two pictures, and the homography that most of them agree on.

Mutual nearest neighbours are cheap and tell which way up a photo is; LighterGlue (LightGlue, Lindenberger et al., ICCV
2023, trained on XFeat's features) finds several times more on degraded pictures, and is run by kornia.
"""

import threading
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rasr.registration.features import DIMENSION, LocalFeatures, Matrix, Points
from rasr.weights import load_strictly, read_weights, require

FEWEST = 8
"""Features a picture must have to be matched at all."""
ALIKE = 0.82
"""Cosine of descriptors that are mutual nearest neighbours, as XFeat's authors ask."""
Indices = NDArray[np.int64]


def nearest(one: LocalFeatures, other: LocalFeatures) -> Indices:
    """(M, 2) indices of features that are each other's nearest and alike."""
    if min(len(one.points), len(other.points)) < FEWEST:
        return np.zeros((0, 2), np.int64)
    cosines = one.descriptors @ other.descriptors.T
    forward, backward = cosines.argmax(1), cosines.argmax(0)
    index = np.arange(len(forward))
    kept = (backward[forward] == index) & (cosines[index, forward] > ALIKE)
    return np.stack([index[kept], forward[kept]], 1)


def match(one: LocalFeatures, other: LocalFeatures) -> Indices:
    """(M, 2) indices of features that show the same place, by LighterGlue. Raises WeightsMissing or WeightsCorrupt."""
    if min(len(one.points), len(other.points)) < FEWEST:
        return np.zeros((0, 2), np.int64)
    return _network().match(one, other)


def homography(source: Points, target: Points, tolerance: float) -> tuple[Matrix, NDArray[np.bool_]] | None:
    """The (3, 3) homography from ``source`` to ``target`` points, (M, 2) each, and which of them agree with it.

    ``tolerance`` is in pixels of the target; by MAGSAC (Barath et al., CVPR 2020), with a fixed seed. None without one.
    """
    if len(source) < FEWEST:
        return None
    cv2.setRNGSeed(0)
    found, agree = cv2.findHomography(source, target, cv2.USAC_MAGSAC, tolerance, maxIters=5000, confidence=0.9999)
    if found is None or not np.isfinite(found).all():
        return None
    return found.astype(np.float64), agree.ravel().astype(bool)


def transform(matrix: Matrix, points: NDArray[Any]) -> NDArray[np.float64]:
    """(…, 2) points under a homography."""
    x, y = points[..., 0].astype(np.float64), points[..., 1].astype(np.float64)
    depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    return np.stack(
        [
            (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / depth,
            (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]) / depth,
        ],
        -1,
    )


def scale_at(matrix: Matrix, point: tuple[float, float]) -> float:
    """Square root of a homography's area magnification at ``point``; negative where it mirrors."""
    row = np.array([point[0], point[1], 1.0])
    mapped = matrix @ row
    jacobian = (matrix[:2, :2] * mapped[2] - mapped[:2, None] * matrix[2:3, :2]) / mapped[2] ** 2
    area = float(np.linalg.det(jacobian))
    return float(np.sign(area) * np.sqrt(abs(area)))


def is_plausible(matrix: Matrix, size: tuple[int, int], *, smallest: float = 0.15, largest: float = 10.0) -> bool:
    """True where a camera could have seen a picture of ``size`` so: no mirror, no horizon in it, modest perspective."""
    right, bottom = size[0] - 1.0, size[1] - 1.0
    corners = [(0.0, 0.0), (right, 0.0), (right, bottom), (0.0, bottom), (right / 2, bottom / 2)]
    depths = [matrix[2] @ np.array([x, y, 1.0]) for x, y in corners]
    if min(depths) * max(depths) <= 0:
        return False
    scales = [scale_at(matrix, corner) for corner in corners]
    return min(scales) > 0 and max(scales) < 4 * min(scales) and smallest < scales[-1] < largest


class _LighterGlue:
    """The matcher on the CPU; one pair at a time."""

    def __init__(self) -> None:
        from kornia.feature.lightglue import LightGlue

        self._net = LightGlue(
            None, input_dim=DIMENSION, descriptor_dim=96, n_layers=6, num_heads=1,
            depth_confidence=-1, width_confidence=0.95, filter_threshold=0.1,
        ).eval()  # fmt: skip
        path = require("xfeat-lighterglue")
        tensors = {_renamed(name): tensor for name, tensor in read_weights(path).items()}
        # kornia computes its thresholds itself, and the published file holds XFeat a second time.
        own = {name: tensor for name, tensor in self._net.state_dict().items() if name != "confidence_thresholds"}
        load_strictly(own, {name: tensor for name, tensor in tensors.items() if name in own}, path)
        self._net.requires_grad_(requires_grad=False)
        self._lock = threading.Lock()

    def match(self, one: LocalFeatures, other: LocalFeatures) -> Indices:
        import torch

        with self._lock, torch.inference_mode():
            found = self._net({"image0": _as_tensors(one), "image1": _as_tensors(other)})
        pairs: Indices = found["matches"][0].numpy().astype(np.int64)
        return pairs


def _renamed(name: str) -> str:
    """Name of a tensor of the published file in kornia's module."""
    parts = name.removeprefix("matcher.").split(".")
    if parts[0] in {"self_attn", "cross_attn"}:
        parts = ["transformers", parts[1], parts[0], *parts[2:]]
    return ".".join(parts)


def _as_tensors(features: LocalFeatures) -> dict[str, Any]:
    import torch

    return {
        "keypoints": torch.from_numpy(features.points)[None],
        "descriptors": torch.from_numpy(features.descriptors)[None],
        "image_size": torch.tensor(features.canvas)[None],
    }


@cache
def _network() -> _LighterGlue:
    return _LighterGlue()
