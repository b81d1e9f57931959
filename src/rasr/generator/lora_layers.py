"""peft's LoRA layers, with their product added in place wherever no gradient is needed.

The weights they extend are the backbone's own tensors, so they cannot be folded into them, and folding afresh at every
call takes longer than it saves (SD 2.1's size, 512², two cores: 2.5 s against 1.9 s a pass of the branch). What peft's
own path loses is three more tensors of every layer's output. Importing this imports peft.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Conv2d, Linear, LoraLayer
from torch import nn
from torch.nn import functional as F

__all__ = ["add_in_place_when_inferring"]


def add_in_place_when_inferring(model: nn.Module) -> None:
    """Let every LoRA layer of ``model`` that is a plain linear layer or convolution do so."""
    kinds: dict[type, type] = {Linear: _InPlaceLinear, Conv2d: _InPlaceConv2d}
    for layer in model.modules():
        # The same object: it keeps its parameters, its names and its training.
        layer.__class__ = kinds.get(type(layer), type(layer))


def _usual(layer: LoraLayer, further: object) -> bool:
    """Whether the layer must run as peft has it."""
    return bool(torch.is_grad_enabled() or layer.disable_adapters or layer.merged or further)


class _InPlaceLinear(Linear):  # type: ignore[misc]  # peft is untyped
    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if _usual(self, args or kwargs):
            usual: torch.Tensor = super().forward(x, *args, **kwargs)
            return usual
        answer: torch.Tensor = self.get_base_layer()(x)
        rows = answer.view(-1, answer.shape[-1])
        for name in filter(self.lora_A.__contains__, self.active_adapters):
            narrow = F.linear(x, self.lora_A[name].weight).reshape(len(rows), -1)
            # Autocast does not reach operations in place: the weight is brought to the answer's format by hand.
            rows.addmm_(narrow, self.lora_B[name].weight.T.to(narrow.dtype), alpha=self.scaling[name])
        return answer


class _InPlaceConv2d(Conv2d):  # type: ignore[misc]
    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if _usual(self, args or kwargs):
            usual: torch.Tensor = super().forward(x, *args, **kwargs)
            return usual
        base = self.get_base_layer()
        answer: torch.Tensor = base(x).contiguous()
        planes = answer.flatten(2)
        for name in filter(self.lora_A.__contains__, self.active_adapters):
            narrow = base._conv_forward(x, self.lora_A[name].weight, None).flatten(2)
            wide = self.lora_B[name].weight.flatten(1).to(narrow.dtype).expand(len(x), -1, -1)
            planes.baddbmm_(wide, narrow, alpha=self.scaling[name])
        return answer
