"""``rasr restore``: pictures in, restored pictures out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from rasr.cli.console import examples, print_json, progress_bar, say
from rasr.errors import RasrError, UsageError

if TYPE_CHECKING:
    from rasr.gallery import Gallery
    from rasr.images import Limits
    from rasr.restoration import Job, Outcome, Settings

__all__ = ["command"]


class NumberOr(click.ParamType):  # type: ignore[type-arg]  # generic only in click's newest version
    """A positive number, or one word such as ``auto``."""

    def __init__(self, word: str, kind: type[int] | type[float]) -> None:
        self.word = word
        self.kind = kind
        self.name = f"N|{word}"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As typed, not in capitals."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or the word."""
        if value == self.word:
            return value
        try:
            number = self.kind(value)
        except ValueError:
            number = self.kind(0)
        if not number > 0:
            self.fail(f"'{value}' is neither a positive number nor '{self.word}'.", param, ctx)
        return number


@click.command(
    epilog=examples(
        "rasr restore old.jpg -g ~/Photos -o restored.png",
        "rasr restore scans/ -g museum.gallery -o restored/ --long-side 4000 --resume --report report.html",
        "rasr restore cat.jpg -o cat4x.png --reference my-cat.jpg --strength 0.8",
        "rasr restore *.png -o out/ --scale 2 --format webp --name '{stem}@2x{ext}' --json",
    )
)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-g", "--gallery", type=click.Path(path_type=Path), help="Gallery, or folder of photos, to look in.")
@click.option("-o", "--out", required=True, help="File for one picture; folder for several (tree mirrored).")
@click.option("--preset", help="Generator, see 'rasr doctor'.  [default: mini]")
@click.option("--adapter", help="Trained reference branch for the preset, or 'none'.  [default: what is at hand]")
@click.option(
    "--cleaner", help="Preset to run first, or 'none' (presets mini, sd21).  [default: realesrgan-tuned before mini]"
)
@click.option("--base", help="Folder or hub id of the base model (presets sd21).")
@click.option("--vae", type=click.Choice(["full", "tiny"]), help="tiny: TAESD, faster and coarser (presets sd21).")
@click.option("--reference", multiple=True, metavar="auto|none|FILE", help="Which photo guides; FILE may be repeated.")
@click.option("-k", default=1, show_default=True, help="How many gallery photos may guide.")
@click.option("--strength", default=1.0, show_default=True, help="0 to 1: how much the reference may add.")
@click.option("--scale", type=float, help="Enlargement, fractions allowed.  [default: 4]")
@click.option("--width", type=int, help="Width of the result in pixels.")
@click.option("--height", type=int, help="Height of the result in pixels.")
@click.option("--long-side", type=int, help="Longer side of the result in pixels.")
@click.option("--tile", type=NumberOr("auto", int), default="auto", show_default=True, help="Side of a tile.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:N] or mps.")
@click.option("--dtype", default="auto", show_default=True, help="auto, fp32, bf16 or fp16.")
@click.option(
    "--colour", "--color", type=click.Choice(["auto", "wavelet", "adain", "none"]), default="auto",
    show_default=True, help="How colours are matched to the input; auto: as suits the preset.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Same seed, same machine, same picture.")
@click.option(
    "--query-restore", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True,
    help="Clean the picture before looking it up.",
)  # fmt: skip
@click.option("--prompt", help="Text for presets that read text.")
@click.option("--metadata", type=click.Choice(["keep", "strip"]), default="keep", show_default=True)
@click.option("--format", type=click.Choice(["png", "jpg", "webp", "tiff"]), help="[default: the input's]")
@click.option("--quality", type=NumberOr("lossless", int), help="JPEG and WebP.  [default: 95]")
@click.option("--bits", type=click.Choice(["8", "16"]), help="Bits per channel.  [default: the input's]")
@click.option("--name", default="{stem}_rasr{ext}", show_default=True, help="Name of results in a folder; also {name}.")
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
@click.option("--resume", is_flag=True, help="Skip pictures finished from the same input with the same settings.")
@click.option("--max-megapixels", type=NumberOr("none", float), help="Largest input.  [default: by memory]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
@click.option("--report", type=click.Path(path_type=Path), help="Write a page to compare input, result, references.")
def command(
    inputs: tuple[Path, ...],
    gallery: Path | None,
    out: str,
    preset: str | None,
    device: str,
    dtype: str,
    name: str,
    resume: bool,
    as_json: bool,
    report: Path | None,
    **options: Any,
) -> int:
    """Restore pictures, guided by the best match in a gallery.

    Prints the paths of the results. A gallery photo guides only if it is a good match; the result says which did.
    """
    from rasr.generator import DEFAULT_PRESET
    from rasr.restoration import Report, Restorer, SaveOptions, is_folder, plan_jobs, run_batch

    settings = _settings(options)
    limits = _limits(options["max_megapixels"])
    save = SaveOptions(
        format=options["format"],
        quality=options["quality"],
        bits=None if options["bits"] is None else int(options["bits"]),
        metadata=options["metadata"],
        overwrite=options["overwrite"],
    )
    jobs = plan_jobs(inputs, out, name=name, format=save.format)
    page = None if report is None else Report(report, overwrite=save.overwrite, expected=len(jobs))
    own = {key: options[key] for key in ("adapter", "cleaner", "base", "vae") if options[key] is not None}
    restorer = Restorer(preset or DEFAULT_PRESET, _open(gallery), device=device, dtype=dtype, **own)
    say(f"{restorer.generator.info.name} on {restorer.generator.info.device}")

    several = len(jobs) > 1 or is_folder(inputs[0])
    failed: list[RasrError] = []
    with _Talk(jobs, limits) as talk:
        outcomes = run_batch(
            jobs, restorer, settings, save,
            journal_folder=Path(out) if several else None, resume=resume, limits=limits,
            announce=talk.start, progress=talk.advance,
        )  # fmt: skip
        for outcome in outcomes:
            talk.finish(outcome)
            if outcome.error is not None:
                failed.append(outcome.error)
            if as_json:
                print_json(outcome.to_json())
            elif outcome.error is None:
                click.echo(outcome.job.output)
            if page is not None:
                page.add(outcome)
    if failed and not several:
        raise failed[0]
    if page is not None:
        say(f"Report: {page.write()}")
    if restorer.generator.info.weights and len(failed) < len(jobs):
        say("Restored detail is plausible, not evidence: it was not in the input.")
    if failed:
        say(f"{len(failed)} of {len(jobs)} failed:")
    for error in failed:
        say(f"  {error}")
    return 1 if failed else 0


def _settings(options: dict[str, Any]) -> Settings:
    from rasr.restoration import Settings, TargetSize

    given: tuple[str, ...] = options["reference"] or ("auto",)
    words = {"auto", "none"}.intersection(given)
    if words and len(given) > 1:
        raise UsageError(f"--reference {words.pop()} cannot be combined with another --reference.")
    return Settings(
        reference=given[0] if words else tuple(Path(path) for path in given),  # type: ignore[arg-type]  # auto or none
        size=TargetSize(options["scale"], options["width"], options["height"], options["long_side"]),
        **{name: options[name] for name in ("k", "strength", "tile", "colour", "seed", "query_restore", "prompt")},
    )


def _limits(megapixels: float | str | None) -> Limits | None:
    from rasr.images import Limits

    if megapixels is None:
        return None
    return Limits.megapixels(None if isinstance(megapixels, str) else megapixels)


def _open(path: Path | None) -> Gallery | None:
    """The gallery; a folder of photos is indexed here, where its progress can be shown."""
    if path is None:
        return None
    from rasr.gallery import open_gallery_or_folder

    with progress_bar() as bar:
        task = bar.add_task(f"Looking at the photos in {path}", total=None)
        gallery = open_gallery_or_folder(
            path, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    say(f"Gallery: {len(gallery)} photos")
    return gallery


class _Talk:
    """What is said on stderr during the run: a line a picture, and on a terminal a bar measured in pixels."""

    def __init__(self, jobs: Sequence[Job], limits: Limits | None) -> None:
        self._count = len(jobs)
        self._number = 0
        self._pixels = {job.input: _pixels(job.input, limits) for job in jobs} if sys.stderr.isatty() else {}
        self._bar = progress_bar()
        self._task = self._bar.add_task("", total=sum(self._pixels.values()) or None)
        self._done = 0
        self._current = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, job: Job, size: tuple[int, int], target: tuple[int, int]) -> None:
        """A picture's turn has come."""
        self._current = self._pixels.get(job.input, 0)
        place = f"[{self._number + 1}/{self._count}] " if self._count > 1 else ""
        self._say(f"{place}{job.input}: {size[0]}×{size[1]} → {target[0]}×{target[1]} pixels")
        self._bar.update(self._task, description=f"{place}{job.input.name}", refresh=True)

    def advance(self, part: float) -> None:
        """The current picture is ``part`` done, 0..1."""
        self._bar.update(self._task, completed=self._done + part * self._current)

    def finish(self, outcome: Outcome) -> None:
        """A picture is done with, one way or the other."""
        self._number += 1
        self._done += self._pixels.get(outcome.job.input, 0)
        self._bar.update(self._task, completed=self._done)
        if outcome.error is not None:
            if self._count > 1:
                self._say(f"[{self._number}/{self._count}] failed: {outcome.error}")
            return
        if outcome.result is None:
            self._say(f"[{self._number}/{self._count}] {outcome.job.input}: finished in an earlier run")
            return
        references = outcome.result.references
        for reference in [found for found in references if found.accepted] or references[:1]:
            self._say(f"  Reference {reference.rank}: {reference.path}, score {reference.score:.3f}. {reference.why}")
        for note in outcome.result.notes:
            self._say(f"  {note}")

    def _say(self, line: str) -> None:
        if self._bar.disable:
            say(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _pixels(path: Path, limits: Limits | None) -> int:
    from rasr.images import read_header

    try:
        header = read_header(path, limits=limits)
    except RasrError:
        return 0
    return header.width * header.height
