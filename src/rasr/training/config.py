"""Training configuration: one TOML file for all stages, every key checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from rasr.config import check_table, read_toml
from rasr.errors import ConfigError
from rasr.files import parse_toml
from rasr.generator.config import ModelConfig, read_model_config
from rasr.object_path import expand


def _absolute(place: Path, info: ValidationInfo) -> Path:
    """Take a path as relative to the folder of its TOML file, where there is one."""
    return place if info.context is None else (info.context / expand(place)).resolve()


def _file_or_name(place: str, info: ValidationInfo) -> str:
    """Do so for what looks like a file: weights may also be hub ids, and presets names."""
    is_file = place.endswith((".safetensors", ".pth", ".pkl", ".toml")) or place.startswith((".", "~"))
    return str(_absolute(Path(place), info)) if is_file else place


Place = Annotated[Path, AfterValidator(_absolute)]
FileOrName = Annotated[str, AfterValidator(_file_or_name)]
FileName = Annotated[str, AfterValidator(lambda place, info: str(_absolute(Path(place), info)))]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSection(_Table):
    """Model that is trained, and the weights it starts from."""

    preset: FileOrName
    """A diffusion preset (``sd21-osediff``, ``sd21-pisasr``) or the path of a model TOML."""
    weights: dict[str, FileOrName] = Field(default_factory=dict)
    """Where earlier parts come from: ``backbone``, ``adapter`` → a safetensors file; ``base``, ``checkpoint``."""
    reference: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the preset's [reference] table: control, blocks, lora_rank, ..."""
    zero_output: bool = False
    """Start with the backbone's last layer at zero: it begins by changing nothing, whatever it was trained behind."""
    cleaner: Literal["none", "realesrgan", "mini"] = "none"
    """A single-image restorer that runs before the model; its output is the picture the model starts from."""

    @model_validator(mode="after")
    def _known_parts(self) -> ModelSection:
        if unknown := self.weights.keys() - {"backbone", "adapter", "base", "checkpoint"}:
            known = "Known: backbone, adapter, base, checkpoint."
            raise ValueError(f"weights: unknown part '{min(unknown)}'. {known}")
        return self

    def read_preset(self) -> ModelConfig:
        """Read the preset, with its [reference] table changed as asked. Raises ConfigError."""
        preset = read_model_config(self.preset)
        changed = {**preset.reference.model_dump(), **self.reference}
        reference = check_table(type(preset.reference), changed, "model.reference")
        return preset.model_copy(update={"reference": reference}) if self.reference else preset


class DataConfig(_Table):
    """Good photos, and the samples that are cut from them."""

    photos: tuple[Place, ...] = ()
    layout: Literal["folder", "lsdir", "flickr30"] = "folder"
    crop: Positive = 256
    """Side of the HR crop in pixels. Photos with a shorter side are left out by name: nothing is enlarged."""
    scale: Annotated[int, Field(ge=1, le=16)] = 4
    degradation: Literal["realesrgan", "light"] = "realesrgan"
    usm: bool = False
    flip: bool = True
    """Mirror half of the samples left to right."""
    distinct: Annotated[int, Field(ge=0)] = 0
    """Number of different samples that are repeated for ever; 0 never repeats one."""
    pool: Annotated[int, Field(ge=0)] = 0
    """Views that are degraded and cleaned once, kept on disk and cut into samples over and over, mirrored and turned; 0
    makes every sample anew. A cleaner costs more than the training step behind it."""
    pool_side: Positive = 256
    """Side of these views in pixels; at least ``crop``."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Data-loading processes beside each training process. The samples do not depend on it."""
    long_side: Annotated[int, Field(ge=0)] = 0
    """Photos are reduced to this long side when they are decoded; 0 keeps their size."""
    cache_gb: Annotated[float, Field(ge=0)] = 8.0
    """Disk for decoded photos, kept between runs in the cache folder; 0 decodes every time."""

    @model_validator(mode="after")
    def _crop_divides(self) -> DataConfig:
        if not self.photos:
            raise ValueError("photos is not set. Name a folder of photos: --photos FOLDER")
        if self.crop % self.scale:
            raise ValueError(f"crop {self.crop} is not a multiple of scale {self.scale}")
        if self.pool and (self.pool_side < self.crop or self.pool_side % self.scale):
            raise ValueError(f"pool_side {self.pool_side} must be a multiple of scale {self.scale}, at least the crop")
        if self.pool and self.distinct:
            raise ValueError("pool and distinct exclude each other")
        return self


class ReferenceMix(_Table):
    """Shares of the kinds of references; they add up to 1."""

    retrieved: Share = 0.0
    """One of the ``top_k`` most similar other photos of the gallery."""
    other_crop: Share = 0.0
    """Another place of the same photo: an easy positive."""
    warped: Share = 0.0
    """The same place, shifted, turned, zoomed and recoloured: teaches correspondence. With model.reference.registered
    brought back into place, with the errors and gaps that registration leaves: teaches to take over."""
    random: Share = 0.0
    """Any other photo: the model must learn to ignore it."""
    null: Share = 0.0
    """No reference."""

    @model_validator(mode="after")
    def _adds_up(self) -> ReferenceMix:
        total = self.retrieved + self.other_crop + self.warped + self.random + self.null
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares add up to {total:g}, not 1")
        return self


class Phase(_Table):
    """Stretch of the curriculum."""

    until: Annotated[int, Field(ge=0)] = 0
    """First step that no longer belongs to it; 0 in the last phase."""
    mix: ReferenceMix


class ReferencesConfig(_Table):
    """References in training. The target photo and its near-duplicates are never retrieved."""

    phases: tuple[Phase, ...] = (Phase(mix=ReferenceMix(null=1.0)),)
    gallery: Place | None = None
    """A gallery or a folder of photos; None searches the training photos (``reference`` folders in flickr30)."""
    encoder: str | None = None
    """Retrieval encoder; None takes the gallery's own, or the default."""
    top_k: Positive = 5
    whole: Share = 0.25
    """Share of references from other photos shown whole, reduced to the crop's size, instead of a crop of them."""

    @model_validator(mode="after")
    def _phases_advance(self) -> ReferencesConfig:
        ends = [phase.until for phase in self.phases]
        if not ends or ends[-1] != 0 or 0 in ends[:-1] or sorted(set(ends[:-1])) != ends[:-1]:
            raise ValueError("phases need rising 'until' steps, and none in the last one")
        return self

    def mix_at(self, step: int) -> ReferenceMix:
        """Return the mix that holds at a step."""
        return next(phase.mix for phase in self.phases if phase.until == 0 or step < phase.until)


Network = Literal["vgg16", "effnet-lite1", "effnet-lite2"]
DiscriminatorNetwork = Literal["dino-vitb16", "effnet-lite1", "effnet-lite2"]


class LossConfig(_Table):
    """Weights of eq. 5's terms, λ1 to λ4. The paper prints none: 2 / 5 / 0.5 are S3Diff's."""

    mse: Weight = 2.0
    """Of pictures in [-1, 1]."""
    perceptual: Weight = 5.0
    gan: Weight = 0.0
    gram: Weight = 0.0
    perceptual_network: Network = "effnet-lite1"
    gram_network: Network = "effnet-lite1"
    discriminator_network: DiscriminatorNetwork = "effnet-lite2"
    files: dict[str, FileName] = Field(default_factory=dict)
    """Network name → local weights file or folder, instead of the package's or the hub's. ``lpips-heads`` → LPIPS's
    learned linear weights for vgg16."""
    sha256: dict[str, str] = Field(default_factory=dict)
    """Network name → the hash its weights must have. Always recorded in checkpoints and checked on resuming."""
    gan_after: Annotated[int, Field(ge=0)] = 0
    """First step with the adversarial term: a pretrained discriminator is added after a warm-up."""
    real_target: Annotated[float, Field(gt=0, le=1)] = 0.8


class OptimizerConfig(_Table):
    """AdamW, for the model and, apart, for the discriminator."""

    lr: Annotated[float, Field(gt=0)] = 2e-5
    discriminator_lr: Annotated[float, Field(gt=0)] = 2e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: Weight = 1e-2
    warmup: Annotated[int, Field(ge=0)] = 500
    """Steps of linear warm-up; then a cosine down to ``final_lr`` times lr at the last step."""
    final_lr: Share = 0.1
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the averaged weights, which are what is validated and exported; 0 for none."""


class LoopConfig(_Table):
    """Length, portions and place of the training."""

    steps: Positive
    """Optimizer steps."""
    batch: Positive = 16
    """Samples of one optimizer step, over all processes: the same config trains the same on one device or many."""
    accumulation: Positive = 1
    """Portions a process cuts its part of the batch into."""
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    device: Literal["auto", "cpu"] = "auto"
    log_every: Positive = 10
    checkpoint_every: Positive = 500
    keep: Positive = 2
    """Checkpoints that stay on disk."""


class ValidationConfig(_Table):
    """Fixed pictures, degraded with a fixed seed, restored with and without reference."""

    photos: tuple[Place, ...] = ()
    """Empty: no validation."""
    count: Positive = 4
    crop: Positive = 256
    every: Positive = 500
    seed: int = 0


class TrainingConfig(_Table):
    """Training run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    stage: Literal["backbone", "reference"]
    seed: int = 0
    model: ModelSection
    data: DataConfig
    references: ReferencesConfig = ReferencesConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loop: LoopConfig
    validation: ValidationConfig = ValidationConfig()

    @property
    def guided(self) -> bool:
        """True for the stage that trains with references."""
        return self.stage == "reference"

    @property
    def registered(self) -> bool:
        """True where the branch is trained on references in place. Raises ConfigError for a preset that is none."""
        return self.guided and self.model.read_preset().reference.registered

    def check_batch(self, processes: int) -> None:
        """Raise ConfigError unless the batch can be cut into equal portions for so many processes."""
        portions = processes * self.loop.accumulation
        if self.loop.batch % portions:
            raise ConfigError(
                f"loop.batch {self.loop.batch} cannot be cut into {processes} processes times {self.loop.accumulation} "
                f"portions. Use a multiple of {portions}."
            )

    @model_validator(mode="after")
    def _fits_together(self) -> TrainingConfig:
        if self.guided and all(phase.mix.null == 1 for phase in self.references.phases):
            raise ValueError(
                f"stage '{self.stage}' needs references: give [[references.phases]] with a mix other than null"
            )
        if not self.guided and any(phase.mix.null != 1 for phase in self.references.phases):
            raise ValueError(f"stage '{self.stage}' takes no references: leave [references] out")
        if self.model.reference.get("registered") and not any(phase.mix.warped for phase in self.references.phases):
            raise ValueError(
                "model.reference.registered needs warped references, which are brought into place: none here"
            )
        if self.model.zero_output and self.guided:
            raise ValueError(f"model.zero_output: stage '{self.stage}' does not train the layer that would be zero")
        if self.model.cleaner != "none" and self.data.scale != 4:
            raise ValueError(f"model.cleaner '{self.model.cleaner}' enlarges by 4; data.scale is {self.data.scale}")
        if not self.loss.mse + self.loss.perceptual + self.loss.gan + self.loss.gram:
            raise ValueError("every loss weight is 0")
        if self.validation.photos and self.validation.crop % self.data.scale:
            raise ValueError(f"validation.crop {self.validation.crop} is not a multiple of scale {self.data.scale}")
        return self


RESUMABLE = (
    "data.cache_gb",
    "data.photos",
    "data.workers",
    "loop.checkpoint_every",
    "loop.device",
    "loop.keep",
    "loop.log_every",
    "loop.steps",
    "loss.files",
    "model.weights",
    "name",
    "optimizer.ema",
    "references.gallery",
    "validation",
)
"""Keys that may differ when a run is resumed: where things are, how long and how often; not what is learnt from."""


def read_training_config(
    source: str | Path,
    changes: Sequence[str] = (),
    *,
    photos: Sequence[Path] = (),
    validation: Sequence[Path] = (),
) -> TrainingConfig:
    """Read a TOML file, or one that comes with RASR by its name (:func:`packaged_configs`).

    ``changes`` are ``table.key=value`` settings on top of it, with TOML values; ``photos`` and ``validation`` replace
    data.photos and validation.photos. Paths in the file are relative to its folder. Raises ConfigError naming the file
    and the key; an unknown key comes with the nearest known one.
    """
    path, packaged = Path(source), packaged_configs()
    if path.suffix != ".toml" and not path.is_file():
        if str(source) not in packaged:
            known = ", ".join(packaged)
            raise ConfigError(f"There is no configuration '{source}'. Give a TOML file or one of: {known}.")
        path = packaged[str(source)]
    tree = read_toml(path)
    for key, value in map(_parse_change, changes):
        _put(tree, key, value)
    for key, folders in (("data.photos", photos), ("validation.photos", validation)):
        if folders:
            _put(tree, key, [str(expand(folder).resolve()) for folder in folders])
    return check_table(TrainingConfig, tree, path, context=path.resolve().parent)


def packaged_configs() -> dict[str, Path]:
    """List the configurations that come with RASR, by name."""
    folder = Path(str(files("rasr.training"))) / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def changed_keys(old: TrainingConfig, new: TrainingConfig) -> list[str]:
    """List keys on which a resumed run differs but must not, as ``table.key: old → new``."""
    before, after = (dict(_leaves(config.model_dump(mode="json"))) for config in (old, new))
    return [
        f"{key}: {before.get(key)} → {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(RESUMABLE)
    ]


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _parse_change(change: str) -> tuple[str, Any]:
    key, equals, text = change.partition("=")
    if not equals:
        raise ConfigError(f"'{change}' is not of the form table.key=value.")
    try:
        return key.strip(), parse_toml(f"value = {text}")["value"]
    except ValueError:
        return key.strip(), text


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for name in tables:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"'{key}': {name} is not a table.")
    tree[last] = value
