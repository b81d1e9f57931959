"""Settings of an evaluation, each declared here and nowhere else.

The command line reads this module for its ``--help``, so nothing heavy is imported at its top.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rasr.options import check_options, option


@dataclass(frozen=True, slots=True)
class InputSettings:
    """Making of inputs where a benchmark has only good pictures. Raises UsageError."""

    scale: int = option(
        4,
        "Factor inputs are shrunk by, 1 to 16.",
        valid=lambda scale: 1 <= scale <= 16,
        fault="The scale must be a whole number from 1 to 16, not {}.",
    )
    crop: int | None = option(
        None,
        "Centre crop of the ground truth, in pixels, at least 16.",
        valid=lambda crop: crop is None or crop >= 16,
        fault="The crop must be at least 16 pixels, not {}.",
    )
    """Side of the square; None takes the whole picture."""
    degradation: str = option("realesrgan", "Preset of 'rasr degrade'.")
    seed: int = option(0, "For degradations, random references and methods.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class MeasuringProtocol:
    """Options of measuring, for a whole table. Raises UsageError for values out of range.

    The defaults are the protocol of record (OSEDiff and TSD-SR ``test_metrics.py``): no border is cropped, PSNR and
    SSIM on the luma of BT.601. ReFIR and AdaRefSR crop 4 pixels off every side before all metrics but FID.
    """

    crop_border: int = option(
        0,
        "Pixels taken off every side before measuring.",
        valid=lambda border: border >= 0,
        fault="The border must not be negative, as {} is.",
    )
    """Before every metric of single pictures; never before FID and KID."""
    space: Literal["y", "rgb"] = option("y", "For PSNR and SSIM: luma of BT.601, or the three colour channels.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """Everything about an evaluation but its methods. Raises UsageError."""

    benchmark: Path
    out: Path
    policies: tuple[str, ...] = ()
    """Reference policies; those of the benchmark's layout when empty."""
    metrics: tuple[str, ...] = ()
    """Names as in their table; all when empty."""
    layout: Literal["auto", "flickr30", "pairs", "folder"] = option("auto", "How the benchmark's folder is laid out.")
    low: Path | None = option(None, "Ready-made inputs of the same names (layout folder).", flags=("--lq",))
    gallery: Path | None = option(
        None, "Gallery, or folder of photos, for references.", flags=("--gallery", "-g"), metavar="PATH"
    )
    """None uses the benchmark's own references."""
    inputs: InputSettings = option(InputSettings(), "An InputSettings.")
    protocol: MeasuringProtocol = option(MeasuringProtocol(), "A MeasuringProtocol.")
    weights: Path | None = option(
        None, "Folder looked into first for metric weights.", flags=("--metric-weights",), metavar="PATH"
    )
    download: bool = option(False, "Fetch metric weights that are missing (sizes: 'rasr methods --metrics').")
    device: str = "cpu"
    k: int = option(
        1,
        "References shown at once.",
        flags=("-k",),
        valid=lambda k: k >= 1,
        fault="k must be at least 1, not {}.",
    )
    accept: Literal["always", "policy"] = option(
        "always", "Show the best match always, or only when the retrieval policy accepts it."
    )
    baseline: str = option(
        None,
        "Row that differences are taken to: METHOD or METHOD:POLICY.  [default: the first]",
        convert=lambda name: name or "",
    )
    """Empty takes the first row."""
    exclude_leaks: bool = option(False, "Hide gallery photos that show test pictures instead of refusing.")

    def __post_init__(self) -> None:
        check_options(self)
