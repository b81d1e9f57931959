"""Diffusion presets: the tables of a TOML file in ``presets/``, and where its weights lie."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rasr.config import Table, check_table, read_toml
from rasr.errors import UsageError, WeightsCorrupt, WeightsMissing
from rasr.files import home, parse_object
from rasr.generator.protocol import TileHints
from rasr.object_path import expand
from rasr.weights import CATALOGUE, find, read_metadata


class _CodecConfig(Table):
    """[codec]: the pair E, D between pictures and latents."""

    kind: Literal["kl", "patch"]
    """The base model's AutoencoderKL, or the lossless patch codec of models built here."""
    patch: int = 4
    """Side of the square of pixels that becomes one latent position (``patch`` only)."""


class _ContextConfig(Table):
    """[context]: what the cross-attention layers read."""

    kind: Literal["text", "embedding"]
    """``text``: CLIP's last hidden states of a prompt. ``embedding``: one vector, the LQ picture's in the gallery."""
    prompt: str = ""
    """Default prompt (``text``)."""
    encoder: str = ""
    """Name of the gallery encoder whose embedding is read (``embedding``)."""
    dimension: int = 0
    """Length of that embedding."""


class ReferenceConfig(Table):
    """[reference]: the branch. Stored in every adapter, whose tensors mean nothing without it."""

    control: Literal["controlnet"] = "controlnet"
    """Additive residuals, as in the paper."""
    blocks: int = Field(default=3, ge=1, le=4)
    """How many decoder blocks, counted from the deepest, see the reference. The paper: the first three."""
    lora_rank: int = Field(default=4, ge=0)
    """Rank of the LoRA in the branch's down blocks; 0 for none."""
    lora_alpha: float = 8.0
    """LoRA scaling is alpha / rank. 8 is peft's default and what OSEDiff's published weights were trained with."""
    mid: bool = True
    """Also add to the middle block's output, which is what the first decoder block starts from."""
    registered: bool = False
    """Trained on references brought into place, so that its residuals are tied to positions; it is then shown photos
    of the same scene as the picture sees them, and what it draws counts where they cover it."""


class ModelConfig(Table):
    """One-step diffusion backbone and its use: eq. 3 of the paper with its silences filled in."""

    name: str
    summary: str
    licence: str
    """Licence of the trained weights, with its source."""
    rule: Literal["eps", "residual"]
    """How z' follows: ``eps`` z' = (z − √(1−ā)·UNet(z)) / √ā, ``residual`` z' = z − UNet(z)."""
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
    colour: Literal["lowest", "wavelet", "adain", "none"] = "wavelet"
    """Colour match after it; ``none`` for weights that were trained to give the colours themselves."""
    minimum_side: int = 0
    """Smaller inputs are enlarged to this, restored and brought back; 0 only pads them."""
    seed: int = 0
    """Seed of the untrained weights (models built here)."""
    unet: dict[str, Any] = Field(default_factory=dict)
    """Arguments of UNet2DConditionModel; empty when config.json comes with the weights."""
    codec: _CodecConfig
    context: _ContextConfig
    reference: ReferenceConfig = ReferenceConfig()
    tile: TileHints = TileHints(default=512, minimum=256, multiple=64, overlap=64, fixed=True)
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
    """Read a preset by name (``sd21-osediff``, ...) or a TOML file of one's own. Raises ConfigError."""
    path = Path(source)
    if path.suffix != ".toml":
        path = Path(str(files("rasr.generator"))) / "presets" / f"{source}.toml"
    return check_table(ModelConfig, read_toml(path, "preset"), path)


def preset_at_hand() -> str:
    """Choose what ``sd21`` means: PiSA-SR where only its checkpoint is at hand, else OSEDiff."""
    return "sd21-pisasr" if find("pisasr") and not find("osediff") else "sd21-osediff"


@dataclass(frozen=True, slots=True)
class WeightPaths:
    """Weights of a preset, found by file names alone; nothing is read."""

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
    ) -> WeightPaths:
        """Take what was asked for, else what lies in ``$RASR_HOME/models``.

        Raises UsageError for options that the preset does not have, WeightsMissing for a named file that is not there.
        """
        pretrained = bool(config.base)
        if pretrained and weights is not None:
            raise UsageError(f"{config.name} takes --base and --checkpoint, not one weights file.")
        if not pretrained and (base is not None or checkpoint is not None or vae != "full"):
            raise UsageError(f"{config.name} is built by RASR: it has no base model, checkpoint or other autoencoder.")
        backbone = None if pretrained else _file(weights) or _at_hand(config.name)
        branch = None if adapter == "none" else _file(adapter) or _at_hand(f"{config.name}-reference")
        parts: list[object] = [backbone or f"seed {config.seed}, untrained"]
        if pretrained:
            known = CATALOGUE.get(config.base[0])
            source = base or (known.repositories[0] if known else config.base[0])
            parts = [source, checkpoint or config.checkpoint or "no checkpoint"]
        return cls(
            backbone,
            branch,
            base=None if base is None else str(base),
            checkpoint=_file(checkpoint),
            vae=vae,
            trained=pretrained or backbone is not None,
            described=" + ".join(str(part) for part in (*parts, branch) if part),
        )

    @property
    def registered(self) -> bool:
        """Whether the adapter was trained on registered references; what is wrong with it is told when it is loaded."""
        if self.adapter is None:
            return False
        try:
            return parse_object(read_metadata(self.adapter)["reference"]).get("registered") is True
        except (KeyError, ValueError, WeightsCorrupt):
            return False

    def needs(self, config: ModelConfig) -> tuple[str, ...]:
        """Entries of the weights' catalogue that loading will ask for, where the user named no files of their own."""
        if not config.base:
            return ()
        checkpoint = (config.checkpoint,) if config.checkpoint and self.checkpoint is None else ()
        own = self.base is not None or any(name not in CATALOGUE and find("sd21", name) for name in config.base)
        return (*checkpoint, *(() if own else ("sd21",)), *(("taesd",) if self.vae == "tiny" else ()))


def _file(path: str | Path | None) -> Path | None:
    if path is None:
        return None
    if not (found := expand(Path(path))).is_file():
        raise WeightsMissing(f"There is no weights file {found}.")
    return found


def _at_hand(name: str) -> Path | None:
    own = home() / "models" / f"{name}.safetensors"
    return own if own.is_file() else None
