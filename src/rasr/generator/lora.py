"""LoRA folded into the weights it extends: W' = W + (alpha / rank)·B·A, in fp32, so that inference pays nothing for it.

Published one-step checkpoints carry peft layers by name: ``<module>.lora_A.<adapter>.weight`` and ``...lora_B...``, and
``<module>.base_layer.weight`` where the layer itself was trained too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from rasr.errors import WeightsCorrupt

__all__ = ["LoraLayer", "fold", "lora_delta", "parse_lora"]

_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.(?P<adapter>[^.]+)\.weight")
_BASE = re.compile(r"(?P<module>.+)\.base_layer\.(?P<leaf>weight|bias)")


@dataclass(slots=True)
class LoraLayer:
    """What a checkpoint says about one layer."""

    pairs: dict[str, dict[str, torch.Tensor]] = field(default_factory=lambda: defaultdict(dict))
    """Adapter name → {"A": ..., "B": ...}."""
    base: dict[str, torch.Tensor] = field(default_factory=dict)
    """"weight" and "bias" of the layer itself, where they were trained."""


def parse_lora(tensors: Mapping[str, torch.Tensor], adapters: Iterable[str], path: Path) -> dict[str, LoraLayer]:
    """Sort a checkpoint's tensors by module. Raises WeightsCorrupt for a name or adapter it should not hold."""
    allowed = set(adapters)
    layers: dict[str, LoraLayer] = defaultdict(LoraLayer)
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise WeightsCorrupt(f"{path}: {name} is not a tensor.")
        if (found := _LORA.fullmatch(name)) and found["adapter"] in allowed:
            layers[found["module"]].pairs[found["adapter"]][found["side"]] = tensor
        elif found := _BASE.fullmatch(name):
            layers[found["module"]].base[found["leaf"]] = tensor
        else:
            raise WeightsCorrupt(f"{path} is for another architecture: it has an unknown {name}.")
    for module, layer in layers.items():
        for adapter, pair in layer.pairs.items():
            if pair.keys() != {"A", "B"}:
                raise WeightsCorrupt(f"{path} is incomplete: {module} has only half of the LoRA '{adapter}'.")
    return dict(layers)


def lora_delta(a: torch.Tensor, b: torch.Tensor, alpha: float) -> torch.Tensor:
    """(alpha / r)·B·A in fp32, shaped like the layer's weight.

    Linear: A (r, in), B (out, r). Convolution: A (r, in, k, k), B (out, r, 1, 1).
    """
    product = b.float().flatten(1) @ a.float().flatten(1)
    return (alpha / a.shape[0] * product).reshape(b.shape[0], *a.shape[1:])


def fold(model: nn.Module, layers: Mapping[str, LoraLayer], alpha: float, path: Path) -> int:
    """Fold every layer into ``model``; returns how many. On a misfit raises WeightsCorrupt and changes nothing."""
    modules = dict(model.named_modules())
    merged: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        module = modules.get(name)
        if not isinstance(module, nn.Linear | nn.Conv2d):
            raise WeightsCorrupt(f"{path} is for another architecture: this one has no layer {name}.")
        for leaf, value in layer.base.items():
            if value.shape != getattr(module, leaf).shape:
                raise WeightsCorrupt(f"{path} is for another architecture: {name}.{leaf} is {tuple(value.shape)}.")
            merged[f"{name}.{leaf}"] = value.float()
        weight = merged.get(f"{name}.weight", module.weight.detach().float())
        for adapter, pair in layer.pairs.items():
            a, b = pair["A"], pair["B"]
            fits = (b.shape[0], *a.shape[1:]) == tuple(weight.shape) and a.shape[0] == b.shape[1]
            if not fits or b.shape[2:] not in {(), (1, 1)}:
                raise WeightsCorrupt(
                    f"{path} is for another architecture: LoRA '{adapter}' of {name} has A {tuple(a.shape)} and "
                    f"B {tuple(b.shape)} for a weight {tuple(weight.shape)}."
                )
            weight = weight + lora_delta(a, b, alpha)
        merged[f"{name}.weight"] = weight
    with torch.no_grad():
        for name, value in merged.items():
            model.get_parameter(name).copy_(value)
    return len(layers)
