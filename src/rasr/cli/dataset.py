"""``rasr dataset``: build a dataset from licensed photos, check it, describe it, look through it."""

import contextlib
import threading
import webbrowser
from pathlib import Path

import click

from rasr.cli.arguments import Commands
from rasr.cli.console import examples, print_data, print_json, resumable, say, stage_bars, warn
from rasr.errors import UsageError

_FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.group(
    cls=Commands,
    epilog=examples(
        "rasr dataset configs",
        "rasr dataset build rasr-flickr30 -o rasr-flickr30",
        "rasr dataset check rasr-flickr30",
        "rasr dataset review rasr-flickr30",
    ),
)
def command() -> None:
    """Build galleries with training and test splits from licensed photos, and check them."""


@command.command(
    epilog=examples(
        "rasr dataset build rasr-flickr30 -o data/flickr30      the paper's protocol, 30 species",
        "rasr dataset build museum.toml -o data/museum          your own config",
        "FLICKR_API_KEY=… RASR_CONTACT=me@zoo.org rasr dataset build rasr-flickr30 -o data/flickr30",
    )
)
@click.argument("config")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to build in.")
@click.option("--seed", type=int, help="Another seed than the config's, for the splits and the degradation.")
@_JSON
def build(config: str, out: Path, seed: int | None, as_json: bool) -> int:
    """Build the dataset of CONFIG, a TOML file or the name of a shipped one.

    The same command goes on where an interrupted build stopped, tries again what failed for a passing reason, and
    replaces photos that were dropped in the review. Exits 1 when photos are missing in the end, each reason named.
    """
    from rasr.dataset import build_dataset, load_config

    chosen = load_config(config)
    if seed is not None:
        chosen = chosen.model_copy(update={"seed": seed})
    with resumable(lambda: "the same command goes on."), stage_bars() as progress:
        report = build_dataset(chosen, out, say=say, progress=progress)
    for problem in report.problems:
        warn(f"rasr: {problem}")
    if as_json:
        print_json(report.as_json())
    say(f"{report.photos} photos in {report.folder}")
    return 1 if report.problems else 0


@command.command(epilog=examples("rasr dataset check data/flickr30", "rasr dataset check data/flickr30 --quick --json"))
@_FOLDER
@click.option("--quick", is_flag=True, help="Leave the pixels alone: files, hashes, sizes, licences, authors only.")
@_JSON
def check(folder: Path, quick: bool, as_json: bool) -> int:
    """Verify the dataset in DIR: files, hashes, sizes, licences, counts, and leaks between the splits.

    Works on any folder with category/train, test and reference in it; without a manifest only the pixels can be
    checked. Exits 1 when anything is wrong.
    """
    from rasr.dataset import check_dataset

    with stage_bars() as progress:
        report = check_dataset(folder, quick=quick, progress=progress)
    if as_json:
        print_json(report.as_json())
    else:
        for finding in report.findings:
            print_data(finding.level, finding.kind, finding.message)
    wrong = sum(finding.level == "error" for finding in report.findings)
    say(f"{report.photos} photos checked, {wrong or 'no'} problem{'' if wrong == 1 else 's'}")
    return 0 if report.ok else 1


@command.command(epilog=examples("rasr dataset card data/flickr30"))
@_FOLDER
def card(folder: Path) -> None:
    """Write card, attribution, charts and contact sheet of DIR anew, from its manifest."""
    from rasr.dataset import write_card

    print_data(write_card(folder))


@command.command(epilog=examples("rasr dataset review data/flickr30", "rasr dataset review data/flickr30 --no-browser"))
@_FOLDER
@click.option("--port", default=0, show_default="any free", type=click.IntRange(0, 65535))
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser.")
def review(folder: Path, port: int, browser: bool) -> None:
    """Look through the photos of DIR in the browser and keep or drop each by one key.

    The page is served on this machine only, until Ctrl-C. Decisions go into the manifest at once; the next build
    replaces what was dropped.
    """
    from rasr.dataset import ReviewServer

    server = ReviewServer(folder, port)
    say("Review page, until Ctrl-C:")
    click.echo(server.url)
    if browser:
        threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve()
    counts = server.summary()
    say(f"{counts['keep']} kept, {counts['drop']} dropped, {counts['open']} not decided on")


@command.command(
    epilog=examples(
        "rasr dataset adapt                              what there is",
        "rasr dataset adapt cufed5                       how to get it",
        "rasr dataset adapt cufed5 downloads/CUFED5 data/cufed5",
    )
)
@click.argument("name", required=False)
@click.argument("downloaded", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", required=False, type=click.Path(path_type=Path))
@_JSON
def adapt(name: str | None, downloaded: Path | None, out: Path | None, as_json: bool) -> int:
    """Bring a published dataset (LSDIR, WR-SR, CUFED5, DIV2K) into a layout that RASR trains on or evaluates.

    With NAME alone, says where it is and how it must be unpacked. DOWNLOADED is that folder; OUT is made of it, with
    links where the file system allows, and checked: exit 1 when files are missing.
    """
    from rasr.dataset import ADAPTERS, adapt_dataset

    if name is None:
        for adapter in ADAPTERS.values():
            click.echo(f"{adapter.name}\t{adapter.purpose}")
        return 0
    if name not in ADAPTERS:
        raise UsageError(f"There is no adapter '{name}'. Choose one of: {', '.join(ADAPTERS)}.")
    if downloaded is None:
        click.echo(ADAPTERS[name].instructions)
        return 0
    if out is None:
        raise UsageError("Name the folder to make, too: rasr dataset adapt NAME DOWNLOADED OUT.")
    report = adapt_dataset(name, downloaded, out)
    if as_json:
        print_json(report.as_json())
    for problem in report.problems:
        warn(f"rasr: {problem}")
    say(f"{report.files} pictures in {report.folder}")
    return 1 if report.problems else 0


@command.command(epilog=examples("rasr dataset configs", "rasr dataset configs rasr-flickr30 > my-animals.toml"))
@click.argument("name", required=False)
def configs(name: str | None) -> None:
    """List the shipped configs, or print the one called NAME, to start your own from."""
    from rasr.dataset import load_config, shipped_configs

    shipped = shipped_configs()
    if name is None:
        for known in shipped:
            click.echo(f"{known}\t{load_config(known).title}")
    elif name in shipped:
        click.echo(shipped[name].read_text("utf-8"), nl=False)
    else:
        raise UsageError(f"There is no shipped config '{name}'. Choose one of: {', '.join(shipped)}.")
