"""Inputs are made once, the same everywhere, and refused when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rasr.errors import BenchmarkError
from rasr.evaluation import InputSettings, load_benchmark
from rasr.evaluation.inputs import prepare_inputs
from rasr.images import read_header
from tests.evaluation.conftest import photo


def test_inputs_are_reproducible_and_kept(photos: Path, tmp_path: Path) -> None:
    benchmark, settings = load_benchmark(photos), InputSettings(crop=96, seed=3)
    first = prepare_inputs(benchmark, tmp_path / "a", settings)
    again = prepare_inputs(benchmark, tmp_path / "b", settings)
    assert [(i.name, i.low_hash, i.truth_hash) for i in first] == [(i.name, i.low_hash, i.truth_hash) for i in again]
    assert {(i.width, i.height, i.scale) for i in first} == {(96, 96, 4)}
    assert read_header(first[0].low).width == read_header(first[0].low).height == 24
    stamps = {i.low: i.low.stat().st_mtime_ns for i in first}
    prepare_inputs(benchmark, tmp_path / "a", settings)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_damaged_or_outdated_input_is_made_again(photos: Path, tmp_path: Path) -> None:
    benchmark, settings = load_benchmark(photos), InputSettings(crop=96)
    first = prepare_inputs(benchmark, tmp_path, settings)
    first[2].low.write_bytes(b"torn")
    assert prepare_inputs(benchmark, tmp_path, settings) == first
    other = prepare_inputs(benchmark, tmp_path, InputSettings(crop=96, seed=1))
    assert [i.truth_hash for i in other] == [i.truth_hash for i in first]
    assert all(a.low_hash != b.low_hash for a, b in zip(other, first, strict=True))


def test_the_crop_is_the_centre(tmp_path: Path) -> None:
    picture = photo("chelsea.png", (0, 0, 301, 200))
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "a.png")
    made = prepare_inputs(load_benchmark(tmp_path / "in"), tmp_path / "out", InputSettings(crop=96))
    assert Image.open(made[0].truth).tobytes() == picture.crop((102, 52, 198, 148)).tobytes()


def test_pictures_too_small_for_the_crop_are_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"p0\.png has 128×128 pixels.*--crop"):
        prepare_inputs(load_benchmark(photos), tmp_path, InputSettings(crop=512))


def test_ready_made_inputs_must_divide_their_truth(tmp_path: Path) -> None:
    for folder, size in (("hr", (64, 64)), ("lq", (16, 16))):
        (tmp_path / folder).mkdir()
        photo("coffee.png", (0, 0, *size)).save(tmp_path / folder / "a.png")
    made = prepare_inputs(load_benchmark(tmp_path), tmp_path / "out", InputSettings())
    assert made[0].scale == 4
    photo("coffee.png", (0, 0, 17, 16)).save(tmp_path / "lq" / "a.png")
    with pytest.raises(BenchmarkError, match="no whole multiple"):
        prepare_inputs(load_benchmark(tmp_path), tmp_path / "out", InputSettings())


def test_unreadable_pictures_are_named(photos: Path, tmp_path: Path) -> None:
    next(photos.rglob("p4.png")).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(BenchmarkError, match="p4"):
        prepare_inputs(load_benchmark(photos), tmp_path, InputSettings(crop=96))
