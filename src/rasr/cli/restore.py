"""``rasr restore``: pictures in, restored pictures out."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasr.cli.arguments import PRESET, NumberOr, build_options, check_gallery, key_values, option_group
from rasr.cli.console import (
    Lines,
    detail,
    examples,
    print_data,
    print_json,
    progress_bar,
    resumable,
    say,
    stage_bars,
    throwaway_folder,
    warn,
)
from rasr.device import use_threads
from rasr.errors import OutputError, UsageError, shown
from rasr.restoration.settings import SaveOptions, Settings

if TYPE_CHECKING:
    from rasr.errors import RasrError
    from rasr.restoration import Job, Outcome

GENERATOR_OPTIONS = ("adapter", "base", "cleaner", "dtype", "vae")
"""Those of the generator's options that may also be spelled ``--NAME VALUE``, as before ``--set NAME=VALUE``."""

COSTS = {"clean": 6.0, "restore": 1.0}
"""Shares of the time that the stages of a picture take, until the first picture has told its own."""


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
    def wrapper(inputs: tuple[Path, ...], out: str | None, as_json: bool, **rest: Any) -> int:
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


def _beside(inputs: Sequence[Path]) -> str:
    """The folder of the inputs, where results go that nobody gave a place. Raises UsageError for several folders."""
    folders = {path if path.is_dir() else path.parent for path in inputs}
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
        "rasr restore cat.jpg -o cat4x.png --reference my-cat.jpg --strength 0.8",
        "rasr restore *.png -o out/ --scale 2 --format webp --name '{stem}@2x{ext}' --json",
    )
)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-g", "--gallery", type=click.Path(), help="Gallery, or folder of photos, to look in.")
@click.option("-o", "--out", help="File, or folder for several (tree mirrored), or -.  [default: beside the input]")
@click.option("--preset", type=PRESET, help="Generator, see 'rasr doctor'.  [default: mini]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:N] or mps.")
@option_group(Settings, SaveOptions)
@click.option("--cleaner", metavar="FILE", help="Model file that restores first, or alone (extra spandrel); or none.")
@click.option("--name", default="{stem}_rasr{ext}", show_default=True, help="Name of results in a folder; also {name}.")
@click.option("--resume", is_flag=True, expose_value=False, help="No effect: finished pictures are always skipped.")
@click.option("--max-megapixels", type=NumberOr("none", float), help="Largest input.  [default: by memory]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
@click.option("--evidence", type=click.Path(path_type=Path), help="Draw where each photo gave detail: PNG, or folder.")
@click.option("--report", type=click.Path(path_type=Path), help="Write a page to compare input, result, references.")
@_generator_options
@click.option(
    "--set", "expert", multiple=True, metavar="KEY=VALUE",
    help="Expert options (repeatable): prompt, dtype, and the preset's own, such as adapter, base, vae.",
)  # fmt: skip
@_with_pipes
def command(
    inputs: tuple[Path, ...],
    gallery: str | None,
    out: str,
    preset: str | None,
    device: str,
    name: str,
    max_megapixels: float | str | None,
    as_json: bool,
    evidence: Path | None,
    report: Path | None,
    expert: tuple[str, ...],
    **options: Any,
) -> int:
    """Restore pictures, guided by the best match in a gallery.

    Prints the paths of the results. A gallery photo guides only if it is a good match; the result says which did.
    """
    say("Looking at the pictures …")  # the libraries that compute take their time to load
    from rasr.generator import DEFAULT_PRESET
    from rasr.images import Limits
    from rasr.restoration.batch import check_job, run_batch
    from rasr.restoration.plan import check_places, is_folder, measure_jobs, plan_jobs, plan_maps
    from rasr.restoration.report import Report
    from rasr.restoration.restorer import Restorer, pick_references

    # All that needs no network comes first: a mistake on the command line is told before torch is loaded. And what is
    # the same for all pictures comes before what is asked of each: a folder may hold thousands.
    expert_options = _expert(options, expert)
    settings, save = build_options(Settings, options), build_options(SaveOptions, options)
    limits = None
    if max_megapixels is not None:
        limits = Limits.megapixels(None if isinstance(max_megapixels, str) else max_megapixels)
    restorer = Restorer(preset or DEFAULT_PRESET, gallery, device=device, **expert_options)
    restorer.check(settings)
    jobs = plan_jobs(inputs, out, name=name, format=save.format)
    several = len(jobs) > 1 or is_folder(inputs[0])
    page = None if report is None else Report(report, overwrite=save.overwrite, expected=len(jobs))
    picked = settings.reference if isinstance(settings.reference, tuple) else ()
    if picked:
        pick_references(picked)
        check_places(jobs, picked)
    maps = {} if evidence is None else plan_maps(jobs, evidence, picked, several=several, overwrite=save.overwrite)
    check_gallery(gallery)
    jobs = measure_jobs(jobs, limits)
    if not several:
        check_job(jobs[0], settings, save)
    say(f"{restorer.generator.info.name} on {restorer.generator.info.device}")
    detail(f"Threads: {use_threads()}")
    if gallery is not None:
        with stage_bars("images") as progress:  # a folder of photos is indexed here
            opened = restorer.open_gallery(progress)
        say(f"Gallery: {0 if opened is None else len(opened)} photos")

    run = partial(
        run_batch, jobs, restorer, settings, save,
        journal_folder=Path(out) if several else None, limits=limits,
    )  # fmt: skip
    failed: list[RasrError] = []
    telling = _Telling(jobs, ("clean", "restore") if restorer.generator.cleaner else ("restore",))
    for outcome in telling.follow(run):
        failed += _give(outcome, maps.get(outcome.job.output), as_json=as_json, overwrite=save.overwrite)
        if page is not None:
            page.add(outcome)
    if failed and not several:
        raise failed[0]
    if page is not None:
        say(f"Report: {page.write()}")
    if restorer.generator.info.weights and len(failed) < len(jobs):
        say("Restored detail is plausible, not evidence, but for what is said to be detail from your photos.")
    if several:
        telling.conclude(failed, Path(out))
    return 1 if failed else 0


def _give(outcome: Outcome, place: Path | None, *, as_json: bool, overwrite: bool) -> list[RasrError]:
    """Print what became of a picture, and draw its evidence map, if it has a place; returns what failed."""
    failed = [] if outcome.error is None else [outcome.error]
    try:
        _draw_evidence(outcome, place, overwrite=overwrite)
    except OutputError as error:  # the picture itself is there
        failed.append(error)
    if as_json:
        print_json(outcome.to_json())
    elif outcome.error is None:
        print_data(outcome.job.output)
    return failed


def _draw_evidence(outcome: Outcome, place: Path | None, *, overwrite: bool) -> None:
    """Draw a picture's evidence map, and say it where an earlier run's result has none. Raises OutputError."""
    if place is None or outcome.error is not None:
        return
    if outcome.result is None:
        if not place.exists():
            say(f"  No evidence map: {outcome.job.output.name} was finished earlier. --overwrite restores it again.")
        return
    from rasr.files import os_errors_as_output
    from rasr.restoration.evidence import save_evidence

    with os_errors_as_output(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    save_evidence(outcome.result, place, overwrite=overwrite)


def _expert(options: dict[str, Any], pairs: tuple[str, ...]) -> dict[str, Any]:
    """Take what the generator is built with out of ``options`` and ``pairs``; the prompt goes to the settings."""
    spelled = {name: options.pop(name) for name in GENERATOR_OPTIONS}
    named = key_values(pairs, "--set")
    options["prompt"] = named.pop("prompt", options["prompt"])
    numbers = {name: int(text) for name, text in named.items() if text.isdecimal() and name not in GENERATOR_OPTIONS}
    return {name: value for name, value in spelled.items() if value is not None} | named | numbers


class _Telling:
    """Told on stderr: a line a picture, what becomes of it, a bar or lines of progress, and a summary."""

    def __init__(self, jobs: Sequence[Job], stages: Sequence[str]) -> None:
        self.jobs = jobs
        self.begun = time.monotonic()
        self.counts = {"done": 0, "skipped": 0, "failed": 0}
        self._costs = {stage: COSTS[stage] for stage in stages}
        self._sizes = [job.size[0] * job.size[1] if job.size else 0 for job in jobs]
        self._total = float(sum(self._sizes))
        self._done = 0.0
        self._lines = Lines(whole=True)

    @property
    def number(self) -> int:
        """Pictures that are over, whatever became of them."""
        return sum(self.counts.values())

    @property
    def place(self) -> str:
        """Which picture it is of how many, where there are several."""
        return f"[{self.number + 1}/{len(self.jobs)}] " if len(self.jobs) > 1 else ""

    def follow(self, run: Callable[..., Iterator[Outcome]]) -> Iterator[Outcome]:
        """Pass on what ``run`` yields, and tell it."""
        with resumable(self.standing), progress_bar() as bar:
            task = bar.add_task("", total=self._total or None)

            def announce(job: Job, target: tuple[int, int]) -> None:
                width, height = job.size or (0, 0)
                say(f"{self.place}{job.input}: {width}×{height} → {target[0]}×{target[1]} pixels")
                bar.update(task, description=shown(f"{self.place}{job.input.name}"), refresh=True)

            def progress(stage: str, part: float, total: float) -> None:
                done = self._done + self._share(stage, part / total) * self._sizes[self.number]
                words = shown(f"{self.place}{self.jobs[self.number].input.name}: {stage}")
                bar.update(task, completed=done, description=words)
                if bar.disable:
                    self._lines.show(f"{self.place}{stage}", done, self._total)

            for outcome in run(announce=announce, progress=progress):
                for line in _lines(outcome, self.place):
                    (warn if outcome.error else say)(line)
                if outcome.result is not None:
                    detail(
                        f"  Seconds: {', '.join(f'{name} {took:.2f}' for name, took in outcome.result.timings.items())}"
                    )
                self._count(outcome)
                bar.update(task, completed=self._done, total=self._total or None)
                yield outcome

    def standing(self) -> str:
        """How far an interrupted run was."""
        if len(self.jobs) == 1:
            return "nothing was written."
        return f"{self.counts['done'] + self.counts['skipped']} of {len(self.jobs)} done; the same command goes on."

    def conclude(self, failed: Sequence[RasrError], where: Path) -> None:
        """Tell the end of a batch: what failed, and one line that sums up."""
        if failed:
            warn(f"{len(failed)} of {len(self.jobs)} failed:")
        for error in failed:
            warn(f"  {error}")
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        say(f"{counts} in {time.monotonic() - self.begun:.0f} s: {where}")

    def _share(self, stage: str, part: float) -> float:
        """The share of a picture's work that is done, when ``part`` of a stage is."""
        before = 0.0
        for name, cost in self._costs.items():
            if name == stage:
                return (before + part * cost) / sum(self._costs.values())
            before += cost
        return 0.0

    def _count(self, outcome: Outcome) -> None:
        size = self._sizes[self.number]
        if outcome.result is None:  # no work: it tells nothing of the time that the others take
            self._total -= size
        else:
            self._done += size
            took = {stage: outcome.result.timings.get(stage, 0.0) for stage in self._costs}
            if all(took.values()):
                self._costs = took
        self.counts["failed" if outcome.error else "skipped" if outcome.result is None else "done"] += 1


def _lines(outcome: Outcome, place: str) -> Iterator[str]:
    """Say what became of a picture; of one that failed alone, its error says all."""
    if outcome.error is not None:
        if place:
            yield f"{place}failed: {outcome.error}"
    elif outcome.result is None:
        yield f"{place}{outcome.job.input}: finished in an earlier run"
    else:
        references = outcome.result.references
        for reference in [found for found in references if found.accepted] or references[:1]:
            yield f"  Reference {reference.rank}: {reference.path}. {reference.why}"
        yield from (f"  {note}" for note in outcome.result.notes)
