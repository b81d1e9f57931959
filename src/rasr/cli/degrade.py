"""``rasr degrade``: make low-quality versions of good pictures, reproducibly."""

from pathlib import Path

import click

from rasr.cli.console import examples, print_json, progress_bar, say, warn
from rasr.errors import UsageError


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
    say("Degrading …")  # the libraries that compute take their time to load
    from rasr.degrade.files import Manifest, degrade_files, plan_jobs, plan_rebuild
    from rasr.files import check_writable

    if manifest and manifest.exists() and not overwrite:
        raise UsageError(f"{manifest} exists. Choose another name or add --overwrite.")
    stored = None
    if from_manifest:
        fixed = {"--preset": preset, "--scale": scale, "--seed": seed, "--crop": crop, "--usm": usm or None}
        given = [name for name, value in fixed.items() if value is not None]
        if given:
            raise UsageError(f"{', '.join(given)}: --from-manifest already decides this. Leave it out.")
        stored = Manifest.read(from_manifest)
        seed, crop = stored.seed, stored.crop
        jobs = plan_rebuild(stored, source, output, hr_out)
    else:
        if seed is None:
            raise UsageError("Say --seed N: the same seed makes the same pictures again.")
        if crop and crop % (scale or 4):
            raise UsageError(f"--crop {crop} is not a multiple of the scale {scale or 4}.")
        jobs = plan_jobs(source, output, hr_out, preset=preset or "realesrgan", scale=scale or 4, seed=seed, usm=usm)
    makes = [path for path in (output, hr_out) if path and manifest and path.is_relative_to(manifest.parent)]
    if manifest and (manifest.parent.is_dir() or not makes):  # the pictures may make its folder
        check_writable(manifest, overwrite=overwrite)
    entries = []
    failed = 0
    with progress_bar() as progress:
        results = degrade_files(jobs, crop=crop, expected=stored, overwrite=overwrite)
        for job, entry, problem in progress.track(results, total=len(jobs), description="degrade"):
            if entry:
                entries.append(entry)
            if problem:
                failed += 1
                warn(f"{job.source}: {problem.removeprefix(f'{job.source}: ')}")
            if as_json:
                print_json(
                    {
                        "input": str(job.source),
                        "output": str(job.output) if entry else None,
                        "width": entry.width if entry else None,
                        "height": entry.height if entry else None,
                        "recipe": job.recipe.model_dump(mode="json"),
                        "error": problem,
                    }
                )
    if manifest:
        Manifest(seed=seed, crop=crop, pictures=tuple(entries)).write(manifest, overwrite=overwrite)
    say(f"{len(entries)} degraded, {failed} failed.")
    return 1 if failed else 0
