"""``rasr search``: the photos in a gallery that look most like a picture."""

from functools import partial
from pathlib import Path
from typing import Literal

import click

from rasr.cli.arguments import ENCODER, PLACE, encoder_device_option
from rasr.cli.console import examples, json_option, print_data, print_json, say, stage_bars, warn


@click.command(
    epilog=examples(
        "rasr search zoo blurred.jpg                       five best matches: score, category, path",
        "rasr search ~/photos/zoo blurred.jpg -k 1 --json  a plain folder works too; it is indexed once",
        "rasr search zoo blurred.jpg --category mammal --exclude-near-duplicates",
    )
)
@click.argument("gallery", type=click.Path(), metavar="GALLERY|FOLDER")
@click.argument("image", type=PLACE)
@click.option("-k", type=click.IntRange(min=1), default=5, show_default=True, help="Number of photos.")
@click.option("--category", multiple=True, help="Only this category and those below it; may be repeated.")
@click.option("--tag", "tags", multiple=True, help="Only photos with this tag; may be repeated.")
@click.option("--min-score", type=click.FloatRange(-1, 1), help="Leave out photos less similar than this.")
@click.option("--exclude-near-duplicates", is_flag=True, help="Leave out photos that show the very same picture.")
@click.option(
    "--query-restore",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Clean the query with Real-ESRGAN before it is embedded.",
)
@click.option("--encoder", type=ENCODER, help="Encoder for a plain folder; a gallery has its own.")
@encoder_device_option
@json_option
def command(
    gallery: str,
    image: Path,
    k: int,
    category: tuple[str, ...],
    tags: tuple[str, ...],
    min_score: float | None,
    exclude_near_duplicates: bool,
    query_restore: Literal["auto", "on", "off"],
    encoder: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Find the photos in GALLERY, or in a plain FOLDER of photos, that look most like IMAGE.

    Prints score, category and path, tab-separated, best first, and, as talk, whether each would be accepted as a
    reference and why.
    """
    say("Looking …")  # the libraries that compute take their time to load
    from rasr.gallery import open_gallery_or_folder, retrieve
    from rasr.generator import clean_query
    from rasr.images import read_picture

    picture = read_picture(image)
    with stage_bars("images") as progress:
        opened = open_gallery_or_folder(gallery, encoder=encoder, device=device, progress=progress)
    for path, reason in opened.refreshed.failed if opened.refreshed else ():
        warn(f"skipped {path}: {reason}")
    references = retrieve(
        opened,
        picture,
        k=k,
        shown=k,
        clean=partial(clean_query, mode=query_restore),
        category=category or None,
        tags=tags or None,
        min_score=min_score,
        exclude_near_duplicates=exclude_near_duplicates,
    )
    if as_json:
        print_json({"query": str(image), "references": [one.to_json() for one in references]})
        return
    for one in references:
        print_data(f"{one.score:.4f}", one.category, one.path)
    if not references:
        say("No photo fits.")
    for one in references:
        say(f"{one.rank}. {one.path.name}: {one.why}")
