"""One-step checkpoints on Stable Diffusion 2.1-base: OSEDiff and PiSA-SR, as published.

They carry peft layers by name: ``<module>.lora_A.<adapter>.weight`` and ``...lora_B...``, and
``<module>.base_layer.weight`` where the layer itself was trained too. They are folded into the weights they extend,
W' = W + (alpha / rank)·B·A in fp32: inference pays nothing for them. Both were trained with peft's default alpha
of 8, so that the scaling is 8 / rank: 2.0 for the published rank 4. Loading them with alpha = rank gives a silently
weaker model. Key names: cswry/OSEDiff (osediff.py, save_model) and csslc/PiSA-SR.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rasr.errors import WeightsCorrupt
from rasr.weights import read_checkpoint

ALPHA = 8.0
PARTS = ("encoder", "decoder", "others")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.(?P<adapter>[^.]+)\.weight")
_BASE = re.compile(r"(?P<module>.+)\.base_layer\.(?P<leaf>weight|bias)")


@dataclass(slots=True)
class _LoraLayer:
    """Tensors of one layer in a checkpoint."""

    pairs: dict[str, dict[str, torch.Tensor]] = field(default_factory=lambda: defaultdict(dict))
    """Adapter name → {"A": ..., "B": ...}."""
    base: dict[str, torch.Tensor] = field(default_factory=dict)
    """"weight" and "bias" of the layer itself, where they were trained."""


def fold_osediff(unet: nn.Module, vae: nn.Module, path: Path) -> tuple[int, int]:
    """Fold OSEDiff's checkpoint into UNet and VAE encoder; return the number of layers of each.

    Strict: the checkpoint must cover exactly the layers its repository adapts, and ``conv_in`` itself.
    Raises WeightsMissing or WeightsCorrupt.
    """
    content = read_checkpoint(path)
    unet_layers = _parse_lora(content, "state_dict_unet", [f"default_{part}" for part in PARTS], path)
    vae_layers = _parse_lora(content, "state_dict_vae", ["default_encoder"], path)
    _require_listed(unet_layers, content, [f"unet_lora_{part}_modules" for part in PARTS], unet, path)
    _require_listed(vae_layers, content, ["vae_lora_encoder_modules"], vae, path)
    if unet_layers["conv_in"].base.keys() != {"weight", "bias"}:
        raise WeightsCorrupt(f"{path} is incomplete: OSEDiff also trains conv_in itself, which is not in it.")
    _require_rank(content, "rank_unet", unet_layers, path)
    _require_rank(content, "rank_vae", vae_layers, path)
    return _fold(unet, unet_layers, path), _fold(vae, vae_layers, path)


def fold_pisasr(unet: nn.Module, path: Path) -> int:
    """Fold PiSA-SR's pixel and semantic LoRA, both in full, into the UNet; return their number."""
    content = read_checkpoint(path)
    kinds = ("pix", "sem")
    adapters = [f"default_{part}_{kind}" for part in PARTS for kind in kinds]
    layers = _parse_lora(content, "state_dict_unet", adapters, path)
    for kind in kinds:
        of_kind = {
            name: _LoraLayer({key: pair for key, pair in layer.pairs.items() if key.endswith(kind)})
            for name, layer in layers.items()
        }
        _require_listed(of_kind, content, [f"unet_lora_{part}_modules_{kind}" for part in PARTS], unet, path)
        _require_rank(content, f"lora_rank_unet_{kind}", of_kind, path)
    return _fold(unet, layers, path)


def _require_listed(
    layers: Mapping[str, _LoraLayer], content: Mapping[str, Any], keys: Sequence[str], model: nn.Module, path: Path
) -> None:
    """Check that a checkpoint's lists of adapted modules, its tensors and ``model`` agree."""
    listed: set[str] = set()
    for key in keys:
        names = content.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise WeightsCorrupt(f"{path} has no {key}: it is not the checkpoint this preset needs.")
        # The lists hold names of parameters in some versions and of modules in others, and some names twice.
        listed |= {name.removesuffix(".weight").replace(".base_layer", "") for name in names}
    known = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    if strange := sorted(listed - known):
        raise WeightsCorrupt(f"{path} is for another architecture: this one has no layer {strange[0]}.")
    adapted = {name for name, layer in layers.items() if layer.pairs}
    if differing := sorted(adapted ^ listed):
        raise WeightsCorrupt(f"{path} is incomplete: its list of layers and its tensors differ in {differing[0]}.")


def _require_rank(content: Mapping[str, Any], key: str, layers: Mapping[str, _LoraLayer], path: Path) -> None:
    """Check that file and tensors agree on the rank, which decides the scaling."""
    ranks = {pair["A"].shape[0] for layer in layers.values() for pair in layer.pairs.values()}
    if ranks != {content.get(key)}:
        raise WeightsCorrupt(f"{path}: {key} is {content.get(key)}, but its LoRA tensors have rank {sorted(ranks)}.")


def _parse_lora(content: Mapping[str, Any], key: str, adapters: Sequence[str], path: Path) -> dict[str, _LoraLayer]:
    """Sort a checkpoint's tensors by module. Raises WeightsCorrupt for an unexpected name."""
    tensors = content.get(key)
    if not isinstance(tensors, dict) or not tensors:
        raise WeightsCorrupt(f"{path} has no {key}: it is not the checkpoint this preset needs.")
    layers: dict[str, _LoraLayer] = defaultdict(_LoraLayer)
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise WeightsCorrupt(f"{path}: {name} is not a tensor.")
        if (found := _LORA.fullmatch(name)) and found["adapter"] in adapters:
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


def _lora_delta(a: torch.Tensor, b: torch.Tensor, alpha: float) -> torch.Tensor:
    """Compute (alpha / r)·B·A in fp32, shaped like the layer's weight.

    Linear: A (r, in), B (out, r). Convolution: A (r, in, k, k), B (out, r, 1, 1).
    """
    product = b.float().flatten(1) @ a.float().flatten(1)
    return (alpha / a.shape[0] * product).reshape(b.shape[0], *a.shape[1:])


def _fold(model: nn.Module, layers: Mapping[str, _LoraLayer], path: Path) -> int:
    """Fold layers into ``model``; return how many. Raises WeightsCorrupt, changing nothing."""
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
            weight = weight + _lora_delta(a, b, ALPHA)
        merged[f"{name}.weight"] = weight
    with torch.no_grad():
        for name, value in merged.items():
            model.get_parameter(name).copy_(value)
    return len(layers)
