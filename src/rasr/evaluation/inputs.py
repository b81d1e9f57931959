"""Inputs of an evaluation: 8-bit PNG pairs of exactly matching size, from a benchmark."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rasr.errors import BenchmarkError, PictureError
from rasr.evaluation.benchmark import Benchmark, BenchmarkSample
from rasr.evaluation.settings import InputSettings
from rasr.files import json_text, read_object, sha256_file, write_bytes
from rasr.images import FloatImage, Picture, read_picture, write_picture
from rasr.progress import Progress

RECORD = {"hr_sha256": str, "lq_sha256": str, "scale": int, "width": int, "height": int}
"""Of a record of ``manifest.json``, what inputs are made from."""


@dataclass(frozen=True, slots=True)
class TestInput:
    """One prepared test picture."""

    __test__ = False  # pytest: not a test class

    name: str
    category: str
    source: Path
    """The original file of the ground truth, uncropped."""
    truth: Path
    low: Path
    truth_hash: str
    low_hash: str
    """SHA-256 of the two PNG files."""
    scale: int
    width: int
    height: int
    """Size of the ground truth, which every output must have."""
    paired: tuple[Path, ...] = ()


def prepare_inputs(
    benchmark: Benchmark, out: Path, settings: InputSettings, progress: Progress | None = None
) -> list[TestInput]:
    """Write ``out/hr/NAME.png``, ``out/lq/NAME.png``, and the recipes in ``out/manifest.json``.

    What is there from an earlier run with the same settings and the same source files is kept. Raises BenchmarkError
    naming the picture that is unreadable, too small for the crop, or whose LQ does not divide its HR.
    """
    for folder in ("hr", "lq"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    manifest = out / "manifest.json"
    known = read_object(manifest, "manifest of inputs", BenchmarkError) if manifest.is_file() else {}
    inputs, records = [], {}
    for done, sample in enumerate(benchmark.samples):
        record = _current(known.get(sample.name), sample, out, settings) or _make(sample, out, settings)
        records[sample.name] = record
        inputs.append(_input(sample, out, record))
        if progress:
            progress("inputs", done + 1, len(benchmark.samples))
    write_bytes(json_text(records, indent=1).encode(), manifest, overwrite=True)
    return inputs


def _identity(sample: BenchmarkSample, settings: InputSettings) -> dict[str, Any]:
    low = sha256_file(sample.low) if sample.low else None
    made = asdict(settings) if sample.low is None else {"crop": settings.crop}
    return {"truth": sha256_file(sample.truth), "low": low, **made}


def _current(record: Any, sample: BenchmarkSample, out: Path, settings: InputSettings) -> dict[str, Any] | None:
    if not isinstance(record, dict) or record.get("made_from") != _identity(sample, settings):
        return None
    if not all(isinstance(record.get(key), kind) for key, kind in RECORD.items()):
        return None
    for folder in ("hr", "lq"):
        path = out / folder / f"{sample.name}.png"
        if not path.is_file() or sha256_file(path) != record[f"{folder}_sha256"]:
            return None
    return record


def _make(sample: BenchmarkSample, out: Path, settings: InputSettings) -> dict[str, Any]:
    from rasr.degrade import crop_to_multiple, degrade  # scipy is for those who make inputs

    try:
        truth = read_picture(sample.truth).opaque()
        if sample.low is not None:
            if settings.crop:
                raise BenchmarkError("--crop applies to benchmarks whose inputs are made here; this one has its own.")
            low, recipe = read_picture(sample.low).opaque(), None
            _scale_of(sample, truth, low)
        else:
            truth = crop_to_multiple(_centre(sample, truth, settings.crop), settings.scale)
            low, recipe = degrade(
                truth, preset=settings.degradation, scale=settings.scale, seed=settings.seed, name=sample.name
            )
    except PictureError as error:
        raise BenchmarkError(f"Test picture '{sample.name}': {error}") from error
    record: dict[str, Any] = {"source": str(sample.truth), "made_from": _identity(sample, settings), "recipe": recipe}
    for folder, pixels in (("hr", truth), ("lq", low)):
        path = out / folder / f"{sample.name}.png"
        write_picture(Picture(pixels), path, bits=8, overwrite=True)
        record[f"{folder}_sha256"] = sha256_file(path)
    record |= {"width": truth.shape[1], "height": truth.shape[0], "scale": _scale_of(sample, truth, low)}
    return record


def _input(sample: BenchmarkSample, out: Path, record: dict[str, Any]) -> TestInput:
    truth, low = (out / folder / f"{sample.name}.png" for folder in ("hr", "lq"))
    hashes = record["hr_sha256"], record["lq_sha256"]
    size = record["scale"], record["width"], record["height"]
    return TestInput(sample.name, sample.category, sample.truth, truth, low, *hashes, *size, sample.paired)


def _centre(sample: BenchmarkSample, pixels: FloatImage, side: int | None) -> FloatImage:
    if side is None:
        return pixels
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise BenchmarkError(
            f"{sample.truth} has {width}×{height} pixels, fewer than the {side}×{side} crop. Use a smaller --crop."
        )
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _scale_of(sample: BenchmarkSample, truth: FloatImage, low: FloatImage) -> int:
    height, width = low.shape[:2]
    scale: int = truth.shape[1] // width
    if truth.shape[:2] != (height * scale, width * scale):
        raise BenchmarkError(
            f"'{sample.name}': the ground truth has {truth.shape[1]}×{truth.shape[0]} pixels, which is no whole "
            f"multiple of the input's {width}×{height}."
        )
    return scale
