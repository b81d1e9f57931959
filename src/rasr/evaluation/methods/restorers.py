"""Methods inside RASR: generator presets, model files, finished pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rasr.errors import BenchmarkError, OutOfMemory, PictureError, UsageError
from rasr.evaluation.method import EvalJob, EvalOutcome, MethodInfo
from rasr.files import sha256_file
from rasr.images import find_pictures, read_picture, write_picture
from rasr.memory import Meter

if TYPE_CHECKING:
    from rasr.gallery import Reference
    from rasr.restoration import ColourMethod, Restorer


ADVERSARIAL = frozenset({"ESRGAN", "RealESRGAN Compact", "MMRealSR", "GFPGAN", "GPEN", "RestoreFormer", "CodeFormer"})
"""Names that spandrel gives networks which are published with a discriminator. How a file was trained, it does not say;
the others (SwinIR, HAT, DAT, …) are published as regressions first."""


@dataclass(eq=False)
class RestorerMethod:
    """A generator behind the Restorer of ``rasr restore``, whole pictures and tiles alike.

    ``colour`` is the colour match afterwards: ``none`` for published single-image methods, whose networks are measured
    as they are, and the product's own for RASRNet. ``reference`` makes it a method with one row a reference policy.
    ``fuses`` lets references be verified and fused as in ``rasr restore``. Without a ``family`` it is the generator's
    network that tells. ``remark`` says what a method that is otherwise itself lacks.
    """

    name: str
    family: str
    summary: str
    build: Callable[[], Restorer]
    colour: ColourMethod | Literal["auto"] = "none"
    reference: bool = False
    fuses: bool = True
    seed: int = 0
    remark: str = ""

    @cached_property
    def _restorer(self) -> Restorer:
        return self.build()

    @cached_property
    def info(self) -> MethodInfo:
        """Facts of the generator; raises what building it raises."""
        from rasr.restoration import Settings

        generator, cleaner = self._restorer.generator.info, self._restorer.generator.cleaner
        remark = self.remark if generator.trained else "untrained"
        if self.reference and "(no reference adapter)" in generator.name:
            remark = "no reference adapter"
        return MethodInfo(
            self.name,
            self.family or ("GAN-based" if generator.name in ADVERSARIAL else "Regression"),
            self.summary,
            uses_reference=self.reference,
            fuses=self.fuses,
            licence=generator.licence,
            remark=remark,
            settings={
                "generator": generator.name,
                "weights": generator.weights,
                "files": _contents(generator.weights),
                "cleaner": None if cleaner is None else [cleaner.info.weights, _contents(cleaner.info.weights)],
                "device": generator.device,
                "colour": generator.colour if self.colour == "auto" else self.colour,
                "seed": self.seed,
                "candidates": Settings().candidates if self.fuses else 0,
            },
        )

    def run(self, jobs: Sequence[EvalJob], folder: Path) -> Iterator[EvalOutcome]:
        """Restore one picture after another; weights that are missing stop everything."""
        from rasr.restoration import Settings, TargetSize

        for job in jobs:
            try:
                with Meter() as meter:
                    result = self._restorer(
                        read_picture(job.low),
                        reference=[reference.path for reference in job.references] or "none",
                        size=TargetSize(scale=job.scale),
                        colour=self.colour,
                        seed=self.seed,
                        candidates=Settings().candidates if self.fuses else 0,
                    )
            except (OutOfMemory, PictureError) as error:
                yield EvalOutcome(job.name, error=str(error))
                continue
            write_picture(result.picture, job.output, bits=8, overwrite=True)
            # Seconds it did not take because another policy had the same picture cleaned count as if it had.
            seconds = meter.seconds + result.timings.get("clean_saved", 0.0)
            yield EvalOutcome(job.name, seconds, meter.memory, references=_judged(job, result.references))


def _judged(job: EvalJob, told: Sequence[Reference]) -> tuple[Reference, ...]:
    """The job's references with what the restorer, which ranks them anew, found out about each."""
    seen = {one.path: one for one in told}
    found = [(one, seen[one.path]) for one in job.references]
    return tuple(replace(one, verdict=judged.verdict, share=judged.share) for one, judged in found)


def _contents(weights: str) -> dict[str, str]:
    """Hash the weight files named by a generator, so that retrained ones count as others."""
    return {part: sha256_file(part) for part in weights.split(" + ") if Path(part).is_file()}


class OutputsMethod:
    """A folder with one picture for each test picture, of the same name."""

    def __init__(self, name: str, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"outputs:{folder}: there is no such folder.")
        self._folder, self.name = folder, name
        files = find_pictures([folder])
        state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        self.info = MethodInfo(
            name,
            "Other",
            f"finished pictures in {folder}",
            uses_reference=False,
            whole=True,
            settings={"outputs": str(folder.resolve()), "files": state},
        )

    def run(self, jobs: Sequence[EvalJob], folder: Path) -> Iterator[EvalOutcome]:
        """Take over what is there.

        Raises BenchmarkError when names differ in both directions: pictures then belong to another benchmark or were
        renamed, and pairing them in order would compare wrong pictures.
        """
        found = {picture.stem: picture for picture in find_pictures([self._folder])}
        wanted = {job.name for job in jobs}
        missing, extra = sorted(wanted - found.keys()), sorted(found.keys() - wanted)
        if missing and extra:
            raise BenchmarkError(
                f"The names in {self._folder} are not those of the benchmark: '{missing[0]}' is missing and "
                f"'{extra[0]}' is there ({len(missing)} missing, {len(extra)} unknown). Pictures are paired by name, "
                "never by order."
            )
        for job in jobs:
            yield job.collect(found.get(job.name))
