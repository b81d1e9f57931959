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


def _realesrgan(**options: Any) -> Generator:  # noqa: ANN401
    from rasr.generator.realesrgan import RealESRGAN

    return RealESRGAN(**options)


def _bicubic(*, device: str, dtype: str) -> Generator:  # noqa: ARG001 - interpolation runs anywhere, in float32
    from rasr.generator.bicubic import Bicubic

    return Bicubic()


PRESETS = {
    "realesrgan": Preset("Real-ESRGAN x4plus: single image, uses no reference", _realesrgan),
    "bicubic": Preset("bicubic interpolation: the baseline, adds no detail", _bicubic),
}
DEFAULT_PRESET = "realesrgan"


def load_generator(
    preset: str = DEFAULT_PRESET,
    *,
    device: str = "auto",
    dtype: str = "auto",
    **options: Any,  # noqa: ANN401
) -> Generator:
    """Build a preset's generator; cheap, since weights are loaded on first use.

    ``device`` and ``dtype`` as in :func:`rasr.device.choose_device`; ``options`` are the preset's own.
    Raises UsageError for an unknown preset, or for a device or dtype it cannot run on.
    """
    if preset not in PRESETS:
        raise UsageError(f"Unknown preset '{preset}'. Choose one of: {', '.join(PRESETS)}.")
    return PRESETS[preset].build(device=device, dtype=dtype, **options)
