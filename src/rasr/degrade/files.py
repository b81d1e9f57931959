"""Degrading files: what a test set is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rasr.degrade.manifest import Entry, lq_hash
from rasr.degrade.pipeline import crop_to_multiple, degrade_array
from rasr.degrade.recipe import Recipe
from rasr.errors import PictureError
from rasr.images import FloatImage, Picture, read_picture, write_picture

__all__ = ["Job", "centre_crop", "degrade_file", "output_names"]


@dataclass(frozen=True, slots=True)
class Job:
    """One HR file to degrade. ``name`` keys its random draws and the manifest."""

    name: str
    source: Path
    output: Path
    """The LQ file to write; always PNG, since the LQ's samples must survive."""
    output_name: str
    recipe: Recipe
    hr_output: Path | None = None
    """Where to write the HR as cropped, the LQ's exact ground truth."""


def output_names(names: Sequence[str]) -> list[str]:
    """``birds/owl.jpg`` → ``birds/owl.png``; when two names would meet, both keep their suffix: ``owl.jpg.png``."""
    renamed = [str(Path(name).with_suffix(".png").as_posix()) for name in names]
    taken = Counter(renamed)
    return [new if taken[new] == 1 else f"{old}.png" for old, new in zip(names, renamed, strict=True)]


def centre_crop(pixels: FloatImage, side: int) -> FloatImage:
    """The middle ``side`` × ``side`` pixels; raises PictureError when the picture is smaller (nothing is enlarged)."""
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise PictureError(f"The picture is {width}x{height} pixels, smaller than the {side}-pixel crop.")
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def degrade_file(job: Job, *, crop: int | None = None, overwrite: bool = False) -> Entry:
    """Read, crop, degrade, write; returns the manifest's entry.

    Transparency is dropped and the pixels are taken in the working colour space (sRGB), so the LQ carries neither the
    file's profile nor its metadata. Raises PictureError, OutputError or OutputExists.
    """
    hr = read_picture(job.source).pixels
    hr = centre_crop(hr, crop) if crop else hr
    hr = crop_to_multiple(hr, job.recipe.scale)
    lq = degrade_array(hr, job.recipe)
    for path, pixels in ((job.output, lq), (job.hr_output, hr)):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Naming the source lets the writer refuse to replace it.
            write_picture(
                Picture(pixels, path=job.source), path, format="PNG", bits=8, metadata="strip", overwrite=overwrite
            )
    return Entry(
        name=job.name,
        output=job.output_name,
        width=lq.shape[1],
        height=lq.shape[0],
        sha256=lq_hash(lq),
        recipe=job.recipe,
    )
