"""From a preset to a model: where its weights are, fresh ones from a seed where there are none, and the adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from rasr.errors import ConfigError, UsageError, WeightsMissing
from rasr.generator.adapter import load_adapter, load_backbone
from rasr.generator.codec import PatchCodec
from rasr.generator.config import ModelConfig
from rasr.generator.refdsr import RefDSR
from rasr.home import home
from rasr.weights import CATALOGUE, find

if TYPE_CHECKING:
    from rasr.device import Device

__all__ = ["Sources", "build_model", "load_model"]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a preset's weights come from, decided from file names alone; nothing is read here."""

    backbone: Path | None = None
    """Backbone file of a model built here; None for seeded weights."""
    adapter: Path | None = None
    base: str | None = None
    """Hub id or folder asked for in place of the preset's list."""
    checkpoint: Path | None = None
    vae: str | Path = "full"
    trained: bool = True
    described: str = ""

    @classmethod
    def find(
        cls,
        config: ModelConfig,
        *,
        weights: str | Path | None = None,
        adapter: str | Path | Literal["none"] | None = None,
        base: str | Path | None = None,
        checkpoint: str | Path | None = None,
        vae: str | Path = "full",
    ) -> Sources:
        """What was asked for, else what ships in the package, else what lies in ``$RASR_HOME/models``.

        Raises UsageError for options that the preset does not have, WeightsMissing for a named file that is not there.
        """
        pretrained = bool(config.base)
        if pretrained and weights is not None:
            raise UsageError(f"{config.name} takes --base and --checkpoint, not one weights file.")
        if not pretrained and (base is not None or checkpoint is not None or vae != "full"):
            raise UsageError(f"{config.name} is built by RASR: it has no base model, checkpoint or other autoencoder.")
        backbone = None if pretrained else _file(weights) or _at_hand(config.name)
        guide = None
        if adapter != "none":
            # The package's adapter belongs to the package's backbone: beside one of the user's own it is not at hand.
            packaged = backbone is None or backbone == _packaged(config.name)
            guide = _file(adapter) or _at_hand(f"{config.name}-reference", packaged=packaged)
        if pretrained:
            known = CATALOGUE.get(config.base[0])
            model = base or (known.repositories[0] if known else config.base[0])
            described = f"{model} + {checkpoint or config.checkpoint or 'no checkpoint'}"
            found = _file(checkpoint)
            return cls(None, guide, None if base is None else str(base), found, vae, True, _and(described, guide))
        described = f"seed {config.seed}, untrained" if backbone is None else str(backbone)
        return cls(backbone, guide, trained=backbone is not None, described=_and(described, guide))


def load_model(config: ModelConfig, sources: Sources, place: Device) -> tuple[RefDSR, Any]:
    """The model on its device in its number format, ready for inference, and its prompt encoder (None without text).

    Raises WeightsMissing, WeightsCorrupt, or WeightsError when the adapter belongs to another backbone.
    """
    prompts = None
    if config.base:
        from rasr.generator.stable_diffusion import load_stable_diffusion

        model, prompts = load_stable_diffusion(config, sources, place)
    else:
        model = build_model(config)
        if sources.backbone is not None:
            load_backbone(model, sources.backbone)
    if sources.adapter is not None:
        load_adapter(model, sources.adapter)
    if model.multiple != config.tile.multiple:
        raise ConfigError(f"{config.name}: tile.multiple must be {model.multiple}, not {config.tile.multiple}.")
    return model.to(place.device, place.dtype).requires_grad_(False).eval(), prompts


def build_model(config: ModelConfig) -> RefDSR:
    """A model of the preset's architecture with seeded, untrained weights, on the CPU in fp32; no reference branch.

    The UNet's last convolution starts at zero, so that in the residual form the untrained model returns its input.
    """
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = UNet2DConditionModel(**config.unet)
        if config.residual_form:
            nn.init.zeros_(unet.conv_out.weight)
            nn.init.zeros_(unet.conv_out.bias)
        width = unet.config.cross_attention_dim
        projection = None
        null = torch.zeros(1, 77, width)
        if config.context.kind == "embedding":
            projection = nn.Linear(config.context.dimension, width)
            null = torch.zeros(1, 1, config.context.dimension)
    model = RefDSR(config, unet, PatchCodec(config.codec.patch), null, projection)
    return model.requires_grad_(False).eval()


def _file(path: str | Path | None) -> Path | None:
    if path is None:
        return None
    if not (found := Path(path).expanduser()).is_file():
        raise WeightsMissing(f"There is no weights file {found}.")
    return found


def _at_hand(name: str, *, packaged: bool = True) -> Path | None:
    """A file the user put into ``$RASR_HOME/models``, or else, if ``packaged``, one of the package."""
    own = home() / "models" / f"{name}.safetensors"
    return own if own.is_file() else _packaged(name) if packaged else None


def _packaged(name: str) -> Path | None:
    return find(name) if name in CATALOGUE else None


def _and(described: str, adapter: Path | None) -> str:
    return described if adapter is None else f"{described} + {adapter}"
