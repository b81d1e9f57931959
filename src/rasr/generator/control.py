"""The paper's reference branch: a ControlNet whose residuals enter the first decoder blocks only (eq. 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rasr.generator.config import ReferenceConfig
from rasr.generator.encoder_half import tied_controlnet

__all__ = ["ControlBranch", "first_guided_residual"]


def first_guided_residual(unet: Any, blocks: int) -> int:
    """Index of the first residual that reaches one of the ``blocks`` deepest decoder blocks.

    The decoder takes residuals from the end, one for each of its layers: of SD's twelve, 9-11 go to up block 0, 6-8 to
    1, 3-5 to 2 and 0-2 to 3, so that three blocks begin at 3.
    """
    return sum(len(block.resnets) for block in unet.up_blocks[blocks:])


class ControlBranch(nn.Module):
    """Additive control: what is added at a position comes from the same position of the reference."""

    def __init__(self, unet: Any, latent_channels: int, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
        self.control = tied_controlnet(unet, latent_channels, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha)
        for index in range(first_guided_residual(unet, config.blocks)):
            self.control.controlnet_down_blocks[index] = _NoResidual()
        if not config.mid:
            self.control.controlnet_mid_block = _NoResidual()
            self.control.mid_block = None
        self.condition = self.control.controlnet_cond_embedding
        self.control.controlnet_cond_embedding = _Embedded()

    def encode(self, latent: torch.Tensor) -> torch.Tensor:
        """What is kept of a reference: its latent's embedding as the condition.

        The rest of the branch reads the LQ latent too, so it runs per tile.
        """
        embedded: torch.Tensor = self.condition(latent)
        return embedded

    @contextmanager
    def guiding(
        self,
        unet: Any,
        sample: torch.Tensor,
        timestep: int,
        null_context: torch.Tensor,
        bank: Sequence[torch.Tensor],
        weights: torch.Tensor,
    ) -> Iterator[dict[str, Any]]:
        """Arguments for the UNet's call: Σ_k weight_k · C(z, t, ∅, r_k).

        ``sample`` (N, C, h, w); ``bank`` holds K conditions (N or 1, c, h, w); ``weights`` (N, K) are already times
        strength.
        """
        total: list[torch.Tensor] = []
        for k, condition in enumerate(bank):
            down, mid = self.control(
                sample,
                timestep,
                encoder_hidden_states=null_context.expand(sample.shape[0], -1, -1),
                controlnet_cond=condition.expand(sample.shape[0], -1, -1, -1),
                return_dict=False,
            )
            scale = weights[:, k].view(-1, 1, 1, 1)
            scaled = [part * scale for part in (*down, mid)]
            total = scaled if not total else [a + b for a, b in zip(total, scaled, strict=True)]
        yield {"down_block_additional_residuals": tuple(total[:-1]), "mid_block_additional_residual": total[-1]}


class _NoResidual(nn.Module):
    """In place of a zero convolution whose residual is not used: a scalar nought, which broadcasts."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.new_zeros(())


class _Embedded(nn.Module):
    """In place of the condition's embedding, which has been made once for all tiles."""

    def forward(self, condition: torch.Tensor) -> torch.Tensor:
        return condition
