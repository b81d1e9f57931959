"""ControlNet, the paper's reference branch: residuals for the first decoder blocks (eq. 3).

Its frozen half is the backbone's encoder half used a second time: the same tensors, with LoRA of its own.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from rasr.generator.config import ReferenceConfig

SHARED = ("conv_in", "time_embedding", "down_blocks", "mid_block")
"""The sub-modules of ControlNetModel that begin as a copy of the UNet's; here they are the UNet's own tensors."""
LORA_TARGETS = (
    r"down_blocks\..*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2"
    r"|conv1|conv2|conv|conv_shortcut|time_emb_proj)"
)
"""Every linear and convolutional layer of the down blocks: 101 modules of SD 2.1."""


class ControlBranch(nn.Module):
    """Additive control: a position receives what the same position of the reference gives."""

    def __init__(self, unet: Any, latent_channels: int, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
        self.control = _tied_controlnet(unet, latent_channels)
        if config.lora_rank:
            _add_lora(self.control, config.lora_rank, config.lora_alpha)
        for index in range(_first_guided_residual(unet, config.blocks)):
            self.control.controlnet_down_blocks[index] = _NoResidual()
        if not config.mid:
            self.control.controlnet_mid_block = _NoResidual()
            self.control.mid_block = None
        self.condition = self.control.controlnet_cond_embedding
        self.control.controlnet_cond_embedding = nn.Identity()  # the condition is embedded once for all tiles

    def encode(self, latent: torch.Tensor) -> torch.Tensor:
        """Embed a reference's latent (M, c, h, w) as the condition, (M, C, h, w).

        The rest of the branch reads the LQ latent too, so it runs per tile.
        """
        embedded: torch.Tensor = self.condition(latent)
        return embedded

    @contextmanager
    def inject(
        self,
        unet: Any,
        sample: torch.Tensor,
        timestep: int,
        null_context: torch.Tensor,
        references: Sequence[torch.Tensor],
        weights: torch.Tensor,
    ) -> Iterator[dict[str, Any]]:
        """Yield arguments for the UNet's call: Σ_k weight_k · C(z, t, ∅, r_k).

        ``sample`` (N, C, h, w); ``references`` are K conditions (N or 1, C, h, w); ``weights`` (N, K), or (N, K, H, W)
        of any resolution where they differ from place to place, are already times strength.
        """
        total: list[torch.Tensor] = []
        for k, condition in enumerate(references):
            down, mid = self.control(
                sample,
                timestep,
                encoder_hidden_states=null_context.expand(sample.shape[0], -1, -1),
                controlnet_cond=condition.expand(sample.shape[0], -1, -1, -1),
                return_dict=False,
            )
            scaled = [_weighed(part, weights[:, k]) for part in (*down, mid)]
            total = scaled if not total else [a + b for a, b in zip(total, scaled, strict=True)]
        yield {"down_block_additional_residuals": tuple(total[:-1]), "mid_block_additional_residual": total[-1]}


def _weighed(part: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """A residual (N, C, h, w), or a scalar nought, times weights (N,) or (N, H, W)."""
    if weights.ndim == 1:
        return part * weights.view(-1, 1, 1, 1)
    return part * F.adaptive_avg_pool2d(weights[:, None], (part.shape[-2], part.shape[-1])) if part.ndim else part


class _NoResidual(nn.Module):
    """Scalar nought, which broadcasts, in place of a zero convolution that is not used."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.new_zeros(())


def _first_guided_residual(unet: Any, blocks: int) -> int:
    """Index of the first residual that reaches one of the ``blocks`` deepest decoder blocks.

    The decoder takes residuals from the end, one for each of its layers: of SD's twelve, 9-11 go to up block 0, 6-8 to
    1, 3-5 to 2 and 0-2 to 3, so that three blocks begin at 3.
    """
    return sum(len(block.resnets) for block in unet.up_blocks[blocks:])


def _tied_controlnet(unet: Any, latent_channels: int) -> Any:
    """Build a ControlNetModel whose frozen weights are the UNet's own parameters.

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
    for part in SHARED:
        for name, parameter in getattr(unet, part).named_parameters():
            owner, _, leaf = f"{part}.{name}".rpartition(".")
            setattr(control.get_submodule(owner), leaf, parameter)
    _initialise_own(control, unet)
    return control


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


class _Lora(nn.Module):
    """Layer with LoRA beside it, W·x + (alpha / rank)·B·A·x; B starts at zero and so changes nothing.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. Parameters are named, initialised and
    applied as peft's are, whose keys stand in adapters.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int, alpha: float) -> None:
        super().__init__()
        self.base_layer = layer
        down: nn.Linear | nn.Conv2d
        up: nn.Linear | nn.Conv2d
        if isinstance(layer, nn.Linear):
            down = nn.Linear(layer.in_features, rank, bias=False)
            up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            shape: dict[str, Any] = {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding")}
            down = nn.Conv2d(layer.in_channels, rank, bias=False, **shape)
            up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        nn.init.normal_(down.weight, std=1 / rank)
        nn.init.zeros_(up.weight)
        self.lora_A = nn.ModuleDict({"reference": down.to(layer.weight)})
        self.lora_B = nn.ModuleDict({"reference": up.to(layer.weight)})
        self.scaling = alpha / rank

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        down, up = self.lora_A["reference"], self.lora_B["reference"]
        plain: torch.Tensor = self.base_layer(features)
        added: torch.Tensor = up(down(features.to(next(down.parameters()).dtype)))
        return (plain + added * self.scaling).to(plain.dtype)


def _add_lora(control: nn.Module, rank: int, alpha: float) -> None:
    """Put LoRA beside every linear and convolutional layer of the down blocks."""
    for name in [name for name, _ in control.named_modules() if re.fullmatch(LORA_TARGETS, name)]:
        parent, _, leaf = name.rpartition(".")
        layer: Any = control.get_submodule(name)
        setattr(control.get_submodule(parent), leaf, _Lora(layer, rank, alpha))
