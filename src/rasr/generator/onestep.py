"""The single step from the LQ latent to the restored one, in closed form.

``DDPMScheduler.step`` is not used: since diffusers 0.32 it raises IndexError for a one-step schedule at t = 999.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

__all__ = ["ALPHA_BAR_999", "one_step"]

ALPHA_BAR_999 = 0.0046601
"""ā at t = 999 of Stable Diffusion's schedule: betas scaled-linear from 0.00085 to 0.012 in 1000 steps."""


def one_step(
    rule: Literal["eps", "residual"], latent: torch.Tensor, prediction: torch.Tensor, alpha_bar: float
) -> torch.Tensor:
    """Z' from z and the UNet's answer, both (N, C, h, w).

    ``eps``: z' = (z − √(1−ā)·ε) / √ā (Ho et al. 2020, eq. 15; used by OSEDiff at t = 999).
    ``residual``: z' = z − UNet(z) (PiSA-SR at t = 1).
    """
    if rule == "residual":
        return latent - prediction
    return (latent - math.sqrt(1.0 - alpha_bar) * prediction) / math.sqrt(alpha_bar)
