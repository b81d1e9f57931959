"""Degradation of files: plan of jobs, and the manifest that rebuilds a set and proves it.

A manifest together with the HR pictures rebuilds the LQ pictures bit for bit on the library versions it names; the
hashes tell when another version rounds differently.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from rasr.config import Table, explain_fault
from rasr.degrade.apply import crop_to_multiple, degrade_array
from rasr.degrade.recipe import Recipe, draw
from rasr.errors import ConfigError, PictureError, RasrError, UsageError
from rasr.files import read_object, write_bytes
from rasr.images import FloatImage, Picture, check_output, find_pictures, read_picture, write_picture

PACKAGES = ("rasr", "torch", "numpy", "scipy", "pillow")
"""Another version of these may round differently."""


class Entry(Table):
    """One picture of a degraded set."""

    name: str
    """Path of the HR picture below the input folder, with forward slashes; also what keyed its random draws."""
    output: str
    """Path of the LQ picture below the output folder."""
    width: int
    height: int
    """Size of the LQ in pixels; the HR was cropped to exactly ``scale`` times this."""
    sha256: str
    """Of the LQ's 8-bit RGB samples (H, W, 3) in row order, independent of the file format."""
    recipe: Recipe


class Manifest(Table):
    """Record of a degraded set: everything needed to make it again from its HR pictures."""

    format: Literal["rasr-degradation-1"] = "rasr-degradation-1"
    seed: int
    crop: int | None = None
    """Side of the centre crop taken from every HR picture first, in pixels."""
    jpeg: Literal["libjpeg 4:2:0"] = "libjpeg 4:2:0"
    """The codec: the real one, not a differentiable imitation."""
    versions: dict[str, str] = Field(default_factory=lambda: {package: version(package) for package in PACKAGES})
    pictures: tuple[Entry, ...]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest; raises ConfigError naming the file and the first thing wrong with it."""
        table = read_object(path, "degradation manifest", ConfigError)
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            raise ConfigError(f"{path} is not a degradation manifest: {explain_fault(cls, error)}.") from error

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write atomically. Raises OutputError for a missing folder or a full disk, OutputExists."""
        write_bytes((self.model_dump_json(indent=1) + "\n").encode(), path, overwrite=overwrite)


@dataclass(frozen=True, slots=True)
class DegradeJob:
    """One HR file to degrade. ``name`` keys its random draws and the manifest."""

    name: str
    source: Path
    output: Path
    """The LQ file to write; always PNG, since the LQ's samples must survive."""
    output_name: str
    recipe: Recipe
    hr_output: Path | None = None
    """Where to write the HR as cropped, the LQ's exact ground truth."""


def plan_jobs(
    source: Path, output: Path, hr_output: Path | None = None, *, preset: str, scale: int, seed: int, usm: bool = False
) -> list[DegradeJob]:
    """Plan the degradation of ``source``, a picture or a folder, which is mirrored.

    Pictures inside ``output`` and ``hr_output``, where these lie in the folder, are no sources. Raises UsageError when
    the result of a single picture is not named .png, PictureError when there are no pictures.
    """
    if source.is_dir():
        made = [path.resolve() for path in (output, hr_output) if path and path.resolve() != source.resolve()]
        files = [path for path in find_pictures([source]) if not any(path.resolve().is_relative_to(o) for o in made)]
        names = [path.relative_to(source).as_posix() for path in files]
    else:
        names = [source.name]
    recipes = (draw(preset, scale=scale, seed=seed, name=name, usm=usm) for name in names)
    return _jobs(source, output, hr_output, zip(names, _output_names(names), recipes, strict=True))


def plan_rebuild(manifest: Manifest, source: Path, output: Path, hr_output: Path | None = None) -> list[DegradeJob]:
    """Plan the pictures of a manifest again, by its recipes; of a single ``source`` only it.

    Raises UsageError when the manifest does not name it, or names files outside of the folder.
    """
    entries = [entry for entry in manifest.pictures if source.is_dir() or entry.name == source.name]
    if not entries:
        raise UsageError(f"The manifest does not name {source.name}.")
    for name in (path for entry in entries for path in (entry.name, entry.output)):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UsageError(f"The manifest names '{name}', which lies outside the folder.")
    return _jobs(source, output, hr_output, ((entry.name, entry.output, entry.recipe) for entry in entries))


def _jobs(
    source: Path, output: Path, hr_output: Path | None, named: Iterable[tuple[str, str, Recipe]]
) -> list[DegradeJob]:
    """Place results below ``output``; a single picture's at ``output`` itself if no folder."""
    inside = source.is_dir() or output.is_dir()
    if not inside and output.suffix.lower() != ".png":
        raise UsageError(f"{output}: the result is written as PNG, which keeps every pixel. Name it .png.")
    return [
        DegradeJob(
            name=name,
            source=source / name if source.is_dir() else source,
            output=output / result if inside else output,
            output_name=result,
            recipe=recipe,
            hr_output=hr_output / result if hr_output else None,
        )
        for name, result, recipe in named
    ]


def _output_names(names: Sequence[str]) -> list[str]:
    """Name results: ``birds/owl.jpg`` → ``birds/owl.png``; where two meet, ``owl.jpg.png``."""
    kept = set[str]()
    while True:
        results = [f"{name}.png" if name in kept else Path(name).with_suffix(".png").as_posix() for name in names]
        count = Counter(results)
        meeting = {name for name, result in zip(names, results, strict=True) if count[result] > 1} - kept
        if not meeting:
            return results
        kept |= meeting


def degrade_files(
    jobs: Iterable[DegradeJob], *, crop: int | None = None, expected: Manifest | None = None, overwrite: bool = False
) -> Iterator[tuple[DegradeJob, Entry | None, str | None]]:
    """Yield (job, entry, problem); an entry with a problem is not the picture ``expected``."""
    hashes = {entry.name: entry.sha256 for entry in expected.pictures} if expected else {}
    made = ", ".join(f"{package} {number}" for package, number in expected.versions.items()) if expected else ""
    changed = f"differs from the manifest. The original has changed, or the libraries have (it was made with {made})."
    for job in jobs:
        try:
            entry = degrade_file(job, crop=crop, overwrite=overwrite)
        except RasrError as error:
            yield job, None, str(error)
        else:
            yield job, entry, None if hashes.get(job.name, entry.sha256) == entry.sha256 else changed


def degrade_file(job: DegradeJob, *, crop: int | None = None, overwrite: bool = False) -> Entry:
    """Read, cut the centre ``crop`` × ``crop`` pixels, degrade, write; returns the entry.

    Transparent pictures are laid on white, and pixels are taken in the working colour space (sRGB), so the LQ carries
    neither the file's profile nor its metadata. Raises PictureError, also for a name that is not UTF-8 and for a
    picture smaller than the crop (nothing is enlarged), OutputError or OutputExists.
    """
    try:
        job.name.encode()
    except UnicodeEncodeError as error:
        raise PictureError("The file name is not valid UTF-8, and a manifest could not hold it. Rename it.") from error
    for path in (job.output, job.hr_output):
        if path and path.exists():  # asked before any work, and before torch is loaded
            check_output(path, 1, 1, overwrite=overwrite, source=job.source)
    hr = read_picture(job.source).opaque()
    hr = crop_to_multiple(_centre_crop(hr, crop) if crop else hr, job.recipe.scale)
    lq = degrade_array(hr, job.recipe)
    for path, pixels in ((job.output, lq), (job.hr_output, hr)):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Naming the source lets the writer refuse to replace it.
            picture = Picture(pixels, path=job.source)
            write_picture(picture, path, format="PNG", bits=8, metadata="strip", overwrite=overwrite)
    digest = hashlib.sha256(np.rint(lq * 255).astype(np.uint8).tobytes()).hexdigest()
    height, width = lq.shape[:2]
    return Entry(name=job.name, output=job.output_name, width=width, height=height, sha256=digest, recipe=job.recipe)


def _centre_crop(pixels: FloatImage, side: int) -> FloatImage:
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise PictureError(f"The picture is {width}x{height} pixels, smaller than the {side}-pixel crop.")
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
