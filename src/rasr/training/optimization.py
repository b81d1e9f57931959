"""Learning rate, averaged weights, and one optimizer step over all processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rasr.training.config import OptimizerConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["AveragedWeights", "adamw", "average_gradients", "learning_rate"]


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Factor on lr at a step (counted from 0): linear warm-up, then a cosine from 1 to ``final_lr``."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def adamw(parameters: Iterable[nn.Parameter], lr: float, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW as configured; the loop sets the learning rate of every step itself."""
    return torch.optim.AdamW(list(parameters), lr=lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def average_gradients(parameters: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
    """Replace each gradient by its mean over the processes, a missing one by zeros: one flat exchange.

    Instead of a DistributedDataParallel wrapper: the trained part is small, a null-reference batch leaves part of it
    without gradient (which the wrapper does not forgive), and accumulation needs no special case.
    """
    chosen = list(parameters)
    for parameter in chosen:
        if parameter.grad is None:  # all references of this portion were null
            parameter.grad = torch.zeros_like(parameter)
    if accelerator.num_processes == 1:
        return
    flat = torch.cat([p.grad.flatten().float() for p in chosen if p.grad is not None])
    flat = accelerator.reduce(flat, reduction="mean")
    start = 0
    for parameter in chosen:
        end = start + parameter.numel()
        parameter.grad = flat[start:end].view_as(parameter).to(parameter.dtype)
        start = end


class AveragedWeights:
    """Exponential moving average of the trained parameters, in fp32; short at the start of a run."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {name: p.detach().float().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        """Move towards the parameters after ``step`` + 1 steps."""
        decay = min(self.decay, (step + 1) / (step + 10)) if self.decay else 0.0
        for name, parameter in parameters.items():
            self.values[name].lerp_(parameter.detach().float(), 1 - decay)

    @torch.no_grad()
    def swap(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Exchange the averages and the live parameters; a second call undoes it exactly (fp32 parameters)."""
        for name, parameter in parameters.items():
            live = parameter.detach().float().clone()
            parameter.copy_(self.values[name])
            self.values[name] = live
