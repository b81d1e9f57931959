"""FID, KID and EKD: how far apart two sets of pictures are, as InceptionV3 or EfficientNet-Lite0 sees them."""

from math import inf

import numpy as np
from numpy.typing import NDArray

from rasr.evaluation.metrics import MetricInfo, MetricWeights, SetMetric
from rasr.images import FloatImage, resize

_SOURCE = "pytorch-fid's port of the 2015 weights, resizing of clean-fid (Parmar et al., CVPR 2022)"


class _InceptionDistance(SetMetric):
    def prepare(self, weights: MetricWeights) -> None:
        """Load InceptionV3."""
        from rasr.evaluation.metrics.networks.inception import Inception

        self._network = weights.build(Inception, "inception").to(self.device)

    def features(self, picture: FloatImage) -> NDArray[np.float32]:
        """Pool-3 features (2048,) of the picture, resized without its aspect as by clean-fid."""
        import torch

        small = np.clip(resize(picture, (299, 299), filter="bicubic") * 255.0, 0.0, 255.0)
        x = torch.from_numpy(((small - 128.0) / 128.0).astype(np.float32)).permute(2, 0, 1)[None].to(self.device)
        with torch.inference_mode():
            return np.asarray(self._network(x)[0].cpu().numpy(), dtype=np.float32)


class FID(_InceptionDistance):
    """Fréchet Inception distance of the restored set to the ground truth set."""

    protocol = "whole pictures to 299×299 by antialiased bicubic, float64, never cropped"
    source = f"Heusel et al., NeurIPS 2017; {_SOURCE}"
    facts = MetricInfo("FID", "lower", "distribution", 0.0, inf, 2, protocol, source, ("inception",))

    def compare(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        """Fréchet distance of the Gaussians fitted to two sets of features (Heusel et al. 2017).

        |μa − μb|² + tr(Σa) + tr(Σb) − 2·tr((Σa Σb)^½), with unbiased covariances. The last trace is computed without
        a matrix root: with Σa = AᵀA and Σb = BᵀB the eigenvalues of ΣaΣb are the squared singular values of A·Bᵀ, so
        it is their sum. That is exact for singular covariances too, where the usual root needs an added ε.
        """
        mean_a, mean_b = a.mean(0), b.mean(0)
        root_a = _triangular((a - mean_a) / np.sqrt(len(a) - 1))
        root_b = _triangular((b - mean_b) / np.sqrt(len(b) - 1))
        cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
        distance = np.sum((mean_a - mean_b) ** 2) + np.sum(root_a**2) + np.sum(root_b**2) - 2 * cross
        return float(max(distance, 0.0))


class KID(_InceptionDistance):
    """Kernel Inception distance: unbiased, so small sets can be compared."""

    protocol = "as FID; cubic kernel over all pairs, unbiased"
    source = f"Bińkowski et al., ICLR 2018; {_SOURCE}"
    facts = MetricInfo("KID", "lower", "distribution", -inf, inf, 5, protocol, source, ("inception",))

    def compare(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        """Unbiased squared MMD with the kernel (x·y/D + 1)³ over all pairs (Bińkowski et al. 2018).

        The published code averages the same estimate over random subsets; using every pair has the same expectation
        and no randomness. May be slightly negative for equal distributions.
        """
        return kernel_distance(a, b)


class EKD(SetMetric):
    """EfficientNet kernel distance: KID's estimate on features of EfficientNet-Lite0.

    Features are averaged over each picture at its own size, so that fine texture is seen, which KID's reduction to
    299 pixels takes away. It needs nothing downloaded. Not KID and never printed under that name.
    """

    protocol = "EfficientNet-Lite0's 1280 last features at the picture's own size, never cropped; kernel as KID"
    source = "this project; the estimate is that of Bińkowski et al., ICLR 2018 (KID)"
    facts = MetricInfo("EKD", "lower", "distribution", -inf, inf, 5, protocol, source)

    def features(self, picture: FloatImage) -> NDArray[np.float32]:
        """Features (1280,) of the picture."""
        from rasr.evaluation.metrics.perceptual import pooled_features

        return pooled_features(picture, self.device)

    def compare(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        """As :meth:`KID.compare`."""
        return kernel_distance(a, b)


def kernel_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Unbiased squared MMD with the kernel (x·y/D + 1)³ over all pairs (Bińkowski et al. 2018)."""
    n, m, dimension = len(a), len(b), a.shape[1]
    aa, bb, ab = ((x @ y.T / dimension + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within_a = (aa.sum() - np.trace(aa)) / (n * (n - 1))
    within_b = (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within_a + within_b - 2 * ab.mean())


def _triangular(root: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix R with RᵀR = AᵀA and at most as many rows as columns."""
    return np.asarray(np.linalg.qr(root, mode="r")) if len(root) > root.shape[1] else root
