"""CLIP-IQA (Wang et al., AAAI 2023): does CLIP find "good image" or "bad image" closer to the picture."""

from __future__ import annotations

import torch

from rasr.evaluation.metrics.clip_rn50 import ClipRN50
from rasr.evaluation.metrics.metric import MeasuringProtocol, MetricInfo, crop
from rasr.evaluation.metrics.weights import MetricWeights
from rasr.images import FloatImage

__all__ = ["CLIPIQA", "PROMPTS"]

PROMPTS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("good image", (886, 2867)),
    ("bad image", (2103, 2867)),
    ("sharp image", (8157, 2867)),
    ("blurry image", (21977, 2867)),
    ("sharp edges", (8157, 20938)),
    ("blurry edges", (21977, 20938)),
    ("high resolution image", (1400, 9977, 2867)),
    ("low resolution image", (1042, 9977, 2867)),
    ("noise-free image", (9307, 268, 1139, 2867)),
    ("noisy image", (33495, 2867)),
)
"""Five pairs, good one first, with their tokens in CLIP's byte-pair vocabulary. The paper has one pair; the protocol of
record averages these five."""

_START, _END = 49406, 49407


class CLIPIQA:
    """Mean over five prompt pairs of the probability of the good one; CLIP RN50 without positional embedding."""

    def __init__(self, protocol: MeasuringProtocol, weights: MetricWeights, device: str = "cpu") -> None:
        self._border = protocol.crop_border
        self._device = device
        self._network = weights.build(ClipRN50, "clip-rn50").to(device)
        with torch.inference_mode():
            prompts = [torch.tensor([_START, *tokens, _END], device=device) for _, tokens in PROMPTS]
            self._texts = torch.stack([self._network.encode_text(tokens) for tokens in prompts])
        self.info = MetricInfo(
            "CLIPIQA",
            "higher",
            "no-reference",
            0.0,
            1.0,
            4,
            f"CLIP RN50, five prompt pairs, no positional embedding, full size, {self._border} px border cropped",
            "Wang, Chan, Loy, AAAI 2023; prompts of the protocol of record ('clipiqa', untrained)",
            ("clip-rn50",),
        )

    def measure(self, restored: FloatImage, truth: FloatImage | None) -> float:
        """CLIP-IQA of one picture."""
        pixels = torch.from_numpy(crop(restored, self._border).copy()).to(self._device)
        mean = pixels.new_tensor([0.48145466, 0.4578275, 0.40821073])
        deviation = pixels.new_tensor([0.26862954, 0.26130258, 0.27577711])
        with torch.inference_mode():
            picture = self._network.encode_image(((pixels - mean) / deviation).permute(2, 0, 1)[None])[0]
            logits = self._network.logit_scale.exp() * (self._texts @ picture)
            return float(logits.view(-1, 2).softmax(1)[:, 0].mean())
