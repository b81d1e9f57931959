"""``rasr restore``: pictures in, restored pictures out."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasr.cli.arguments import PLACE, PRESET, NumberOr, build_options, check_gallery, key_values, option_group
from rasr.cli.batch_talk import Telling
from rasr.cli.console import detail, examples, print_data, print_json, say, stage_bars, throwaway_folder
from rasr.cluster import ClusterOptions
from rasr.device import use_threads
from rasr.errors import RasrError, UsageError
from rasr.object_path import place_given
from rasr.restoration.settings import BatchOptions, SaveOptions, Settings

if TYPE_CHECKING:
    from rasr.restoration import Job, Outcome, Restorer
    from rasr.restoration.lists import FailedList
    from rasr.restoration.plan import Listed

GENERATOR_OPTIONS = ("adapter", "base", "cleaner", "dtype", "vae")
"""Those of the generator's options that may also be spelled ``--NAME VALUE``, as before ``--set NAME=VALUE``."""


PATH = PLACE


def _generator_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name in sorted({*GENERATOR_OPTIONS} - {"cleaner"}):
        kind = click.Choice(["full", "tiny"]) if name == "vae" else str
        function = click.option(f"--{name}", type=kind, hidden=True)(function)
    return function


def _with_pipes(function: Callable[..., int]) -> Callable[..., int]:
    """Decorator: ``-`` is stdin as input and stdout as output, and without an output results lie beside the inputs.

    What is decorated sees files only: those of a pipe lie in a folder that goes when the command ends.
    """

    @functools.wraps(function)
    def wrapper(
        inputs: tuple[Path, ...], files_from: tuple[Path, ...], out: str | None, as_json: bool, **rest: Any
    ) -> int:
        if files_from:
            if inputs or out == "-":
                raise UsageError("--files-from stands for the inputs: name no others, and a folder with -o.")
            if not (listed := _listed(files_from)):
                say("No pictures are listed: nothing to do.")
                return 0
            return function(inputs=listed, out=out or _beside(listed), as_json=as_json, **rest)
        if not inputs:
            raise UsageError("Name a picture or a folder to restore, - for stdin, or a list with --files-from.")
        if Path("-") not in inputs and out != "-":
            return function(inputs=inputs, out=out or _beside(inputs), as_json=as_json, **rest)
        if len(inputs) > 1:
            raise UsageError("'-' stands for one picture: give it alone.")
        if (to_stdout := out in {None, "-"}) and (as_json or sys.stdout.isatty()):
            why = "--json goes there too" if as_json else "that is a terminal"
            raise UsageError(f"The picture cannot go to stdout: {why}. Use -o FILE.")
        from rasr.images import read_header
        from rasr.images.encode import usual_extension

        with throwaway_folder() as folder:
            source: Path | bytes = inputs[0] if inputs[0] != Path("-") else _stdin()
            kind = read_header(source).format
            if isinstance(source, bytes):
                inputs = (folder / f"stdin{usual_extension(kind)}",)
                inputs[0].write_bytes(source)
            if not to_stdout:
                return function(inputs=inputs, out=out, as_json=as_json, **rest)
            result = folder / f"stdout{'.' + rest['format'] if rest['format'] else usual_extension(kind) or '.jpg'}"
            with contextlib.redirect_stdout(io.StringIO()):  # it would print where the result lies
                code = function(inputs=inputs, out=str(result), as_json=as_json, **rest)
            sys.stdout.buffer.write(result.read_bytes())
            sys.stdout.buffer.flush()
            return code

    return wrapper


def _listed(files: Sequence[Path]) -> list[Listed]:
    """The pictures that lists name; ``-`` is stdin. Raises UsageError."""
    from rasr.restoration.lists import read_list

    found: dict[Listed, None] = {}
    for file in files:
        if file == Path("-"):
            found |= dict.fromkeys(read_list(sys.stdin.buffer.read(), "stdin"))
            continue
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UsageError(f"Cannot read the list {file}: {error.strerror or error}.") from error
        found |= dict.fromkeys(read_list(content, str(file)))
    return list(found)


def _beside(inputs: Sequence[Path | Listed]) -> str:
    """The folder of the inputs, where results go that nobody gave a place. Raises UsageError for several folders."""
    folders = set()
    for given in inputs:
        path, folder = (given, None) if isinstance(given, Path) else given
        folders.add(folder or (path if path.is_dir() else path.parent))
    if len(folders) > 1:
        raise UsageError("The inputs lie in several folders: say with -o where the results go.")
    return str(folders.pop())


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("'-' reads a picture from stdin, and nothing is piped in: rasr restore - < old.jpg > new.jpg")
    return sys.stdin.buffer.read()


@click.command(
    epilog=examples(
        "rasr restore old.jpg -g ~/Photos                  writes old_rasr.jpg beside it",
        "curl -s https://example.org/old.jpg | rasr restore - --format png > restored.png",
        "rasr restore scans/ -g museum.gallery -o restored/ --long-side 4000 --report report.html",
        "rasr restore s3://museum/scans -g s3://museum/galleries/zoo -o s3://museum/restored",
        "rasr restore /nfs/scans -g /nfs/zoo.gallery -o /nfs/restored --cluster 10.0.0.5:6379 --actor-gpus 0.5",
        "rasr restore cat.jpg -o cat4x.png --reference my-cat.jpg --strength 0.8",
        "rasr restore *.png -o out/ --scale 2 --format webp --name '{stem}@2x{ext}' --json",
        "rasr restore scans/ -o out/ --failed bad.jsonl || rasr restore --files-from bad.jsonl -o out/ --tile 64",
    )
)
@click.argument("inputs", metavar="INPUT...", nargs=-1, type=PATH)
@click.option("-g", "--gallery", type=click.Path(), help="Gallery, or folder of photos, to look in.")
@click.option("-o", "--out", help="File, or folder for several (tree mirrored), or -.  [default: beside the input]")
@click.option("--preset", type=PRESET, help="Generator, see 'rasr doctor'.  [default: mini]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:N] or mps.")
@option_group(Settings, SaveOptions, BatchOptions, ClusterOptions)
@click.option("--files-from", multiple=True, metavar="LIST", type=PATH, help="Take pictures from a list, one a line.")
@click.option("--failed", metavar="LIST", type=PATH, help="List what failed, with the reason, for --files-from.")
@click.option("--cleaner", metavar="FILE", help="Model file that restores first, or alone (extra spandrel); or none.")
@click.option("--name", default="{stem}_rasr{ext}", show_default=True, help="Name of results in a folder; also {name}.")
@click.option("--resume", is_flag=True, expose_value=False, help="No effect: finished pictures are always skipped.")
@click.option("--max-megapixels", type=NumberOr("none", float), help="Largest input.  [default: by memory]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
@click.option("--evidence", type=PATH, help="Draw where each photo gave detail: PNG, or folder.")
@click.option("--report", type=PATH, help="Write a page to compare input, result, references.")
@_generator_options
@click.option(
    "--set", "expert", multiple=True, metavar="KEY=VALUE",
    help="Expert options (repeatable): prompt, dtype, and the preset's own, such as adapter, base, vae.",
)  # fmt: skip
@_with_pipes
def command(
    inputs: Sequence[Path | Listed],
    gallery: str | None,
    out: str,
    preset: str | None,
    device: str,
    name: str,
    max_megapixels: float | str | None,
    as_json: bool,
    evidence: Path | None,
    report: Path | None,
    failed: Path | None,
    expert: tuple[str, ...],
    **options: Any,
) -> int:
    """Restore pictures, guided by the best match in a gallery.

    Prints the paths of the results. A gallery photo guides only if it is a good match; the result says which did.
    """
    say("Looking at the pictures …")  # the libraries that compute take their time to load
    from rasr.generator import DEFAULT_PRESET
    from rasr.images import Limits
    from rasr.restoration.batch import Run
    from rasr.restoration.journal import Journal
    from rasr.restoration.lists import FailedList
    from rasr.restoration.plan import are_several, check_places, plan_jobs, plan_maps
    from rasr.restoration.report import Report
    from rasr.restoration.restorer import Restorer, pick_references
    from rasr.restoration.work import check_job

    # All that needs no network comes first: a mistake on the command line is told before torch is loaded. And what is
    # the same for all pictures comes before what is asked of each: a folder may hold thousands.
    expert_options = _expert(options, expert)
    settings, save = build_options(Settings, options), build_options(SaveOptions, options)
    batch, cluster = build_options(BatchOptions, options), build_options(ClusterOptions, options)
    limits = None if max_megapixels is None else Limits.megapixels(_number(max_megapixels))
    restorer = Restorer(preset or DEFAULT_PRESET, gallery, device=device, **expert_options)
    restorer.check(settings)
    several = are_several(inputs)
    journal = Journal(place_given(out), batch.shard) if several else None
    jobs = plan_jobs(inputs, out, name=name, format=save.format, journal=journal)
    picked = settings.reference if isinstance(settings.reference, tuple) else ()
    if picked:
        pick_references(picked)
        check_places(jobs, picked)
    maps = {} if evidence is None else plan_maps(jobs, evidence, picked, several=several, overwrite=save.overwrite)
    check_gallery(gallery)
    run = Run(jobs, restorer, settings, save, batch, journal=journal, limits=limits, cluster=cluster)
    page = None if report is None else Report(report, overwrite=save.overwrite, expected=len(run.jobs))
    failures = None if failed is None else FailedList(failed, overwrite=save.overwrite)
    finished = run.look()
    if run.left:
        run.measure()
        if not several:
            with _listing(failures, run.left[0]):
                check_job(run.left[0], settings, save)
        _ready(restorer, gallery, cluster)

    telling = Telling(run, ("clean", "restore") if restorer.generator.cleaner else ("restore",))
    order = {job.output: place for place, job in enumerate(run.jobs)}
    for outcome in telling.follow(finished, maps=maps, keep_evidence=page is not None):
        _give(outcome, as_json=as_json)
        if outcome.error is not None and failures is not None:
            failures.add(outcome.job, outcome.error)
        if page is not None:
            page.add(outcome, order[outcome.job.output])
    if failures is not None:
        failures.write()
    if telling.failed and not several:
        raise telling.failed[0]
    if page is not None and run.jobs:
        say(f"Report: {page.write()}")
    telling.conclude(out, failed, drawn=bool(restorer.generator.info.weights), several=several)
    return 1 if telling.failed else 0


@contextlib.contextmanager
def _listing(failures: FailedList | None, job: Job) -> Iterator[None]:
    """List a picture that fails in the block, and ends the command with it."""
    try:
        yield
    except RasrError as error:
        if failures is not None:
            failures.add(job, error)
            failures.write()
        raise


def _number(given: float | str) -> float | None:
    return None if isinstance(given, str) else given


def _ready(restorer: Restorer, gallery: str | None, cluster: ClusterOptions) -> None:
    """Say what is going to restore, and open the gallery."""
    where = restorer.generator.info.device if cluster.cluster is None else f"the cluster {cluster.cluster}"
    say(f"{restorer.generator.info.name} on {where}")
    detail(f"Threads: {use_threads()}")
    if gallery is not None:
        with stage_bars("images") as progress:  # a folder of photos is indexed here
            opened = restorer.open_gallery(progress)
        say(f"Gallery: {0 if opened is None else len(opened)} photos")


def _give(outcome: Outcome, *, as_json: bool) -> None:
    """Print what became of a picture."""
    if as_json:
        print_json(outcome.to_json())
    elif outcome.error is None:
        print_data(outcome.job.output)


def _expert(options: dict[str, Any], pairs: tuple[str, ...]) -> dict[str, Any]:
    """Take what the generator is built with out of ``options`` and ``pairs``; the prompt goes to the settings."""
    spelled = {name: options.pop(name) for name in GENERATOR_OPTIONS}
    named = key_values(pairs, "--set")
    options["prompt"] = named.pop("prompt", options["prompt"])
    numbers = {name: int(text) for name, text in named.items() if text.isdecimal() and name not in GENERATOR_OPTIONS}
    return {name: value for name, value in spelled.items() if value is not None} | named | numbers
