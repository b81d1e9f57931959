"""The two published parameter tables of Real-ESRGAN's two-stage degradation, as data.

``realesrgan`` holds the figures of Real-ESRGAN x4plus, which OSEDiff, SeeSR and HYPIR share; ``light`` those of
StableSR, S3Diff and AdaRefSR. Both were read in the named repositories' own configuration files.
"""

from __future__ import annotations

from dataclasses import dataclass

from rasr.errors import UsageError

__all__ = ["PRESETS", "Preset", "StageTable", "preset_named"]

Range = tuple[float, float]

KERNEL_KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
RESIZE_KINDS = ("up", "down", "keep")


@dataclass(frozen=True, slots=True)
class StageTable:
    """Ranges and probabilities of one stage: blur, resize, noise, JPEG. Ranges are closed and drawn uniformly."""

    blur_probability: float
    kernel_sizes: tuple[int, ...]
    """Sides in pixels, each equally likely."""
    sinc_probability: float
    sigma: Range
    """Standard deviation of the Gaussian families in pixels; both axes are drawn for the anisotropic ones."""
    generalized_beta: Range
    plateau_beta: Range
    """Shape exponents: half of the draws fall below 1 and half above, as in Real-ESRGAN."""
    resize_probabilities: tuple[float, float, float]
    """Of :data:`RESIZE_KINDS`."""
    resize: Range
    """Smallest and largest factor: 'down' is drawn from (smallest, 1), 'up' from (1, largest)."""
    gaussian_probability: float
    """Of Gaussian noise; the rest of the pictures get Poisson noise."""
    gaussian_sigma: Range
    """In 8-bit grey levels (1/255)."""
    poisson_scale: Range
    gray_probability: float
    """Of one noise plane shared by the three channels."""
    jpeg_quality: Range


@dataclass(frozen=True, slots=True)
class Preset:
    """A whole degradation: two stages and the final resize with its sinc filter."""

    name: str
    first: StageTable
    second: StageTable
    final_sinc_probability: float = 0.8
    untouched_probability: float = 0.0
    """Of a picture that is only resized to the LQ size."""


KERNEL_PROBABILITIES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
"""Of :data:`KERNEL_KINDS`, in both stages of both presets."""

FINAL_SINC_SIZES = tuple(range(7, 22, 2))

PRESETS = {
    "realesrgan": Preset(
        name="realesrgan",
        first=StageTable(
            blur_probability=1.0,
            kernel_sizes=tuple(range(7, 22, 2)),
            sinc_probability=0.1,
            sigma=(0.2, 3.0),
            generalized_beta=(0.5, 4.0),
            plateau_beta=(1.0, 2.0),
            resize_probabilities=(0.2, 0.7, 0.1),
            resize=(0.15, 1.5),
            gaussian_probability=0.5,
            gaussian_sigma=(1.0, 30.0),
            poisson_scale=(0.05, 3.0),
            gray_probability=0.4,
            jpeg_quality=(30.0, 95.0),
        ),
        second=StageTable(
            blur_probability=0.8,
            kernel_sizes=tuple(range(7, 22, 2)),
            sinc_probability=0.1,
            sigma=(0.2, 1.5),
            generalized_beta=(0.5, 4.0),
            plateau_beta=(1.0, 2.0),
            resize_probabilities=(0.3, 0.4, 0.3),
            resize=(0.3, 1.2),
            gaussian_probability=0.5,
            gaussian_sigma=(1.0, 25.0),
            poisson_scale=(0.05, 2.5),
            gray_probability=0.4,
            jpeg_quality=(30.0, 95.0),
        ),
    ),
    "light": Preset(
        name="light",
        first=StageTable(
            blur_probability=1.0,
            kernel_sizes=tuple(range(7, 22, 2)),
            sinc_probability=0.1,
            sigma=(0.2, 1.5),
            generalized_beta=(0.5, 2.0),
            plateau_beta=(1.0, 1.5),
            resize_probabilities=(0.2, 0.7, 0.1),
            resize=(0.3, 1.5),
            gaussian_probability=0.5,
            gaussian_sigma=(1.0, 15.0),
            poisson_scale=(0.05, 2.0),
            gray_probability=0.4,
            jpeg_quality=(60.0, 95.0),
        ),
        second=StageTable(
            blur_probability=0.5,
            kernel_sizes=tuple(range(7, 12, 2)),
            sinc_probability=0.1,
            sigma=(0.2, 1.0),
            generalized_beta=(0.5, 2.0),
            plateau_beta=(1.0, 1.5),
            resize_probabilities=(0.3, 0.4, 0.3),
            resize=(0.6, 1.2),
            gaussian_probability=0.5,
            gaussian_sigma=(1.0, 12.0),
            poisson_scale=(0.05, 1.0),
            gray_probability=0.4,
            jpeg_quality=(60.0, 100.0),
        ),
        untouched_probability=0.01,
    ),
}


def preset_named(name: str) -> Preset:
    """The preset of that name; raises UsageError with the known names otherwise."""
    try:
        return PRESETS[name]
    except KeyError:
        raise UsageError(f"Unknown degradation preset '{name}'. Choose one of: {', '.join(PRESETS)}.") from None
