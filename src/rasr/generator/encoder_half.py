"""The backbone's encoder half, used a second time for the reference: the same tensors, with LoRA of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["add_lora", "own_parameters", "tie", "tied_controlnet"]

SHARED = ("conv_in", "time_embedding", "down_blocks", "mid_block")
"""The sub-modules of ControlNetModel that begin as a copy of the UNet's; here they are the UNet's own tensors."""
LORA_TARGETS = (
    r"down_blocks\..*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2"
    r"|conv1|conv2|conv|conv_shortcut|time_emb_proj)"
)
"""Every linear and convolutional layer of the down blocks: 101 modules of SD 2.1."""


def tied_controlnet(unet: Any, latent_channels: int, *, lora_rank: int, lora_alpha: float) -> Any:
    """A ControlNetModel whose frozen weights are the UNet's own parameters.

    Its condition stays at latent resolution: an embedding of one stage has no strided convolution. The skeleton is made
    on the meta device, so that nothing the size of the backbone is ever allocated twice.
    """
    from diffusers import ControlNetModel

    with torch.device("meta"):
        control = ControlNetModel.from_unet(
            unet,
            load_weights_from_unet=False,
            conditioning_channels=latent_channels,
            conditioning_embedding_out_channels=(unet.config.block_out_channels[0],),
        )
    tie(control, unet)
    _initialise_own(control, unet)
    if lora_rank:
        add_lora(control, lora_rank, lora_alpha)
    return control


def tie(control: nn.Module, unet: nn.Module) -> None:
    """Make every shared weight of ``control`` the very Parameter of ``unet``; harmless when it already is."""
    for part in SHARED:
        mine = getattr(control, part, None)
        if mine is None:
            continue
        theirs = dict(getattr(unet, part).named_parameters())
        # A LoRA layer keeps the layer it extends as `base_layer`; those weights are the shared ones.
        for name, _ in list(mine.named_parameters()):
            source = theirs.get(name.replace(".base_layer.", "."))
            if source is not None:
                owner, _, leaf = name.rpartition(".")
                setattr(mine.get_submodule(owner) if owner else mine, leaf, source)


def own_parameters(branch: nn.Module, unet: nn.Module) -> dict[str, nn.Parameter]:
    """The branch's parameters that are not the backbone's: what is trained, counted and saved."""
    shared = {id(parameter) for parameter in unet.parameters()}
    return {name: p for name, p in branch.named_parameters() if id(p) not in shared}


def add_lora(control: nn.Module, rank: int, alpha: float) -> None:
    """LoRA (Hu et al. 2022) on the down blocks; B starts at zero, so that it changes nothing until trained."""
    import peft

    peft.inject_adapter_in_model(
        peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=LORA_TARGETS, init_lora_weights="gaussian"),
        control,
        adapter_name="reference",
    )


def _initialise_own(control: nn.Module, unet: nn.Module) -> None:
    """Give the layers a ControlNet adds real storage: zeros where it must start as nothing."""
    device, dtype = next((p.device, p.dtype) for p in unet.parameters())
    for name, module in control.named_modules():
        if not any(p.is_meta for p in module.parameters(recurse=False)):
            continue
        module.to_empty(device=device, recurse=False)
        module.to(dtype)
        if name.startswith(("controlnet_down_blocks", "controlnet_mid_block")) or name.endswith("embedding.conv_out"):
            for parameter in module.parameters(recurse=False):
                nn.init.zeros_(parameter)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
