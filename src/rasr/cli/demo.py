"""``rasr demo``: the whole of RASR on real photos, with nothing to download or set up."""

import filecmp
import shlex
import shutil
from pathlib import Path

import click

from rasr.cli.arguments import PRESET
from rasr.cli.console import examples, print_data, print_json, say

QUERY = "motorcycle_left.png"
"""The left view of scikit-image's stereo pair (Middlebury 2014) is degraded; the right view waits in the gallery."""

GALLERY = (
    "motorcycle_right.png",
    "astronaut.png",
    "brick.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "rocket.jpg",
)
SCALE = 4


@click.command(epilog=examples("rasr demo", "rasr demo --out /tmp/rasr-demo --preset bicubic"))
@click.option(
    "--out",
    default="demo-out",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write.",
)
@click.option("--preset", type=PRESET, help="Generator to use (default: the one 'rasr restore' uses).")
@click.option("--seed", default=0, show_default=True, help="Seed of the degradation and of the generator.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(out: Path, preset: str | None, seed: int, as_json: bool) -> None:
    """Restore a real photo with a real reference, with nothing to set up.

    Takes photographs that come with scikit-image, makes the left view of a motorcycle small, blurry and noisy, puts the
    right view and ten other photos into a gallery, finds the photo of the same scene, restores, and writes the picture,
    its evidence map and a report.
    """
    say("Degrading a photo …")  # the libraries that compute take their time to load
    import skimage

    from rasr.degrade import crop_to_multiple, degrade
    from rasr.files import os_errors_as_output
    from rasr.gallery import Gallery
    from rasr.generator import DEFAULT_PRESET
    from rasr.images import Picture, read_picture, write_picture
    from rasr.restoration import Restorer, TargetSize, write_report
    from rasr.restoration.evidence import legend, save_evidence

    gallery = Gallery(out / "gallery")
    restorer = Restorer(preset=preset or DEFAULT_PRESET, gallery=gallery)
    with os_errors_as_output(out):
        out.mkdir(parents=True, exist_ok=True)
    samples = Path(skimage.__file__).parent / "data"
    photos = _copy_photos(samples, out / "gallery-photos")
    hr = read_picture(samples / QUERY)
    lq, _ = degrade(crop_to_multiple(hr.pixels, SCALE), preset="light", scale=SCALE, seed=seed, name=QUERY)
    query = write_picture(Picture(lq), out / "degraded.png", overwrite=True)
    say(f"Degraded {QUERY} to {lq.shape[1]}x{lq.shape[0]} px: {query}")

    added = gallery.add([photos])
    say(f"Gallery of {gallery.info().photos} photos ({added.images_per_second:.0f} images/s): {out / 'gallery'}")

    result = restorer(query, size=TargetSize(scale=SCALE), seed=seed)
    restored = result.save(out / "restored.png", overwrite=True)
    evidence = save_evidence(result, out / "evidence.png", overwrite=True)
    report = write_report([result], out / "report.html", overwrite=True)
    for reference in result.references:
        say(f"Reference {reference.rank}: {reference.path.name}, score {reference.score:.3f}. {reference.why}")
    for entry in legend(result):
        say(f"Evidence: {entry.share:.0%} {entry.words}")
    for note in result.notes:
        say(note)
    say(
        f"The same in the browser: {shlex.join(['rasr', 'serve', '-g', str(out / 'gallery')])}, and drop {query} there."
    )
    if as_json:
        print_json(result.to_json() | {"output": str(restored), "evidence": str(evidence), "report": str(report)})
    else:
        print_data(restored)
        print_data(evidence)
        print_data(report)


def _copy_photos(samples: Path, folder: Path) -> Path:
    """Copy the gallery's photos next to the results, where a person can look at them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in GALLERY:
        target = folder / name
        if not target.is_file() or not filecmp.cmp(samples / name, target, shallow=False):
            shutil.copyfile(samples / name, target)
    return folder
