"""The published one-step checkpoints on Stable Diffusion 2.1-base: OSEDiff and PiSA-SR, read without running anything.

Both were trained with peft's default alpha of 8, so that the LoRA scaling is 8 / rank: 2.0 for the published rank 4.
Loading them with alpha = rank gives a silently weaker model. Key names: cswry/OSEDiff (osediff.py, save_model) and
csslc/PiSA-SR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rasr.errors import WeightsCorrupt
from rasr.generator.lora import LoraLayer, fold, parse_lora
from rasr.weights import read_checkpoint

__all__ = ["ALPHA", "UNET_TARGETS", "VAE_TARGETS", "fold_osediff", "fold_pisasr", "target_modules"]

ALPHA = 8.0
UNET_TARGETS = (
    *("to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_in", "conv_shortcut", "conv_out"),
    *("proj_out", "proj_in", "ff.net.2", "ff.net.0.proj"),
)
"""Both repositories adapt every layer whose name contains one of these; 258 layers of SD 2.1's UNet."""
VAE_TARGETS = ("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", "to_k", "to_q", "to_v", "to_out.0")
"""OSEDiff, in the VAE's encoder and quant_conv; 32 layers."""
PARTS = ("encoder", "decoder", "others")


def target_modules(model: nn.Module, substrings: Sequence[str]) -> set[str]:
    """Layers with weights whose name contains one of ``substrings`` and neither "bias" nor "norm"."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and "norm" not in name
        and any(substring in name for substring in substrings)
    }


def fold_osediff(unet: nn.Module, vae: nn.Module, path: Path) -> tuple[int, int]:
    """Fold OSEDiff's checkpoint into UNet and VAE encoder; returns the number of layers changed in each.

    Strict: the checkpoint must cover exactly the layers its repository adapts, and ``conv_in`` itself.
    Raises WeightsMissing or WeightsCorrupt.
    """
    content = read_checkpoint(path)
    unet_layers = parse_lora(_table(content, "state_dict_unet", path), [f"default_{part}" for part in PARTS], path)
    vae_layers = parse_lora(_table(content, "state_dict_vae", path), ["default_encoder"], path)
    _require_modules(unet_layers, _listed(content, [f"unet_lora_{part}_modules" for part in PARTS], path), unet, path)
    _require_modules(vae_layers, _listed(content, ["vae_lora_encoder_modules"], path), vae, path)
    if unet_layers["conv_in"].base.keys() != {"weight", "bias"}:
        raise WeightsCorrupt(f"{path} is incomplete: OSEDiff also trains conv_in itself, which is not in it.")
    _require_rank(content, "rank_unet", unet_layers, path)
    _require_rank(content, "rank_vae", vae_layers, path)
    return fold(unet, unet_layers, ALPHA, path), fold(vae, vae_layers, ALPHA, path)


def fold_pisasr(unet: nn.Module, path: Path) -> int:
    """Fold PiSA-SR's pixel and semantic LoRA, both at full strength, into the UNet; returns the number of layers."""
    content = read_checkpoint(path)
    kinds = ("pix", "sem")
    adapters = [f"default_{part}_{kind}" for part in PARTS for kind in kinds]
    layers = parse_lora(_table(content, "state_dict_unet", path), adapters, path)
    for kind in kinds:
        of_kind = {
            name: LoraLayer({key: pair for key, pair in layer.pairs.items() if key.endswith(kind)})
            for name, layer in layers.items()
        }
        _require_modules(
            of_kind, _listed(content, [f"unet_lora_{part}_modules_{kind}" for part in PARTS], path), unet, path
        )
        _require_rank(content, f"lora_rank_unet_{kind}", of_kind, path)
    return fold(unet, layers, ALPHA, path)


def _table(content: Mapping[str, Any], key: str, path: Path) -> dict[str, torch.Tensor]:
    table = content.get(key)
    if not isinstance(table, dict) or not table:
        raise WeightsCorrupt(f"{path} has no {key}: it is not the checkpoint this preset needs.")
    return table


def _listed(content: Mapping[str, Any], keys: Sequence[str], path: Path) -> set[str]:
    modules: set[str] = set()
    for key in keys:
        names = content.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise WeightsCorrupt(f"{path} has no {key}: it is not the checkpoint this preset needs.")
        # The lists hold names of parameters in some versions and of modules in others, and some names twice.
        modules |= {name.removesuffix(".weight").replace(".base_layer", "") for name in names}
    return modules


def _require_modules(layers: Mapping[str, LoraLayer], listed: set[str], model: nn.Module, path: Path) -> None:
    known = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    if strange := sorted(listed - known):
        raise WeightsCorrupt(f"{path} is for another architecture: this one has no layer {strange[0]}.")
    adapted = {name for name, layer in layers.items() if layer.pairs}
    if differing := sorted(adapted ^ listed):
        raise WeightsCorrupt(f"{path} is incomplete: its list of layers and its tensors differ in {differing[0]}.")


def _require_rank(content: Mapping[str, Any], key: str, layers: Mapping[str, LoraLayer], path: Path) -> None:
    """The rank decides the scaling, so what the file says and what its tensors have must agree."""
    ranks = {pair["A"].shape[0] for layer in layers.values() for pair in layer.pairs.values()}
    if ranks != {content.get(key)}:
        raise WeightsCorrupt(f"{path}: {key} is {content.get(key)}, but its LoRA tensors have rank {sorted(ranks)}.")
