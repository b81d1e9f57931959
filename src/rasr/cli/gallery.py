"""``rasr gallery``: create, extend, check and list galleries."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasr.cli.arguments import ENCODER, PLACE, Commands, build_options, encoder_device_option, option_group
from rasr.cli.console import examples, json_option, print_data, print_json, resumable, say, stage_bars, warn
from rasr.cluster import ClusterOptions

if TYPE_CHECKING:
    from rasr.gallery import AddReport, GalleryInfo, Photo
    from rasr.gallery.retrieval import Calibration
    from rasr.images import FloatImage

gallery_argument = click.argument("gallery", type=click.Path())


@click.group(cls=Commands)
def command() -> None:
    """Create, extend, check and list galleries of good photos."""


@command.command(
    epilog=examples(
        "rasr gallery add zoo ~/photos/zoo                 one category per sub-folder",
        "rasr gallery add zoo ~/new --category mammal/zebra --tag 2026",
        "rasr gallery add zoo-dino ~/photos/zoo --encoder dinov2-base",
        "rasr gallery add s3://museum/galleries/zoo s3://museum/photos/zoo",
        "rasr gallery add s3://museum/galleries/zoo s3://museum/photos/zoo --cluster 10.0.0.5:6379",
    )
)
@gallery_argument
@click.argument("paths", nargs=-1, required=True, type=PLACE, metavar="PATH...")
@click.option("--encoder", type=ENCODER, help="Encoder of a new gallery; an existing one keeps its own.")
@click.option("--category", help="Category of all these photos, instead of their folder's name.")
@click.option("--tag", "tags", multiple=True, help="Tag for all these photos; may be repeated.")
@encoder_device_option
@click.option(
    "--workers", type=click.IntRange(min=1), help="Decoding threads.  [default: one per core; at an address 16]"
)
@option_group(ClusterOptions)
@click.option("--features", is_flag=True, help="Also make what finding the same scene needs, not at first use.")
@json_option
def add(
    gallery: str,
    paths: tuple[Path, ...],
    encoder: str | None,
    category: str | None,
    tags: tuple[str, ...],
    device: str,
    workers: int | None,
    features: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Add photos to GALLERY, which is created when it is missing.

    PATH is a photo, or a folder, which is searched with its sub-folders; a photo's category is its sub-folder. GALLERY
    and PATH may be addresses (s3://, gs://, az://; extra 'lance'). Photos stay where they are. Repeating the command
    after an interruption, or when photos were added, changed or moved, does only what is left to do.
    """
    cluster = build_options(ClusterOptions, options)
    say(f"Adding to {gallery} …")  # the libraries that compute take their time to load
    from rasr.gallery import Gallery

    target = Gallery(gallery, encoder=encoder, device=device)
    with resumable(lambda: "the same command goes on."), stage_bars("images") as progress:
        report = target.add(paths, category=category, tags=tags, workers=workers, cluster=cluster, progress=progress)
    if features:
        from rasr.restoration.same_scene import keep_features

        with resumable(lambda: "the same command goes on."), stage_bars("photos") as progress:
            keep_features(target, progress)
    if as_json:
        print_json({"gallery": target.address, **report.to_json()})
    _tell(report)
    return 1 if report.failed else 0


@command.command(epilog=examples("rasr gallery info zoo", "rasr gallery info zoo --json"))
@gallery_argument
@json_option
def info(gallery: str, as_json: bool) -> None:
    """Show what GALLERY holds and how it was made."""
    from rasr.gallery import Gallery
    from rasr.gallery.retrieval import calibration_of_gallery

    opened = Gallery(gallery)
    facts, own = opened.info(), calibration_of_gallery(opened)
    if as_json:
        print_json(facts.to_json())
        return
    rows = [
        ("gallery", facts.path),
        ("photos", f"{facts.photos}, of which {facts.near_duplicates} near-duplicates"),
        ("categories", ", ".join(f"{name or '(none)'} {count}" for name, count in facts.categories.items()) or "none"),
        ("tags", ", ".join(f"{name} {count}" for name, count in facts.tags.items()) or "none"),
        ("encoder", f"{facts.encoder} {facts.encoder_version}, {facts.dimension} dimensions"),
        ("search", _search_told(facts)),
        ("on disk", f"{facts.bytes_on_disk / 2**20:.1f} MiB, version {facts.version}"),
        ("matches", "judged by figures that come with the encoder" if own is None else _calibration_told(own, facts)),
        ("created", facts.created),
        ("updated", facts.updated),
    ]
    for name, value in rows:
        print_data(f"{name:<12}{value}")


@command.command(epilog=examples("rasr gallery calibrate zoo", "rasr gallery calibrate zoo --sample 200 --json"))
@gallery_argument
@click.option("--sample", default=60, show_default=True, type=click.IntRange(10), help="Photos to degrade and look up.")
@click.option("--seed", default=0, show_default=True, help="Which photos, and how they are degraded.")
@encoder_device_option
@json_option
def calibrate(gallery: str, sample: int, seed: int, device: str, as_json: bool) -> None:
    """Measure which matches are good enough in GALLERY, with its encoder, and keep that with it.

    Some of its photos are made bad and looked up among the others. 'rasr restore' and 'rasr search' then judge matches
    by what was found; before, they go by figures that come with the encoder.
    """
    say("Looking at the gallery …")
    from rasr.gallery import Gallery
    from rasr.gallery.calibrate import calibrate as measure
    from rasr.generator import clean_query

    opened = Gallery(gallery, device=device)
    with resumable(lambda: "nothing was changed."), stage_bars("queries") as progress:
        found = measure(
            opened, partial(_low_quality, seed=seed), clean=clean_query, sample=sample, seed=seed, progress=progress
        )
    if as_json:
        print_json({"gallery": opened.address, "calibration": opened.info().calibration})
    say(f"{gallery}: {_calibration_text(found.threshold(len(opened)), found.margin)}")


def _low_quality(pixels: FloatImage, name: str, *, seed: int) -> list[FloatImage]:
    """A photo made bad in three ways: its centre by realesrgan ×4, all of it by realesrgan ×4, and by light ×4."""
    import numpy as np

    from rasr.degrade import crop_to_multiple, degrade
    from rasr.images import resize

    height, width = pixels.shape[:2]
    side = min(512, height // 4 * 4, width // 4 * 4)
    top, left = (height - side) // 2, (width - side) // 2
    shrink = min(1.0, 1024 / max(height, width))
    size = (max(4, round(width * shrink)), max(4, round(height * shrink)))
    whole = crop_to_multiple(np.clip(resize(pixels, size, filter="lanczos"), 0.0, 1.0), 4)
    kinds = ((pixels[top : top + side, left : left + side], "realesrgan"), (whole, "realesrgan"), (whole, "light"))
    return [degrade(picture, preset=preset, seed=seed, name=name)[0] for picture, preset in kinds]


def _search_told(facts: GalleryInfo) -> str:
    if not facts.indexed:
        return "exact"
    return f"by an index over {facts.indexed} photos; {facts.unindexed} added since are compared one by one"


def _calibration_told(own: Calibration, facts: GalleryInfo) -> str:
    """The gallery's calibration in words."""
    measured = facts.calibration or {}
    figures = _calibration_text(own.threshold(facts.photos), own.margin)
    return f"{figures} (calibrated {measured['measured']}: {measured['photos']} photos, {measured['queries']} queries)"


def _calibration_text(threshold: float, margin: float) -> str:
    return f"matches need {threshold:.2f}, and {margin:.2f} above the middle of the gallery"


@command.command(
    name="list", epilog=examples("rasr gallery list zoo", "rasr gallery list zoo --category mammal --json")
)
@gallery_argument
@click.option("--category", help="Only this category and those below it.")
@json_option
def list_(gallery: str, category: str | None, as_json: bool) -> None:
    """List the photos in GALLERY: category and path, tab-separated."""
    from rasr.gallery import Gallery

    _print_photos(Gallery(gallery).list(category=category), as_json=as_json)


@command.command(epilog=examples("rasr gallery verify zoo", "rasr gallery verify zoo --deep --json"))
@gallery_argument
@click.option("--deep", is_flag=True, help="Also read every photo and compare it with what was added.")
@json_option
def verify(gallery: str, deep: bool, as_json: bool) -> int:
    """Check GALLERY's files, entries and photos; exit 1 when anything is wrong."""
    from rasr.gallery import Gallery

    with stage_bars("images") as progress:
        report = Gallery(gallery).verify(deep=deep, progress=progress)
    if as_json:
        print_json(report.to_json())
    for problem in report.problems:
        warn(f"{problem.kind}: {problem.path}: {problem.what}")
    if report.unprobed:
        warn(f"Not found out whether the storage refuses to write over commits: {report.unprobed}")
    if report.leftovers:
        say(f"{len(report.leftovers)} file(s) of an interrupted or superseded write; the next 'add' removes them.")
    if not report.ok:
        warn(f"{len(report.problems)} problem(s) in {gallery}.")
        return 1
    say(f"{gallery}: {report.photos} photos and {report.files} files ({report.bytes / 2**20:.1f} MiB) are in order.")
    return 0


@command.command(
    epilog=examples(
        "rasr gallery remove zoo ~/photos/zoo/blurred.jpg",
        "rasr gallery remove zoo '*_copy.jpg'",
        "rasr gallery remove zoo --category mammal/zebra",
        "rasr gallery remove zoo --missing                 photos whose files are gone",
    )
)
@gallery_argument
@click.argument("patterns", nargs=-1, metavar="[PATH|GLOB|HASH]...")
@click.option("--category", help="Only this category and those below it.")
@click.option("--missing", is_flag=True, help="Only photos whose file is gone.")
@json_option
def remove(gallery: str, patterns: tuple[str, ...], category: str | None, missing: bool, as_json: bool) -> None:
    """Remove photos from GALLERY; their files are not touched.

    A folder stands for everything below it. What is removed is listed on stdout.
    """
    from rasr.gallery import Gallery

    removed = Gallery(gallery).remove(patterns, category=category, missing=missing)
    _print_photos(removed, as_json=as_json)
    say(f"Removed {len(removed)} photo(s) from {gallery}.")


@command.command(epilog=examples("rasr gallery upgrade zoo"))
@gallery_argument
@json_option
def upgrade(gallery: str, as_json: bool) -> None:
    """Bring GALLERY to the current format, embedding nothing again.

    Galleries of format 1 (LanceDB) need the extra 'lance' (see 'rasr doctor'). Their files are checked first, and
    removed once the new ones have been read back.
    """
    from rasr.gallery import Gallery

    opened = Gallery(gallery)
    upgraded = opened.upgrade()
    if as_json:
        print_json({"gallery": opened.address, "upgraded": upgraded, "photos": len(opened)})
    say(f"{gallery}: {len(opened)} photos, {'brought over' if upgraded else 'in the current format already'}.")


@command.command(
    epilog=examples(
        "rasr gallery copy zoo s3://museum/galleries/zoo",
        "rasr gallery copy s3://museum/galleries/zoo zoo       and back",
        "rasr gallery copy zoo lance://zoo-large               for more than some 250 000 photos",
    )
)
@gallery_argument
@click.argument("target", type=click.Path())
@json_option
def copy(gallery: str, target: str, as_json: bool) -> None:
    """Copy GALLERY to TARGET, a folder or an address, embedding nothing again.

    Photos stay where they are. What TARGET holds is kept, so that an interrupted copy is gone on with.
    """
    from rasr.gallery import Gallery, copy_gallery

    with resumable(lambda: "the same command goes on."), stage_bars("photos") as progress:
        copied = copy_gallery(gallery, target, progress=progress)
    goal = Gallery(target)
    if as_json:
        print_json({"gallery": goal.address, "copied": copied, "photos": len(goal)})
    say(f"{goal.address}: {copied} photo(s) copied, {len(goal)} in all.")


@command.command(epilog=examples("rasr gallery index s3://museum/galleries/zoo"))
@gallery_argument
@json_option
def index(gallery: str, as_json: bool) -> None:
    """Build an approximate index of GALLERY, a Lance table of over 100 000 photos.

    Takes some minutes for a million photos; the files of many small additions are merged first. Scores stay exact.
    Photos added later are compared one by one until this or 'rasr gallery optimize' is run.
    """
    from rasr.gallery import Gallery

    say("Building the index …")
    opened = Gallery(gallery)
    built = opened.index()
    if as_json:
        print_json({"gallery": opened.address, **built})
    if built:
        say(f"{opened.address}: {built['photos']} photos in {built['partitions']} partitions.")
    else:
        say(f"{opened.address}: searched exactly; an index is for Lance tables of over 100 000 photos.")


@command.command(epilog=examples("rasr gallery optimize s3://museum/galleries/zoo"))
@gallery_argument
@json_option
def optimize(gallery: str, as_json: bool) -> None:
    """Merge small files of GALLERY, a Lance table, and drop its states older than seven days.

    Nothing does this by itself. Run it from one place, where memory is at hand, after many small additions.
    """
    from rasr.gallery import Gallery

    opened = Gallery(gallery)
    done = opened.optimize()
    if as_json:
        print_json({"gallery": opened.address, **done})
    if done:
        files, size = done["files_after"], done["bytes_after"]
        say(f"{opened.address}: {done['files_before']} files before, {files} now ({size / 2**20:.1f} MiB).")
    else:
        say(f"{opened.address}: nothing to do for a gallery in a folder.")


def _tell(report: AddReport) -> None:
    for path, reason in report.failed:
        warn(f"skipped {path}: {reason.removeprefix(f'{path}: ')}")
    for path, of in report.duplicates:
        say(f"left out {path}: the same file as {of}")
    for path, of in report.near_duplicates:
        say(f"near-duplicate {path}: shows the same picture as {of}")
    for path, of in report.moved:
        say(f"moved {path}: was {of}")
    counts = {
        "added": report.added,
        "updated": len(report.updated),
        "moved": len(report.moved),
        "unchanged": report.unchanged,
        "duplicates left out": len(report.duplicates),
        "near-duplicates flagged": len(report.near_duplicates),
        "skipped": len(report.failed),
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "added")
    rate = f" ({report.images_per_second:.1f} images/s)" if report.embedded else ""
    say(f"{told} in {report.seconds:.1f} s{rate}.")


def _print_photos(photos: list[Photo], *, as_json: bool) -> None:
    if as_json:
        print_json([photo.to_json() for photo in photos])
        return
    for photo in photos:
        print_data(photo.category, photo.path)
