"""One evaluation: prepare inputs, check for leaks, choose references, restore, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasr.errors import RasrError, UsageError
from rasr.evaluation.benchmark import Benchmark, load_benchmark
from rasr.evaluation.inputs import TestInput, prepare_inputs
from rasr.evaluation.journal import Journal, Scorer
from rasr.evaluation.method import EvalJob, Method
from rasr.evaluation.metrics import METRICS, MetricInfo, MetricWeights, Unavailable, load_metrics
from rasr.evaluation.references import Leak, ReferenceChooser, find_leaks, refuse_leaks
from rasr.evaluation.rows import Row
from rasr.evaluation.settings import EvaluationSettings
from rasr.files import os_errors_as_output, sha256_file
from rasr.images import read_header
from rasr.progress import Progress

if TYPE_CHECKING:
    from rasr.gallery import Gallery


@dataclass(slots=True)
class Evaluation:
    """Everything an evaluation found out."""

    settings: EvaluationSettings
    benchmark: Benchmark
    inputs: list[TestInput]
    metrics: list[MetricInfo]
    unavailable: list[Unavailable]
    """Columns that cannot be filled; they stay in the table."""
    rows: list[Row] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    gallery: str = ""
    """Origin of the references, in words."""

    @property
    def complete(self) -> bool:
        """True when every row has every picture."""
        return all(row.complete and not row.problems for row in self.rows)

    @property
    def baseline(self) -> Row | None:
        """The row that differences are taken to."""
        wanted = self.settings.baseline
        return next((row for row in self.rows if wanted in {"", row.key, row.info.name}), None)

    def output(self, row: Row, name: str) -> Path:
        """Path of a row's restored picture."""
        return _output(self.settings.out, row, name)


def evaluate(settings: EvaluationSettings, methods: Sequence[Method], progress: Progress | None = None) -> Evaluation:
    """Run ``methods`` on the benchmark under every reference policy and measure what they make.

    Everything finished is kept in ``settings.out`` and not done again. A method that cannot be run keeps its row, with
    the reason. Raises BenchmarkError, LeakFound, UsageError and what galleries raise.
    """
    tell = progress or (lambda _what, _done, _total: None)
    settings = replace(settings, metrics=settings.metrics or tuple(METRICS))
    with os_errors_as_output(settings.out):
        settings.out.mkdir(parents=True, exist_ok=True)
    benchmark = load_benchmark(settings.benchmark, layout=settings.layout, low=settings.low)
    inputs = prepare_inputs(benchmark, settings.out / "inputs", settings.inputs, tell)
    weights = MetricWeights(settings.weights, download=settings.download, progress=tell)
    metrics, unavailable = load_metrics(settings.metrics, settings.protocol, weights, device=settings.device)
    evaluation = Evaluation(settings, benchmark, inputs, [metric.info for metric in metrics], unavailable)
    journal = Journal(settings.out / "journal.jsonl")
    evaluation.rows = [
        Row(method.info, policy, len(inputs))
        for method in methods
        for policy in (settings.policies if method.info.uses_reference else ("none",))
        if not (method.info.needs_reference and policy == "none")
    ]
    _check_baseline(evaluation)
    chooser = _chooser(evaluation, journal, tell) if any(row.policy != "none" for row in evaluation.rows) else None
    scorer = Scorer(metrics, journal, settings.out / "cache")
    by_name = {method.info.name: method for method in methods}
    for row in evaluation.rows:
        _restore(evaluation, row, by_name[row.info.name], chooser, journal, tell)
        for done, item in enumerate(inputs):
            if item.name in row.outputs:
                scorer.score_picture(row, item, evaluation.output(row, item.name))
            tell(f"measuring {row.label}", done + 1, len(inputs))
        scorer.score_set(row, inputs, {item.name: evaluation.output(row, item.name) for item in inputs})
    return evaluation


def _check_baseline(evaluation: Evaluation) -> None:
    if evaluation.rows and evaluation.baseline is None:
        known = ", ".join(row.key for row in evaluation.rows)
        raise UsageError(f"--baseline {evaluation.settings.baseline} is no row of this table. The rows are: {known}.")
    keys = [row.key for row in evaluation.rows]
    if len(set(keys)) < len(keys):
        raise UsageError(f"Two methods are called '{next(key for key in keys if keys.count(key) > 1)}'.")


def _chooser(evaluation: Evaluation, journal: Journal, tell: Progress) -> ReferenceChooser:
    """Open the gallery, refuse or exclude leaks, and return what picks references from it."""
    settings = evaluation.settings
    gallery = _gallery(evaluation)
    leaks = _leaks(evaluation, gallery, journal, tell)
    if not settings.exclude_leaks:
        # Pairs are near-duplicates by design, the closer the better; only the picture itself is no reference.
        refuse_leaks([leak for leak in leaks if leak.exact or evaluation.benchmark.layout != "pairs"])
    evaluation.leaks = leaks
    evaluation.gallery = (
        f"{len(gallery)} photos in {settings.gallery or evaluation.benchmark.root}, found by {gallery.encoder.name}"
    )
    return ReferenceChooser(
        gallery,
        k=settings.k,
        seed=settings.inputs.seed,
        by_category=evaluation.benchmark.by_category and settings.gallery is None,
        banned=[leak.photo for leak in leaks] if settings.exclude_leaks else (),
        accept=settings.accept,
        journal=journal,
    )


def _leaks(evaluation: Evaluation, gallery: Gallery, journal: Journal, tell: Progress) -> list[Leak]:
    """The leak check of these pictures against this gallery, done once."""
    photos = [(photo.id, str(photo.path)) for photo in gallery.list()]
    key = Journal.key_of("leaks", gallery.encoder.fingerprint, photos, [item.truth_hash for item in evaluation.inputs])

    def find() -> dict[str, Any]:
        leaks = find_leaks(evaluation.inputs, gallery, tell)
        return {"leaks": [{**asdict(leak), "photo": str(leak.photo)} for leak in leaks]}

    return [Leak(**{**found, "photo": Path(found["photo"])}) for found in journal.recall(key, find)["leaks"]]


def _gallery(evaluation: Evaluation) -> Gallery:
    from rasr.gallery import Gallery, open_gallery_or_folder

    settings, benchmark = evaluation.settings, evaluation.benchmark
    if settings.gallery is not None:
        return open_gallery_or_folder(settings.gallery)
    if not benchmark.references:
        raise UsageError(
            f"The layout '{benchmark.layout}' brings no references. Name a gallery or a folder of photos with "
            "--gallery, or evaluate without: --references none."
        )
    gallery = Gallery(settings.out / "gallery")
    for category, photos in sorted(benchmark.references.items()):
        gallery.add(photos, category=category)
    return gallery


def _restore(
    evaluation: Evaluation,
    row: Row,
    method: Method,
    chooser: ReferenceChooser | None,
    journal: Journal,
    tell: Progress,
) -> None:
    """Make what is missing of a row's pictures, and check every one that is there."""
    what = f"restoring {row.label}"
    jobs: dict[str, EvalJob] = {}
    keys: dict[str, str] = {}
    for done, item in enumerate(evaluation.inputs):
        choices = tuple(chooser.choose(row.policy, item)) if chooser and row.info.uses_reference else ()
        if choices:
            row.references[item.name] = choices
        output = evaluation.output(row, item.name)
        jobs[item.name] = EvalJob(item.name, item.low, output, item.width, item.height, item.scale, choices)
        keys[item.name] = Journal.key_of(
            "restored", row.info.name, row.info.settings, item.low_hash, item.scale, [choice.id for choice in choices]
        )
        tell(f"references for {row.label}", done + 1, len(evaluation.inputs))
    pending = [job for job in jobs.values() if not _finished(journal, keys[job.name], job)]
    if pending and row.info.whole:
        pending = list(jobs.values())
    if pending:
        tell(what, len(jobs) - len(pending), len(jobs))
        _run(row, method, pending, keys, journal, evaluation.settings.out, tell)
    for job in jobs.values():
        record = journal.get(keys[job.name])
        if record is not None and job.output.is_file() and job.name not in row.problems:
            row.seconds[job.name] = record["seconds"]
            row.memory = max(row.memory, record["memory"])
            row.outputs[job.name] = record["output"]
        elif not row.failed:
            row.problems.setdefault(job.name, "no output picture was written")


def _run(
    row: Row, method: Method, pending: list[EvalJob], keys: dict[str, str], journal: Journal, out: Path, tell: Progress
) -> None:
    for job in pending:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.unlink(missing_ok=True)
    by_name = {job.name: job for job in pending}
    try:
        for done, outcome in enumerate(method.run(pending, out / "work" / _folder(row))):
            job = by_name[outcome.name]
            problem = outcome.error or _wrong(job)
            if problem:
                row.problems[job.name] = problem
            else:
                journal.put(
                    keys[job.name],
                    row=row.key,
                    image=job.name,
                    output=sha256_file(job.output),
                    seconds=round(outcome.seconds, 4),
                    memory=outcome.memory,
                )
            tell(f"restoring {row.label}", done + 1, len(pending))
    except RasrError as error:
        row.failed = str(error)


def _finished(journal: Journal, key: str, job: EvalJob) -> bool:
    record = journal.get(key)
    return record is not None and job.output.is_file() and sha256_file(job.output) == record["output"]


def _wrong(job: EvalJob) -> str:
    """Say what is wrong with an output; empty for nothing."""
    if not job.output.is_file():
        return "no output picture was written"
    header = read_header(job.output)
    if (header.width, header.height) != (job.width, job.height):
        return f"its output has {header.width}×{header.height} pixels instead of {job.width}×{job.height}"
    return ""


def _folder(row: Row) -> str:
    return row.key.replace(":", "/")


def _output(out: Path, row: Row, name: str) -> Path:
    return out / "outputs" / _folder(row) / f"{name}.png"
