"""Methods that run inside RASR: every generator preset, and any model file spandrel knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rasr.errors import OutOfMemory, PictureError, RasrError
from rasr.evaluation.inputs import file_hash
from rasr.evaluation.method import Job, MethodInfo, Outcome
from rasr.images import read_picture, write_picture
from rasr.memory import Meter

if TYPE_CHECKING:
    from rasr.restoration import ColourMethod, Restorer

__all__ = ["RestorerMethod"]


class RestorerMethod:
    """A generator behind the same Restorer that ``rasr restore`` uses, whole pictures and tiles alike.

    ``colour`` is the colour match afterwards: ``none`` for published single-image methods, whose networks are measured
    as they are, and the product's own for RASRNet. ``reference`` makes it a method with one row a reference policy.
    """

    def __init__(
        self,
        name: str,
        family: str,
        summary: str,
        build: Callable[[], Restorer],
        *,
        colour: ColourMethod | Literal["auto"] = "none",
        reference: bool = False,
        seed: int = 0,
    ) -> None:
        self._name, self._family, self._summary, self._build = name, family, summary, build
        self._colour: ColourMethod | Literal["auto"] = colour
        self._reference, self._seed = reference, seed

    @cached_property
    def _restorer(self) -> Restorer:
        return self._build()

    @cached_property
    def info(self) -> MethodInfo:
        """Facts of the generator; raises what building it raises."""
        generator, cleaner = self._restorer.generator.info, self._restorer.generator.cleaner
        remark = "" if generator.trained else "untrained"
        if generator.trained and self._reference and not generator.uses_reference:
            remark = "no reference adapter"
        return MethodInfo(
            self._name,
            self._family,
            self._summary,
            uses_reference=self._reference,
            licence=generator.licence,
            remark=remark,
            settings={
                "generator": generator.name,
                "weights": generator.weights,
                "files": _contents(generator.weights),
                "cleaner": None if cleaner is None else [cleaner.info.weights, _contents(cleaner.info.weights)],
                "device": generator.device,
                "colour": generator.colour if self._colour == "auto" else self._colour,
                "seed": self._seed,
            },
        )

    def run(self, jobs: Sequence[Job], folder: Path) -> Iterator[Outcome]:
        """Restore one picture after another; weights that are missing stop everything."""
        for job in jobs:
            try:
                with Meter() as meter:
                    pixels, saved = self._restore(job)
            except RasrError as error:
                if not isinstance(error, OutOfMemory | PictureError):
                    raise
                yield Outcome(job.name, error=str(error))
                continue
            write_picture(pixels, job.output, bits=8, overwrite=True)
            yield Outcome(job.name, meter.seconds + saved, meter.memory)

    def _restore(self, job: Job) -> tuple[Any, float]:
        """The Picture, and the seconds it did not take because another policy had the same picture cleaned."""
        from rasr.restoration import TargetSize

        picture = read_picture(job.low)
        result = self._restorer(
            picture,
            reference=[choice.path for choice in job.references] or "none",
            size=TargetSize(scale=job.scale),
            colour=self._colour,
            seed=self._seed,
        )
        return result.picture, result.timings.get("clean_saved", 0.0)


def _contents(weights: str) -> dict[str, str]:
    """Hashes of the weight files a generator's description names: retrained weights are not taken for the old ones."""
    return {part: file_hash(Path(part)) for part in weights.split(" + ") if Path(part).is_file()}
