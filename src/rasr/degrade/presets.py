"""Presets: the published parameter tables of Real-ESRGAN's two-stage degradation, in ``presets.toml``."""

from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

from rasr.config import Table, check_table, read_toml

Range = tuple[float, float]

KernelKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
KERNEL_KINDS: tuple[KernelKind, ...] = get_args(KernelKind)
KERNEL_PROBABILITIES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
"""Of :data:`KERNEL_KINDS`, in both stages of both presets."""
KERNEL_SIZES = tuple(range(7, 22, 2))
"""Sides in pixels of the blur kernels and of the final sinc filter."""
RESIZE_KINDS = ("up", "down", "keep")


class StageTable(Table):
    """Ranges, drawn uniformly, and probabilities of one stage; by default Real-ESRGAN's first."""

    blur_probability: float = 1.0
    kernel_sizes: tuple[int, ...] = KERNEL_SIZES
    """Sides in pixels, each equally likely."""
    sinc_probability: float = 0.1
    sigma: Range = (0.2, 3.0)
    """Standard deviation of the Gaussian families in pixels; both axes are drawn for the anisotropic ones."""
    generalized_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)
    """Shape exponents: half of the draws fall below 1 and half above, as in Real-ESRGAN."""
    resize_probabilities: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """Of :data:`RESIZE_KINDS`."""
    resize: Range = (0.15, 1.5)
    """Smallest and largest factor: 'down' is drawn from (smallest, 1), 'up' from (1, largest)."""
    gaussian_probability: float = 0.5
    """Of Gaussian noise; the rest of the pictures get Poisson noise."""
    gaussian_sigma: Range = (1.0, 30.0)
    """In 8-bit grey levels (1/255)."""
    poisson_scale: Range = (0.05, 3.0)
    gray_probability: float = 0.4
    """Of one noise plane shared by the three channels."""
    jpeg_quality: Range = (30.0, 95.0)


class DegradationPreset(Table):
    """Two stages and the final resize with its sinc filter."""

    first: StageTable
    second: StageTable
    final_sinc_probability: float = 0.8
    untouched_probability: float = 0.0
    """Of a picture that is only resized to the LQ size."""


_TABLES = Path(str(files("rasr.degrade") / "presets.toml"))
PRESETS = {name: check_table(DegradationPreset, table, _TABLES) for name, table in read_toml(_TABLES).items()}
