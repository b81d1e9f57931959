"""What a diffusion preset is made of: one TOML file in ``presets/``, checked against these classes when read."""

from __future__ import annotations

from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rasr.config import check_table, read_toml
from rasr.generator.protocol import TileHints
from rasr.weights import find

__all__ = ["CodecConfig", "ContextConfig", "ModelConfig", "ReferenceConfig", "preset_at_hand", "read_model_config"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CodecConfig(_Table):
    """The pair E, D between pictures and latents."""

    kind: Literal["kl", "patch"]
    """The base model's AutoencoderKL, or the lossless patch codec of models built here."""
    patch: int = 4
    """Side of the square of pixels that becomes one latent position (``patch`` only)."""


class ContextConfig(_Table):
    """What the cross-attention layers read."""

    kind: Literal["text", "embedding"]
    """``text``: CLIP's last hidden states of a prompt. ``embedding``: one vector, the LQ picture's in the gallery."""
    prompt: str = ""
    """Default prompt (``text``)."""
    encoder: str = ""
    """Name of the gallery encoder whose embedding is read (``embedding``)."""
    dimension: int = 0
    """Length of that embedding."""


class ReferenceConfig(_Table):
    """The reference branch. Stored in every adapter, since the adapter's tensors only mean something with it."""

    control: Literal["controlnet", "copy"] = "controlnet"
    """``controlnet``: additive residuals, as in the paper. ``copy``: detail is taken from places found by layout; needs
    the patch codec and the rule ``residual``."""
    blocks: int = Field(default=3, ge=1, le=4)
    """How many decoder blocks, counted from the deepest, see the reference. The paper: the first three."""
    lora_rank: int = Field(default=4, ge=0)
    """Rank of the LoRA in the branch's down blocks; 0 for none."""
    lora_alpha: float = 8.0
    """LoRA scaling is alpha / rank. 8 is peft's default and what OSEDiff's published weights were trained with."""
    mid: bool = True
    """``controlnet``: also add to the middle block's output, which is what the first decoder block starts from."""
    width: int = 256
    """``copy``: channels of the gate's network."""


class ModelConfig(_Table):
    """A one-step diffusion backbone and how it is used; eq. 3 of the paper with its silences filled in."""

    name: str
    summary: str
    licence: str
    """Licence of the trained weights, with its source."""
    rule: Literal["eps", "residual"]
    """How z' follows from the UNet's answer: see :func:`rasr.generator.refdsr.one_step`."""
    timestep: int
    alpha_bar: float = 1.0
    """ā at that timestep (``eps`` only)."""
    base: tuple[str, ...] = ()
    """Entries of the weights' catalogue, hub ids or folders, tried in order, that hold unet/, vae/, text_encoder/ and
    tokenizer/; empty when we build the model."""
    checkpoint: Literal["", "osediff", "pisasr"] = ""
    """Which published LoRA checkpoint is folded into the base."""
    residual_form: bool = False
    """y = x + D(z') − D(z) instead of D(z'): what the codec would lose is kept."""
    sees_lq: bool = False
    """The UNet reads the LQ latent beside the latent it changes; they differ when a cleaner ran first."""
    cleaner: str = ""
    """Preset that runs first unless another is asked for: what the weights were trained behind. Empty for none."""
    colour: Literal["wavelet", "adain", "none"] = "wavelet"
    """Colour match after it; ``none`` for weights that were trained to give the colours themselves."""
    minimum_side: int = 0
    """Smaller inputs are enlarged to this, restored and brought back; 0 only pads them."""
    reference_side: int = 512
    """References are brought to about this side squared, or to the result's size where that is larger, but never
    enlarged: what is searched in another scale is not found."""
    seed: int = 0
    """Seed of the untrained weights (models built here)."""
    unet: dict[str, Any] = Field(default_factory=dict)
    """Arguments of UNet2DConditionModel; empty when config.json comes with the weights."""
    codec: CodecConfig
    context: ContextConfig
    reference: ReferenceConfig = ReferenceConfig()
    tile: TileHints = TileHints(default=512, minimum=256, multiple=64, overlap=64)
    """Its multiple, the codec's stride times the UNet's, is checked against the model when that is loaded."""

    @field_validator("tile", mode="before")
    @classmethod
    def _rest_of_the_tile(cls, table: Any) -> Any:
        return asdict(cls.model_fields["tile"].default) | table if isinstance(table, dict) else table

    @model_validator(mode="after")
    def _codec_comes_from_somewhere(self) -> ModelConfig:
        if self.codec.kind != "patch" and not self.base:
            raise ValueError(f"codec.kind '{self.codec.kind}' comes with a base model; one built here has 'patch'")
        return self


def read_model_config(source: str | Path) -> ModelConfig:
    """A preset by name (``mini``, ``sd21-osediff``, ...) or the TOML file of one's own. Raises ConfigError."""
    path = Path(source)
    if path.suffix != ".toml":
        path = Path(str(files("rasr.generator"))) / "presets" / f"{source}.toml"
    return check_table(ModelConfig, read_toml(path, "preset"), path)


def preset_at_hand() -> str:
    """Preset that ``sd21`` means here: the one whose checkpoint is on this machine, OSEDiff's when both or none are."""
    return "sd21-pisasr" if find("pisasr") and not find("osediff") else "sd21-osediff"
