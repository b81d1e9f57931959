"""No-reference quality by learned networks: MUSIQ and CLIP-IQA."""

import torch

from rasr.evaluation.metrics import ImageMetric, MetricInfo, MetricWeights
from rasr.evaluation.metrics.networks.clip_rn50 import ClipRN50
from rasr.evaluation.metrics.networks.musiq import MusiqNetwork
from rasr.images import FloatImage

_PROMPTS: tuple[tuple[str, tuple[int, ...]], ...] = (
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


class MUSIQ(ImageMetric):
    """Multi-scale image quality transformer (Ke et al., ICCV 2021), KonIQ-10k weights."""

    protocol = "KonIQ-10k weights, full size and long sides 224 and 384, {border} px border cropped"
    source = "Ke et al., ICCV 2021; IQA-PyTorch 'musiq'"
    facts = MetricInfo("MUSIQ", "higher", "no-reference", 0.0, 100.0, 2, protocol, source, ("musiq-koniq",))

    def prepare(self, weights: MetricWeights) -> None:
        """Load the transformer."""
        self._network = weights.build(MusiqNetwork, "musiq-koniq").to(self.device)

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """MUSIQ of one picture."""
        with torch.inference_mode():
            return float(self._network(self.batch(restored) * 2 - 1))


class CLIPIQA(ImageMetric):
    """CLIP-IQA (Wang et al., AAAI 2023): probability of the good prompt, mean of five pairs."""

    protocol = "CLIP RN50, five prompt pairs, no positional embedding, full size, {border} px border cropped"
    source = "Wang, Chan, Loy, AAAI 2023; prompts of the protocol of record ('clipiqa', untrained)"
    facts = MetricInfo("CLIPIQA", "higher", "no-reference", 0.0, 1.0, 4, protocol, source, ("clip-rn50",))

    def prepare(self, weights: MetricWeights) -> None:
        """Load CLIP's ResNet-50 and encode the prompts."""
        self._network = weights.build(ClipRN50, "clip-rn50").to(self.device)
        with torch.inference_mode():
            prompts = [torch.tensor([_START, *tokens, _END], device=self.device) for _, tokens in _PROMPTS]
            self._texts = torch.stack([self._network.encode_text(tokens) for tokens in prompts])

    def score(self, restored: FloatImage, truth: FloatImage) -> float:
        """CLIP-IQA of one picture."""
        pixels = torch.from_numpy(restored.copy()).to(self.device)
        mean = pixels.new_tensor([0.48145466, 0.4578275, 0.40821073])
        deviation = pixels.new_tensor([0.26862954, 0.26130258, 0.27577711])
        with torch.inference_mode():
            picture = self._network.encode_image(((pixels - mean) / deviation).permute(2, 0, 1)[None])[0]
            logits = self._network.logit_scale.exp() * (self._texts @ picture)
            return float(logits.view(-1, 2).softmax(1)[:, 0].mean())
