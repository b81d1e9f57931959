"""One evaluation: prepare inputs, check for leaks, choose references, restore, measure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rasr.errors import ExtraMissing, RasrError, UsageError, WeightsError
from rasr.evaluation.benchmark import Benchmark, load_benchmark
from rasr.evaluation.inputs import TestInput, prepare_inputs
from rasr.evaluation.journal import NUMBER, Journal, Scorer
from rasr.evaluation.method import EvalJob, EvalOutcome, Method, MethodInfo
from rasr.evaluation.metrics import METRICS, MetricInfo, MetricWeights, Unavailable, load_metrics
from rasr.evaluation.references import Leak, ReferenceChooser, default_policies, find_leaks, refuse_leaks
from rasr.evaluation.rows import Row
from rasr.evaluation.settings import EvaluationSettings
from rasr.files import os_errors_as_output, sha256_file
from rasr.gallery import Gallery, open_gallery_or_folder
from rasr.images import read_header
from rasr.progress import Progress

RESTORED = {"output": str, "seconds": NUMBER, "memory": NUMBER}
"""Fields of a restored picture's record in the journal."""
JUDGED = [{"verdict": str, "share": (*NUMBER, type(None))}]
"""Its field ``judged``, of methods that tell: one for each reference shown."""


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
        return self.settings.out / "outputs" / row.folder / f"{name}.png"


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
    settings = replace(settings, policies=settings.policies or default_policies(benchmark.layout))
    inputs = prepare_inputs(benchmark, settings.out / "inputs", settings.inputs, tell)
    weights = MetricWeights(settings.weights, download=settings.download, progress=tell)
    metrics, unavailable = load_metrics(settings.metrics, settings.protocol, weights, device=settings.device)
    evaluation = Evaluation(settings, benchmark, inputs, [metric.info for metric in metrics], unavailable)
    rows = [
        (method, Row(info, policy, len(inputs)))
        for method in methods
        for info in (_info_on(benchmark, method),)
        for policy in (settings.policies if info.uses_reference else ("none",))
        if not (info.needs_reference and policy == "none")
    ]
    evaluation.rows = [row for _, row in rows]
    _check_rows(evaluation)
    journal = Journal(settings.out / "journal.jsonl")
    worker = _Worker(evaluation, journal, tell)
    chooser = worker.choose_from() if any(row.policy != "none" for row in evaluation.rows) else None
    scorer = Scorer(metrics, journal, settings.out / "cache")
    for method, row in rows:
        worker.restore(row, method, chooser)
        for done, item in enumerate(inputs):
            if item.name in row.outputs:
                scorer.score_picture(row, item, evaluation.output(row, item.name))
            tell(f"measuring {row.label}", done + 1, len(inputs))
        scorer.score_set(row, inputs, {item.name: evaluation.output(row, item.name) for item in inputs})
    return evaluation


def _info_on(benchmark: Benchmark, method: Method) -> MethodInfo:
    """A method's facts: where scenes have photos of their own, one that fuses them uses references.

    A method whose file cannot be read has a row that says so, and the others are evaluated.
    """
    try:
        info = method.info
    except (WeightsError, ExtraMissing) as error:
        return MethodInfo(method.name, "Other", "", uses_reference=False, state="needs weights", todo=str(error))
    return replace(info, uses_reference=True) if info.fuses and benchmark.layout == "pairs" else info


def _check_rows(evaluation: Evaluation) -> None:
    if evaluation.rows and evaluation.baseline is None:
        known = ", ".join(row.key for row in evaluation.rows)
        raise UsageError(f"--baseline {evaluation.settings.baseline} is no row of this table. The rows are: {known}.")
    keys = [row.key for row in evaluation.rows]
    if len(set(keys)) < len(keys):
        raise UsageError(f"Two methods are called '{next(key for key in keys if keys.count(key) > 1)}'.")


@dataclass(frozen=True, slots=True)
class _Worker:
    """Makes what is missing of an evaluation's rows."""

    evaluation: Evaluation
    journal: Journal
    tell: Progress

    def choose_from(self) -> ReferenceChooser:
        """Open the gallery, refuse or exclude leaks, and return what picks references from it."""
        evaluation, settings = self.evaluation, self.evaluation.settings
        gallery = self._gallery()
        leaks = self._leaks(gallery)
        if not settings.exclude_leaks:
            # Pairs are near-duplicates by design, the closer the better; only the picture itself is no reference.
            refuse_leaks([leak for leak in leaks if leak.exact or evaluation.benchmark.layout != "pairs"])
        evaluation.leaks = leaks
        place = settings.gallery or evaluation.benchmark.root
        evaluation.gallery = f"{len(gallery)} photos in {place}, found by {gallery.encoder.name}"
        return ReferenceChooser(
            gallery,
            k=settings.k,
            seed=settings.inputs.seed,
            by_category=evaluation.benchmark.by_category and settings.gallery is None,
            banned=[leak.photo for leak in leaks] if settings.exclude_leaks else (),
            accept=settings.accept,
            journal=self.journal,
        )

    def _gallery(self) -> Gallery:
        settings, benchmark = self.evaluation.settings, self.evaluation.benchmark
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

    def _leaks(self, gallery: Gallery) -> list[Leak]:
        """Check these pictures against this gallery, once."""
        inputs = self.evaluation.inputs
        photos = [(photo.id, str(photo.path)) for photo in gallery.list()]
        key = Journal.key_of("leaks", gallery.encoder.fingerprint, photos, [item.truth_hash for item in inputs])

        def find() -> dict[str, Any]:
            leaks = find_leaks(inputs, gallery, self.tell)
            return {"leaks": [{**asdict(leak), "photo": str(leak.photo)} for leak in leaks]}

        shape = [{"name": str, "photo": str, "why": str, "exact": bool}]
        found = self.journal.recall(key, find, leaks=shape)["leaks"]
        return [Leak(one["name"], Path(one["photo"]), one["why"], one["exact"]) for one in found]

    def restore(self, row: Row, method: Method, chooser: ReferenceChooser | None) -> None:
        """Make what is missing of a row's pictures, and check every one that is there."""
        inputs, info = self.evaluation.inputs, row.info
        jobs: list[EvalJob] = []
        keys: dict[str, str] = {}
        for item in inputs:
            shown = tuple(chooser.choose(row.policy, item)) if chooser and info.uses_reference else ()
            if shown:
                row.references[item.name] = shown
            output, ids = self.evaluation.output(row, item.name), [reference.id for reference in shown]
            jobs.append(EvalJob(item.name, item.low, output, item.width, item.height, item.scale, shown))
            keys[item.name] = Journal.key_of("restored", info.name, info.settings, item.low_hash, item.scale, ids)
            self.tell(f"references for {row.label}", len(jobs), len(inputs))
        pending = [job for job in jobs if not self._finished(keys[job.name], job)]
        if pending:
            self._run(row, method, jobs if info.whole else pending, keys)
        for job in jobs:
            record = self.journal.get(keys[job.name], **RESTORED)
            if record is not None and job.output.is_file() and job.name not in row.problems:
                row.seconds[job.name] = record["seconds"]
                row.memory = max(row.memory, record["memory"])
                row.outputs[job.name] = record["output"]
                self._judge(row, job, keys[job.name])
            elif not row.failed:
                row.problems.setdefault(job.name, "no output picture was written")

    def _judge(self, row: Row, job: EvalJob, key: str) -> None:
        """Put what the method told of the references shown into the row."""
        record = self.journal.get(key, judged=JUDGED)
        if record is not None and job.references and len(record["judged"]) == len(job.references):
            row.references[job.name] = tuple(
                replace(one, verdict=told["verdict"], share=told["share"])
                for one, told in zip(job.references, record["judged"], strict=True)
            )

    def _run(self, row: Row, method: Method, jobs: Sequence[EvalJob], keys: Mapping[str, str]) -> None:
        by_name = {job.name: job for job in jobs}
        for job in jobs:
            job.output.parent.mkdir(parents=True, exist_ok=True)
            job.output.unlink(missing_ok=True)
        kept = len(keys) - len(jobs)
        self.tell(f"restoring {row.label}", kept, len(keys))
        try:
            outcomes = method.run(jobs, self.evaluation.settings.out / "work" / row.folder)
            for done, outcome in enumerate(outcomes, kept + 1):
                output = by_name[outcome.name].output
                problem = outcome.error or _wrong(by_name[outcome.name])
                if problem:
                    row.problems[outcome.name] = problem
                else:
                    facts = {"output": sha256_file(output), "seconds": round(outcome.seconds, 4), **_told(outcome)}
                    key = keys[outcome.name]
                    self.journal.put(key, row=row.key, image=outcome.name, **facts, memory=outcome.memory)
                self.tell(f"restoring {row.label}", done, len(keys))
        except RasrError as error:
            row.failed = str(error)

    def _finished(self, key: str, job: EvalJob) -> bool:
        record = self.journal.get(key, **RESTORED)
        return record is not None and job.output.is_file() and sha256_file(job.output) == record["output"]


def _told(outcome: EvalOutcome) -> dict[str, Any]:
    """What the method said of the references, for the journal."""
    judged = [{"verdict": one.verdict, "share": one.share} for one in outcome.references]
    return {"judged": judged} if judged else {}


def _wrong(job: EvalJob) -> str:
    """Say what is wrong with an output; empty for nothing."""
    if not job.output.is_file():
        return "no output picture was written"
    header = read_header(job.output)
    if (header.width, header.height) != (job.width, job.height):
        return f"its output has {header.width}×{header.height} pixels instead of {job.width}×{job.height}"
    return ""
