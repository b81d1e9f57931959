"""From a preset to a model: fresh weights from a seed, or the files that belong to it."""

from __future__ import annotations

import torch
from torch import nn

from rasr.generator.codec import build_codec
from rasr.generator.config import ModelConfig
from rasr.generator.refdsr import RefDSR

__all__ = ["build_model"]


def build_model(config: ModelConfig) -> RefDSR:
    """A model of the preset's architecture with seeded, untrained weights, on the CPU in fp32; no reference branch.

    The UNet's last convolution starts at zero, so that in the residual form the untrained model returns its input.
    """
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = UNet2DConditionModel(**config.unet)
        if config.residual_form:
            nn.init.zeros_(unet.conv_out.weight)
            nn.init.zeros_(unet.conv_out.bias)
        codec = build_codec(config.codec)
        width = unet.config.cross_attention_dim
        projection = None
        null = torch.zeros(1, 77, width)
        if config.context.kind == "embedding":
            projection = nn.Linear(config.context.dimension, width)
            null = torch.zeros(1, 1, config.context.dimension)
    model = RefDSR(config, unet, codec, null, projection)
    return model.requires_grad_(False).eval()
