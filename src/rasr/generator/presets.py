"""Presets: every generator by name, in one table, and the one that cleans queries.

An entry names code, which is imported when it is asked for. A preset of one's own is a file and a line: a class that
meets :class:`Generator`, or a TOML file for another diffusion backbone, and its entry in :data:`PRESETS`. Weights that
it cannot do without are entries of the weights' catalogue that name it (:func:`rasr.weights.serving`); a gallery
encoder whose embedding it reads is named by its :class:`GeneratorInfo`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

import numpy as np

from rasr.device import choose_device
from rasr.errors import UsageError
from rasr.generator.protocol import (
    Batch,
    Conditioning,
    GenerationSettings,
    Generator,
    GeneratorInfo,
    ReferencePicture,
    TileHints,
    Unconditioned,
)
from rasr.images import FloatImage, resize


@dataclass(frozen=True, slots=True)
class Preset:
    """Generator that can be asked for by name."""

    summary: str
    """One line for people."""
    code: str
    """``module:class``, or another callable: imported and called with device, dtype and options; cheap."""
    options: tuple[str, ...] = ()
    """Names of the options it takes besides device and dtype."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that make it this preset."""
    cleaner: str = ""
    """Preset that runs first unless the option ``cleaner`` says otherwise: what the weights were trained behind."""
    torch_code: str = ""
    """As ``code``, for GPUs that torch has, where the CPU has an engine of its own."""
    replaced: bool = False
    """True for a single-image network, whose place a model file takes that is given as cleaner."""


_REALESRGAN = ("threads", "weights")
_DIFFUSION = "rasr.generator.diffusion:DiffusionGenerator"
_SD21 = ("adapter", "base", "cache_bytes", "checkpoint", "cleaner", "registered", "vae")

PRESETS = {
    "mini": Preset(
        "sized for any machine: Real-ESRGAN with its last layers trained further, closer to the truth",
        "rasr.generator.realesrgan:RealESRGAN.with_tuned_layers",
        (*_REALESRGAN, "tuned"),
        torch_code="rasr.generator.rrdbnet:TorchRealESRGAN.with_tuned_layers",
        replaced=True,
    ),
    "realesrgan": Preset(
        "Real-ESRGAN x4plus as published",
        "rasr.generator.realesrgan:RealESRGAN",
        _REALESRGAN,
        torch_code="rasr.generator.rrdbnet:TorchRealESRGAN",
        replaced=True,
    ),
    "sd21": Preset(
        "RefDSR on Stable Diffusion 2.1, with the weights that are at hand", _DIFFUSION, _SD21, {"preset": "sd21"}
    ),
    "sd21-osediff": Preset(
        "RefDSR on SD 2.1-base with OSEDiff's weights (the paper's)", _DIFFUSION, _SD21, {"preset": "sd21-osediff"}
    ),
    "sd21-pisasr": Preset("RefDSR on SD 2.1-base with PiSA-SR's weights", _DIFFUSION, _SD21, {"preset": "sd21-pisasr"}),
    "bicubic": Preset("bicubic interpolation: the baseline, adds no detail", "rasr.generator.presets:Bicubic"),
}
DEFAULT_PRESET = "mini"
RENAMED = {"realesrgan-tuned": "mini"}
"""Names that presets had, for the message that says what they are called now."""
QUERY_CLEANER = "mini"
"""The generator that cleans queries, whatever restores them, so that every preset finds the same references."""
QUERY_TILE = 128
"""Side, in pixels, of the largest square that is cleaned at once for a query."""


def load_generator(
    preset: str = DEFAULT_PRESET, *, device: str = "auto", dtype: str = "auto", **options: Any
) -> Generator:
    """Build a preset's generator; cheap, since weights are loaded on first use.

    ``device`` and ``dtype`` as in :func:`rasr.device.choose_device`; ``options`` are the preset's own. ``cleaner`` is a
    preset, a generator, a model file, or "none"; in presets that are single-image networks themselves a model
    file takes their place. Raises UsageError for an unknown preset or option, or for a device or dtype it cannot run
    on.
    """
    if preset in RENAMED:
        raise UsageError(f"The preset '{preset}' is called '{RENAMED[preset]}' now.")
    if preset not in PRESETS:
        raise UsageError(f"Unknown preset '{preset}'. Choose one of: {', '.join(PRESETS)}.")
    entry = PRESETS[preset]
    if entry.replaced and (file := options.pop("cleaner", None)) not in {None, "none"}:
        if options:
            raise UsageError(
                f"The option '{min(options)}' is of the network that {file} takes the place of: leave it out."
            )
        return _model_file(file, device, dtype)
    if unknown := sorted(options.keys() - set(entry.options)):
        taken = ", ".join(entry.options) or "none"
        raise UsageError(f"The preset '{preset}' has no option '{unknown[0]}'. Its options: {taken}.")
    if entry.cleaner or "cleaner" in entry.options:
        cleaner = options.get("cleaner") or entry.cleaner or "none"
        if isinstance(cleaner, str):
            where = device if device == "cpu" or _on_torch(device) else "auto"
            if cleaner == "none":
                cleaner = None
            else:
                known = cleaner in {*PRESETS, *RENAMED}
                cleaner = load_generator(cleaner, device=where) if known else _model_file(cleaner, device)
        elif isinstance(cleaner, Path):
            cleaner = _model_file(cleaner, device)
        options["cleaner"] = cleaner
    code = entry.torch_code if entry.torch_code and _on_torch(device) else entry.code
    generator: Generator = resolve_name(code)(device=device, dtype=dtype, **entry.given, **options)
    return generator


def _on_torch(device: str) -> bool:
    """Whether torch has the GPU asked for."""
    if device.partition(":")[0] not in {"auto", "cuda", "mps"}:
        return False
    try:
        return choose_device(device).name != "cpu"
    except UsageError:
        return False


def _model_file(file: str | Path, device: str, dtype: str = "auto") -> Generator:
    """Generator of a model file. Raises UsageError where there is none."""
    from rasr.generator.model_file import ModelFile

    if file in PRESETS:
        raise UsageError(f"'{file}' runs before no other single-image network. Say --preset {file}.")
    if not Path(file).suffix and not Path(file).is_file():
        raise UsageError(f"Unknown preset '{file}', and there is no model file of that name.")
    return ModelFile(file, device=device, dtype=dtype)


def clean_query(
    pixels: FloatImage,
    input_size: int,
    mode: Literal["auto", "on", "off"] = "auto",
    *,
    cleaned: FloatImage | None = None,
) -> FloatImage:
    """Clean ``pixels`` (H, W, 3) for an encoder that sees a square of ``input_size`` pixels.

    ``auto`` cleans a picture whose shorter side is smaller than that, which the encoder would only see interpolated;
    ``on`` cleans any, and ``off`` none. ``cleaned`` is what :data:`QUERY_CLEANER` has already made of the picture; it
    is taken where it would be made again. Raises WeightsMissing or WeightsCorrupt.
    """
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    if mode == "off" or (mode == "auto" and shorter >= input_size):
        return pixels
    generator = _query_cleaner()
    scale = generator.info.scale
    if cleaned is not None and shorter <= input_size and cleaned.shape[:2] == (height * scale, width * scale):
        return cleaned
    # Reduced so far that the answer is as large as what the encoder sees: as good as more (docs/retrieval.md). Far ends
    # of a panorama are cut off, where no encoder looks.
    side = min(shorter, QUERY_TILE, max(1, input_size // scale))
    reach = round(shorter * (QUERY_TILE / min(QUERY_TILE, input_size / scale)) ** 2)
    top, left = max(0, (height - reach) // 2), max(0, (width - reach) // 2)
    middle = pixels[top : height - top, left : width - left]
    size = (max(1, round(middle.shape[1] * side / shorter)), max(1, round(middle.shape[0] * side / shorter)))
    lq = np.clip(resize(middle, size), 0.0, 1.0)
    answer: FloatImage = generator.generate(lq[None], None, generator.prepare(lq, [], GenerationSettings()))[0]
    return answer


@cache
def _query_cleaner() -> Generator:
    return load_generator(QUERY_CLEANER)


class Bicubic:
    """Bicubic interpolation: on the output grid, where the picture has been resampled already."""

    cleaner = None

    def __init__(self, *, device: str = "auto", dtype: str = "auto") -> None:
        """Ignore ``device`` and ``dtype``: interpolation runs anywhere, in float32."""
        self.info = GeneratorInfo(
            name="bicubic",
            uses_reference=False,
            grid="output",
            scale=1,
            tile=TileHints(default=1024, minimum=64, overlap=0, bytes_per_pixel=24),
            device="cpu: interpolation needs no GPU",
        )

    def prepare(
        self, lq: FloatImage, references: Sequence[ReferencePicture], settings: GenerationSettings
    ) -> Conditioning:
        """Compute nothing."""
        return Unconditioned(settings)

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """Return the tiles as they are, (N, H, W, 3)."""
        return tiles
