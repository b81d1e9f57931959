"""Methods inside RASR: generator presets, spandrel's model files, finished pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rasr.device import choose_device
from rasr.errors import BenchmarkError, ExtraMissing, OutOfMemory, PictureError, UsageError, WeightsCorrupt
from rasr.evaluation.method import EvalJob, EvalOutcome, MethodInfo
from rasr.files import sha256_file
from rasr.generator import (
    Batch,
    Conditioning,
    GenerationSettings,
    GeneratorInfo,
    ReferencePicture,
    TileHints,
    Unconditioned,
)
from rasr.images import FloatImage, find_pictures, read_picture, write_picture
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
        if generator.trained and self.reference and not generator.uses_reference:
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


class SpandrelGenerator:
    """A generator on the input grid around spandrel's model descriptor, in float32."""

    cleaner = None

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        if not path.is_file():
            raise UsageError(f"There is no model file {path}.")
        self._path = path
        self._device = choose_device(device, "fp32")

    @cached_property
    def _model(self) -> Any:
        try:
            from spandrel import ImageModelDescriptor, ModelLoader
        except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises RuntimeError
            raise ExtraMissing(f"Reading {self._path.name}", "spandrel") from error
        try:
            model = ModelLoader().load_from_file(self._path)
        except Exception as error:
            raise WeightsCorrupt(f"{self._path} is no model that spandrel can load: {error}") from error
        if not isinstance(model, ImageModelDescriptor) or model.input_channels != 3 or model.output_channels != 3:
            raise UsageError(f"{self._path} is not a model from one RGB picture to another.")
        return model.to(self._device.device).eval()

    @property
    def info(self) -> GeneratorInfo:
        """Description of the model in the file."""
        model = self._model
        multiple = max(1, int(getattr(model.size_requirements, "multiple_of", 1)))
        tile = TileHints(default=256, minimum=64, multiple=multiple, overlap=32, bytes_per_pixel=60_000)
        return GeneratorInfo(
            model.architecture.name,
            uses_reference=False,
            grid="input",
            scale=int(model.scale),
            tile=tile,
            weights=str(self._path),
            device=str(self._device),
        )

    def prepare(
        self, lq: FloatImage, references: Sequence[ReferencePicture], settings: GenerationSettings
    ) -> Conditioning:
        """Nothing to compute; loads the model."""
        _ = self._model
        return Unconditioned(settings)

    def generate(self, tiles: Batch, base: Batch | None, conditioning: Conditioning) -> Batch:
        """(N, H, W, 3) → (N, H·scale, W·scale, 3)."""
        import torch

        x = torch.from_numpy(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))).to(self._device.device)
        with torch.inference_mode():
            y = self._model(x).clamp(0, 1)
        return np.ascontiguousarray(y.permute(0, 2, 3, 1).float().cpu().numpy())


class OutputsMethod:
    """A folder with one picture for each test picture, of the same name."""

    def __init__(self, name: str, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"outputs:{folder}: there is no such folder.")
        self._folder = folder
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
