"""Every preset by name: one hand-written table, whose builders import a preset's code when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rasr.errors import UsageError
from rasr.generator.protocol import Generator

__all__ = ["DEFAULT_PRESET", "PRESETS", "Preset", "load_generator"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A generator that can be asked for by name."""

    summary: str
    """One line for people."""
    build: Callable[..., Generator]
    """``build(device=..., dtype=..., **options)``; cheap."""
    options: tuple[str, ...] = ()
    """Names of the options it takes besides device and dtype."""
    context_encoder: str = ""
    """Gallery encoder whose embedding of the LQ picture the generator wants as the option ``embed``; empty for none."""


def _realesrgan(**options: Any) -> Generator:
    from rasr.generator.realesrgan import RealESRGAN

    return RealESRGAN(**options)


def _tuned(**options: Any) -> Generator:
    from rasr.generator.realesrgan import RealESRGAN
    from rasr.weights import require

    return RealESRGAN(**{"tuned": require("realesrgan-tuned"), **options})


def _bicubic(*, device: str, dtype: str) -> Generator:  # noqa: ARG001 - interpolation runs anywhere, in float32
    from rasr.generator.bicubic import Bicubic

    return Bicubic()


def _diffusion(preset: str) -> Callable[..., Generator]:
    def build(*, device: str, dtype: str, cleaner: str | Generator | None = None, **options: Any) -> Generator:
        from rasr.generator.config import preset_at_hand, read_model_config
        from rasr.generator.diffusion import DiffusionGenerator

        if cleaner is None:
            cleaner = read_model_config(preset_at_hand() if preset == "sd21" else preset).cleaner or "none"
        if isinstance(cleaner, str):
            cleaner = (
                None if cleaner == "none" else load_generator(cleaner, device="cpu" if device == "cpu" else "auto")
            )
        return DiffusionGenerator(preset, device=device, dtype=dtype, cleaner=cleaner, **options)

    return build


_MINI = ("adapter", "cache_bytes", "cleaner", "embed", "reference_side", "weights")
_SD21 = ("adapter", "base", "cache_bytes", "checkpoint", "cleaner", "reference_side", "vae")

PRESETS = {
    "realesrgan": Preset("Real-ESRGAN x4plus: single image, uses no reference", _realesrgan, ("threads", "weights")),
    "realesrgan-tuned": Preset(
        "Real-ESRGAN with its last layers trained further: closer to the truth, single image; runs before mini",
        _tuned,
        ("threads", "tuned", "weights"),
    ),
    "mini": Preset("RefDSR, sized for any machine", _diffusion("mini"), _MINI, context_encoder="effnet-lite0-robust"),
    "sd21": Preset("RefDSR on Stable Diffusion 2.1, with the weights that are at hand", _diffusion("sd21"), _SD21),
    "sd21-osediff": Preset(
        "RefDSR on SD 2.1-base with OSEDiff's weights (the paper's)", _diffusion("sd21-osediff"), _SD21
    ),
    "sd21-pisasr": Preset("RefDSR on SD 2.1-base with PiSA-SR's weights", _diffusion("sd21-pisasr"), _SD21),
    "bicubic": Preset("bicubic interpolation: the baseline, adds no detail", _bicubic),
}
DEFAULT_PRESET = "mini"


def load_generator(
    preset: str = DEFAULT_PRESET,
    *,
    device: str = "auto",
    dtype: str = "auto",
    **options: Any,
) -> Generator:
    """Build a preset's generator; cheap, since weights are loaded on first use.

    ``device`` and ``dtype`` as in :func:`rasr.device.choose_device`; ``options`` are the preset's own.
    Raises UsageError for an unknown preset or option, or for a device or dtype it cannot run on.
    """
    if preset not in PRESETS:
        raise UsageError(f"Unknown preset '{preset}'. Choose one of: {', '.join(PRESETS)}.")
    if unknown := sorted(options.keys() - set(PRESETS[preset].options)):
        taken = ", ".join(PRESETS[preset].options) or "none"
        raise UsageError(f"The preset '{preset}' has no option '{unknown[0]}'. Its options: {taken}.")
    return PRESETS[preset].build(device=device, dtype=dtype, **options)
