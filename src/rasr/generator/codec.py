"""Codecs: E takes a picture in [-1, 1] to its latent, D takes it back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["AutoencoderCodec", "Codec", "PatchCodec"]

TILE_ABOVE = 768 * 768
"""Pictures of more pixels pass through the autoencoder in diffusers' own overlapping tiles."""


class Codec(nn.Module):
    """Interface of an autoencoder: what RefDSR asks of one."""

    stride: int
    """Pixels per latent position."""
    channels: int
    """Channels of a latent."""

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Encode (N, 3, H, W) to (N, channels, H/stride, W/stride), scaled as the UNet expects."""
        raise NotImplementedError

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to pictures, not clamped."""
        raise NotImplementedError

    def decode_change(self, after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Compute D(after) − D(before), (N, 3, H, W)."""
        return self.decode(after) - self.decode(before)


class PatchCodec(Codec):
    """Lossless codec: a square of pixels becomes one position; no weights, next to no cost."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.stride = patch
        self.channels = 3 * patch * patch

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Unshuffle pixels."""
        return F.pixel_unshuffle(pictures, self.stride)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Shuffle pixels."""
        return F.pixel_shuffle(latents, self.stride)

    def decode_change(self, after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Decode once: D is linear."""
        return self.decode(after - before)


class AutoencoderCodec(Codec):
    """AutoencoderKL (Stable Diffusion) or AutoencoderTiny (TAESD) of diffusers.

    AutoencoderKL gives the posterior's mode, so that the same picture always gives the same latent; OSEDiff samples.
    """

    def __init__(self, model: Any, *, tiled: bool = True) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.channels = int(config.latent_channels)
        self.stride = 2 ** (len(config.block_out_channels) - 1)
        # TAESD's latents already are on the UNet's scale; its scaling_factor is 1.
        self.scaling = float(config.scaling_factor)
        self.tiled = tiled

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Take the posterior's mode, scaled."""
        self._tile(pictures.shape[-2] * pictures.shape[-1])
        encoded = self.model.encode(pictures)
        latents: torch.Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return latents * self.scaling

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode the unscaled latents."""
        self._tile(latents.shape[-2] * latents.shape[-1] * self.stride**2)
        decoded: torch.Tensor = self.model.decode(latents / self.scaling).sample
        return decoded

    def _tile(self, pixels: int) -> None:
        self.model.use_tiling = self.tiled and pixels > TILE_ABOVE and not self.training
