"""Optimization: AdamW and its parameters, the learning rate of a step, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rasr.errors import WeightsCorrupt
from rasr.training.config import OptimizerConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the factor on lr at a step (from 0): linear warm-up, then cosine to ``final_lr``."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimized:
    """Parameters under one AdamW: updated, saved and restored together."""

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, nn.Parameter],
        lr: float,
        config: OptimizerConfig,
        *,
        buffers_of: nn.Module | None = None,
    ) -> None:
        """``name``: their prefix in checkpoints, where a module's buffers may stand beside them."""
        self.parameters = dict(parameters)
        self._module = buffers_of or nn.Module()
        self._name = name
        self._lr = lr
        self._clip = config.clip
        self._adamw = torch.optim.AdamW(
            list(self.parameters.values()), lr=lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adamw.zero_grad(set_to_none=True)

    def clip_gradients(self, accelerator: Accelerator) -> Tensor:
        """Average the gradients over the processes, in one exchange, limit their norm, and return what it was.

        Instead of a DistributedDataParallel wrapper: the trained part is small, a null-reference batch leaves part of
        it without gradient (which the wrapper does not forgive), and accumulation needs no special case.
        """
        parameters = list(self.parameters.values())
        for parameter in parameters:
            if parameter.grad is None:  # all references of this portion were null
                parameter.grad = torch.zeros_like(parameter)
        if accelerator.num_processes > 1:
            flat = torch.cat([p.grad.flatten().float() for p in parameters if p.grad is not None])
            means = accelerator.reduce(flat, reduction="mean").split([p.numel() for p in parameters])
            for parameter, mean in zip(parameters, means, strict=True):
                parameter.grad = mean.view_as(parameter).to(parameter.dtype)
        return torch.nn.utils.clip_grad_norm_(parameters, self._clip)

    def step(self, factor: float) -> None:
        """Update the parameters with ``factor`` times the configured learning rate."""
        for group in self._adamw.param_groups:
            group["lr"] = self._lr * factor
        self._adamw.step()

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters, AdamW's state and buffers by name, for a checkpoint."""
        found = {f"{self._name}.buffer.{name}": value for name, value in self._module.named_buffers()}
        for name, parameter in self.parameters.items():
            found[f"{self._name}.weight.{name}"] = parameter.detach()
            for key, value in self._adamw.state.get(parameter, {}).items():
                found[f"{self._name}.{key}.{name}"] = torch.as_tensor(value)
        return found

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take :meth:`tensors` over. Raises WeightsCorrupt when names or shapes do not fit."""
        for name, parameter in self.parameters.items():
            stored = tensors.get(f"{self._name}.weight.{name}")
            if stored is None or stored.shape != parameter.shape:
                raise WeightsCorrupt(
                    f"The checkpoint does not fit the model: {self._name} '{name}' is missing or of another shape."
                )
            parameter.copy_(stored)
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if (place := f"{self._name}.{key}.{name}") in tensors:
                    value = tensors[place].clone()
                    self._adamw.state[parameter][key] = value if key == "step" else value.to(parameter.device)
        for name, buffer in self._module.named_buffers():
            buffer.copy_(tensors.get(f"{self._name}.buffer.{name}", buffer))


class AveragedWeights:
    """Exponential moving average of the parameters, in fp32; short at the start of a run."""

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
        """Exchange averages and live parameters; a second call undoes it exactly (in fp32)."""
        for name, parameter in parameters.items():
            live = parameter.detach().float().clone()
            parameter.copy_(self.values[name])
            self.values[name] = live
