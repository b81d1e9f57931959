"""``rasr degrade``: make low-quality versions of good pictures, reproducibly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasr.cli.console import examples, print_json, progress_bar, say
from rasr.errors import RasrError, UsageError

if TYPE_CHECKING:
    from rasr.degrade.files import Job
    from rasr.degrade.manifest import Entry, Manifest

__all__ = ["command"]


@click.command(
    epilog=examples(
        "rasr degrade owl.jpg owl-lq.png --seed 1",
        "rasr degrade photos/ lq/ --seed 1 --crop 512 --hr-out hr/ --manifest set.json",
        "rasr degrade photos/ lq-again/ --from-manifest set.json",
        "rasr degrade photos/ lq-mild/ --seed 1 --preset light --scale 2",
    )
)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--preset", type=click.Choice(["realesrgan", "light"]), help="How badly.  [default: realesrgan]")
@click.option("--scale", type=click.IntRange(1, 16), help="How many times smaller.  [default: 4]")
@click.option("--seed", type=int, help="Needed unless --from-manifest: same seed and name, same picture.")
@click.option("--crop", type=click.IntRange(min=1), help="Take this centre square, in pixels, first.")
@click.option("--usm", is_flag=True, help="Sharpen before degrading (Real-ESRGAN's unsharp mask).")
@click.option("--hr-out", type=click.Path(path_type=Path), help="Also write the cropped originals, the ground truth.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Write every drawn parameter to this JSON file.")
@click.option(
    "--from-manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Rebuild the pictures of this file and check that they come out the same.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a picture.")
def command(
    source: Path,
    output: Path,
    preset: str | None,
    scale: int | None,
    seed: int | None,
    crop: int | None,
    usm: bool,
    hr_out: Path | None,
    manifest: Path | None,
    from_manifest: Path | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Degrade SOURCE (a picture or a folder) into OUTPUT by Real-ESRGAN's two-stage pipeline.

    A folder is mirrored; results are PNG. Pictures whose sides are not multiples of the scale lose up to scale - 1
    pixels at the right and bottom first (--hr-out writes exactly what remains), so an LQ is never off by a fraction.
    JPEG compression is the real codec. Every random choice depends on the seed and the picture's name only.
    """
    from rasr.degrade.manifest import Manifest, read_manifest, write_manifest

    if manifest and manifest.exists() and not overwrite:
        raise UsageError(f"{manifest} exists. Choose another name or add --overwrite.")
    if from_manifest:
        fixed = {"--preset": preset, "--scale": scale, "--seed": seed, "--crop": crop, "--usm": usm or None}
        given = [name for name, value in fixed.items() if value is not None]
        if given:
            raise UsageError(f"{', '.join(given)}: --from-manifest already decides this. Leave it out.")
        stored = read_manifest(from_manifest)
        seed, crop = stored.seed, stored.crop
        jobs = _stored_jobs(stored, source, output, hr_out)
    else:
        stored = None
        if seed is None:
            raise UsageError("Say --seed N: the same seed makes the same pictures again.")
        if crop and crop % (scale or 4):
            raise UsageError(f"--crop {crop} is not a multiple of the scale {scale or 4}.")
        options = {"preset": preset or "realesrgan", "scale": scale or 4, "usm": usm, "seed": seed}
        jobs = _new_jobs(source, output, hr_out, options)
    entries, failed = _run(jobs, crop, stored, overwrite, as_json)
    if manifest:
        write_manifest(Manifest(seed=seed, crop=crop, pictures=tuple(entries)), manifest, overwrite=overwrite)
    say(f"{len(entries)} degraded, {failed} failed.")
    return 1 if failed else 0


def _targets(source: Path, output: Path, hr_out: Path | None, name: str) -> tuple[Path, Path | None]:
    """A single file goes to OUTPUT itself (a folder when it is one), a folder's pictures to their mirrored place."""
    if source.is_dir() or output.is_dir():
        return output / name, hr_out / name if hr_out else None
    if output.suffix.lower() != ".png":
        raise UsageError(f"{output}: the result is written as PNG, which keeps every pixel. Name it .png.")
    return output, hr_out / name if hr_out else None


def _new_jobs(source: Path, output: Path, hr_out: Path | None, options: dict[str, Any]) -> list[Job]:
    from rasr.degrade import draw
    from rasr.degrade.files import Job, output_names
    from rasr.images import find_pictures

    if source.is_dir():
        inside = [path.resolve() for path in (output, hr_out) if path and path.resolve() != source.resolve()]
        files = [path for path in find_pictures([source]) if not any(path.resolve().is_relative_to(o) for o in inside)]
        names = [path.relative_to(source).as_posix() for path in files]
    else:
        files, names = [source], [source.name]
    jobs = []
    for path, name, output_name in zip(files, names, output_names(names), strict=True):
        target, hr_target = _targets(source, output, hr_out, output_name)
        jobs.append(Job(name, path, target, output_name, draw(name=name, **options), hr_target))
    return jobs


def _stored_jobs(stored: Manifest, source: Path, output: Path, hr_out: Path | None) -> list[Job]:
    from rasr.degrade.files import Job

    entries = [entry for entry in stored.pictures if source.is_dir() or entry.name == source.name]
    if not entries:
        raise UsageError(f"The manifest does not name {source.name}.")
    for name in (path for entry in entries for path in (entry.name, entry.output)):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UsageError(f"The manifest names '{name}', which lies outside the folder.")
    jobs = []
    for entry in entries:
        target, hr_target = _targets(source, output, hr_out, entry.output)
        path = source / entry.name if source.is_dir() else source
        jobs.append(Job(entry.name, path, target, entry.output, entry.recipe, hr_target))
    return jobs


def _run(
    jobs: list[Job], crop: int | None, stored: Manifest | None, overwrite: bool, as_json: bool
) -> tuple[list[Entry], int]:
    entries = []
    failed = 0
    for job, entry, error in _results(jobs, crop, stored, overwrite):
        if entry:
            entries.append(entry)
        if error:
            failed += 1
            say(f"{job.source}: {error}")
        if as_json:
            print_json(
                {
                    "input": str(job.source),
                    "output": str(job.output) if entry else None,
                    "width": entry.width if entry else None,
                    "height": entry.height if entry else None,
                    "recipe": job.recipe.model_dump(mode="json"),
                    "error": error,
                }
            )
    return entries, failed


def _results(
    jobs: list[Job], crop: int | None, stored: Manifest | None, overwrite: bool
) -> Iterator[tuple[Job, Entry | None, str | None]]:
    from rasr.degrade.files import degrade_file

    expected = {entry.name: entry for entry in stored.pictures} if stored else {}
    with progress_bar() as progress:
        for job in progress.track(jobs, description="degrade"):
            try:
                entry = degrade_file(job, crop=crop, overwrite=overwrite)
            except RasrError as error:
                yield job, None, str(error)
                continue
            yield job, entry, _difference(entry, expected.get(job.name), stored)


def _difference(entry: Entry, expected: Entry | None, stored: Manifest | None) -> str | None:
    if not stored or not expected or expected.sha256 == entry.sha256:
        return None
    versions = ", ".join(f"{package} {number}" for package, number in stored.versions.items())
    return f"differs from the manifest. The original has changed, or the libraries have (it was made with {versions})."
