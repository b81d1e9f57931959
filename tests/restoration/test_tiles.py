"""Tiles: they cover everything, their weights sum to one, and tiling does not show, also when memory runs out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rasr.restoration.tiles as module
from rasr.errors import OutOfMemory, UsageError
from rasr.generator import Batch, GenerationSettings, Unconditioned
from rasr.images import FloatImage, resize
from rasr.restoration.tiles import choose_tile, generate_tiled, plan_axis, resample_region


@settings(max_examples=1000, deadline=None)
@given(
    size=st.integers(1, 2048),
    target=st.integers(1, 8192),
    tile=st.integers(1, 2100),
    overlap=st.integers(0, 600),
    scale=st.sampled_from([1, 2, 4]),
    multiple=st.sampled_from([1, 8, 64]),
    fixed=st.booleans(),
)
def test_every_canvas_pixel_gets_weights_that_sum_to_one(
    size: int, target: int, tile: int, overlap: int, scale: int, multiple: int, fixed: bool
) -> None:
    strips = plan_axis(size, target, tile, overlap, scale=scale, multiple=multiple, fixed=fixed)
    total = np.zeros(target, np.float32)
    for strip in strips:
        assert strip.weights.min() >= 0
        assert strip.start >= 0
        assert strip.start + strip.length <= size
        assert strip.length <= strip.padded
        assert strip.padded % multiple == 0
        total[strip.first : strip.stop] += strip.weights
        # Each canvas pixel lies inside the tile it is taken from.
        centres = (np.arange(strip.first, strip.stop) + 0.5) * size / target
        assert centres.min() >= strip.start
        assert centres.max() <= strip.start + strip.length
    assert np.abs(total - 1).max() <= 1e-6
    assert len({strip.padded for strip in strips}) == 1, "one size of tile"


def test_tiles_are_evenly_spaced_and_keep_their_distance_from_the_edge() -> None:
    strips = plan_axis(1000, 4000, 256, 32, scale=4)
    gaps = np.diff([strip.start for strip in strips])
    assert gaps.max() - gaps.min() <= 1
    for left, right in pairwise(strips):
        # A quarter of the overlap at each end of a tile is thrown away.
        assert left.stop <= (left.start + left.length - 8) * 4
        assert right.first >= (right.start + 8) * 4


@given(
    size=st.integers(33, 3000),
    tile=st.integers(32, 600),
    overlap=st.integers(0, 64),
    multiple=st.sampled_from([1, 8, 64]),
)
def test_tiles_are_no_larger_than_their_number_asks_for(size: int, tile: int, overlap: int, multiple: int) -> None:
    strips = plan_axis(size, 4 * size, tile, overlap, scale=4, multiple=multiple)
    fixed = plan_axis(size, 4 * size, tile, overlap, scale=4, multiple=multiple, fixed=True)
    count, side = len(strips), strips[0].padded
    shared = min(overlap, fixed[0].padded // 2)
    assert count == len(fixed), "never more tiles"
    assert side <= fixed[0].padded
    if count > 1:
        assert fixed[0].padded == -(-tile // multiple) * multiple
        assert count * (side - multiple) < size + (count - 1) * shared, "one size less, and they would share too little"
        for left, right in pairwise(strips):
            assert left.start + left.length - right.start >= shared


def test_a_picture_twice_the_tile_is_not_restored_twice() -> None:
    strips = plan_axis(256, 1024, 128, 16, scale=4)
    assert [(strip.start, strip.length) for strip in strips] == [(0, 96), (80, 96), (160, 96)]


def test_a_small_picture_is_one_tile_padded_to_what_the_generator_takes() -> None:
    (strip,) = plan_axis(5, 20, 128, 16, scale=4, multiple=8, minimum=32)
    assert (strip.length, strip.padded, strip.first, strip.stop) == (5, 32, 0, 20)
    (strip,) = plan_axis(37, 37, 128, 16, multiple=8)
    assert strip.padded == 40


def test_overlap_grows_where_resampling_needs_it() -> None:
    # Four times larger and then reduced to 1.3: the filter reaches 2 / 1.3 pixels of the grid.
    for left, right in pairwise(plan_axis(500, 650, 64, 0, scale=4)):
        assert left.start + left.length - right.start >= 2 * 2
    assert plan_axis(500, 2000, 64, 0, scale=4)[1].start == round(436 / 7)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_resampled_rectangle_equals_that_part_of_the_whole(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    size = data.draw(st.tuples(st.integers(1, 150), st.integers(1, 150)))
    top, left = data.draw(st.integers(0, size[1] - 1)), data.draw(st.integers(0, size[0] - 1))
    rows, columns = data.draw(st.integers(1, size[1] - top)), data.draw(st.integers(1, size[0] - left))
    pixels = np.random.default_rng(height * width).random((height, width, 3), np.float32)
    part = resample_region(pixels, size, top, left, rows, columns)
    assert part.shape == (rows, columns, 3)
    assert np.abs(part - resize(pixels, size)[top : top + rows, left : left + columns]).max() <= 1e-5


def test_a_rectangle_at_the_same_size_is_not_copied(photo: FloatImage) -> None:
    part = resample_region(photo, (451, 300), 10, 20, 30, 40)
    assert np.shares_memory(part, photo)
    assert np.array_equal(part, photo[10:40, 20:60])


@pytest.mark.parametrize("overlap", [0, 1, 7, 64, 10_000])
def test_absurd_overlaps_still_end(overlap: int) -> None:
    assert len(plan_axis(300, 300, 32, overlap)) <= 20


PLAIN = Unconditioned(GenerationSettings())
Make = Callable[..., Any]


def sides() -> st.SearchStrategy[tuple[int, int]]:
    """Heights and widths up to 2048, of at most 60 000 pixels together."""
    return st.integers(1, 2048).flatmap(
        lambda height: st.tuples(st.just(height), st.integers(1, max(1, min(2048, 60_000 // height))))
    )


@settings(max_examples=1000, deadline=None)
@given(size=sides(), divisor=st.integers(1, 12), overlap=st.integers(0, 200), multiple=st.sampled_from([1, 8]))
def test_split_and_blend_of_an_identity_generator_is_exact(
    local: Make, size: tuple[int, int], divisor: int, overlap: int, multiple: int
) -> None:
    height, width = size
    levels = np.random.default_rng(height * 2048 + width).integers(0, 256, (height, width, 3), np.uint8)
    lq = levels.astype(np.float32) / 255
    generator = local(overlap=overlap, multiple=multiple)
    tile = -(-max(size) // divisor) + 1
    canvas, used = generate_tiled(generator, PLAIN, lq, (width, height), tile=tile)
    assert used == tile
    assert np.abs(canvas - lq).max() <= 1e-5
    assert np.array_equal(np.rint(canvas * 255).astype(np.uint8), levels)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    target=st.tuples(st.integers(90, 300), st.integers(90, 300)),
    tile=st.integers(24, 64),
    reach=st.integers(0, 3),
)
def test_an_enlarging_generator_reaches_any_size_as_if_it_had_seen_the_whole(
    local: Make, whole: Make, size: tuple[int, int], target: tuple[int, int], tile: int, reach: int
) -> None:
    lq = np.random.default_rng(tile).random((*size, 3), np.float32)
    generator = local(scale=4, grid="input", reach=reach, overlap=12, minimum=1)
    canvas, _ = generate_tiled(generator, PLAIN, lq, target, tile=tile)
    difference = np.abs(canvas - whole(local(scale=4, grid="input", reach=reach), lq, target))
    assert difference.max() <= 1e-5


def test_four_times_the_input_is_placed_without_resampling(local: Make, photo: FloatImage) -> None:
    lq = photo[:100, :130]
    canvas, _ = generate_tiled(local(scale=4, grid="input"), PLAIN, lq, (520, 400), tile=48)
    assert np.abs(canvas - lq.repeat(4, 0).repeat(4, 1)).max() <= 1e-6


@pytest.mark.parametrize("grid", ["input", "output"])
def test_a_network_that_sees_further_than_the_overlap_stays_within_one_level(
    local: Make, whole: Make, photo: FloatImage, grid: str
) -> None:
    make = {"grid": grid, "scale": 4 if grid == "input" else 1, "reach": 12}
    canvas, _ = generate_tiled(local(**make), PLAIN, photo[:150, :200], (500, 375), tile=64)
    assert np.abs(canvas - whole(local(**make), photo[:150, :200], (500, 375))).mean() <= 1 / 255


def test_even_tiles_of_different_brightness_leave_no_seam(local: Make) -> None:
    """Each tile is answered 10 levels brighter or darker than its neighbour, on noise."""
    noise = (0.5 + 0.05 * np.random.default_rng(0).standard_normal((512, 512, 3))).astype(np.float32).clip(0, 1)
    generator = local(overlap=64)
    plain = generator.generate

    def flicker(tiles: Batch, base: Batch | None, conditioning: Any) -> Batch:
        answer: Batch = plain(tiles, base, conditioning)
        return answer + np.float32(10 / 255) * (1 if len(generator.shapes) % 2 else -1)

    generator.generate = flicker
    canvas, _ = generate_tiled(generator, PLAIN, noise, (512, 512), tile=128)
    gradient = np.abs(np.diff(canvas, axis=1)).mean(axis=(0, 2))
    starts = [strip.start for strip in module.plan_axis(512, 512, 128, 64)]
    borders = np.zeros(511, bool)
    for start in starts[1:]:
        borders[start : start + 64] = True
        assert gradient[start + 14 : start + 18].mean() / np.median(gradient) <= 1.05
    assert gradient[borders].mean() / gradient[~borders].mean() <= 1.05


def test_neither_the_enlargement_nor_the_networks_canvas_exist_as_a_whole(
    local: Make, traced_peak: Callable[[Callable[[], object]], int]
) -> None:
    lq = np.zeros((600, 600, 3), np.float32)
    for generator, tile in ((local(scale=4, grid="input"), 64), (local(grid="output"), 256)):
        run = partial(generate_tiled, generator, PLAIN, lq, (900, 900), tile=tile)
        peak = traced_peak(run)
        canvas = 900 * 900 * 3 * 4
        assert peak < 2 * canvas, "the enlargement to 2400 × 2400 would be seven canvases"


def test_the_base_is_cut_like_the_tiles(local: Make, photo: FloatImage) -> None:
    generator = local(multiple=16)
    canvas, _ = generate_tiled(generator, PLAIN, np.zeros((30, 40, 3), np.float32), (451, 300), base=photo, tile=64)
    assert np.abs(canvas - photo).max() <= 1e-5


def test_progress_grows_to_one(local: Make, photo: FloatImage) -> None:
    heard: list[tuple[str, float, float]] = []
    generator = local(fail=lambda call, _: MemoryError() if call == 2 else None)
    generate_tiled(
        generator, PLAIN, photo, (451, 300), tile=128, progress=lambda *what: heard.append(what), stage="clean"
    )
    assert heard == sorted(heard)
    assert heard[-1] == ("clean", 1.0, 1.0)
    assert {(stage, total) for stage, _, total in heard} == {("clean", 1.0)}
    assert len(heard) > 12


@settings(max_examples=18, deadline=None)
@given(
    failing=st.sampled_from([{0}, {3}, {0, 1}, {0, 7}, {3, 4}, {2, 10}]),
    grid=st.sampled_from(["input", "output"]),
    error=st.sampled_from(
        [MemoryError(), RuntimeError("CUDA out of memory. Tried"), RuntimeError("[enforce fail] can't allocate memory")]
    ),
)
def test_running_out_of_memory_at_any_tile_gives_the_same_picture(
    local: Make, whole: Make, failing: set[int], grid: str, error: Exception
) -> None:
    lq = np.random.default_rng(1).random((150, 200, 3), np.float32)
    make = {"grid": grid, "scale": 4 if grid == "input" else 1, "reach": 3, "overlap": 14, "minimum": 32}
    generator = local(**make, fail=lambda call, _: error if call in failing else None)
    canvas, used = generate_tiled(generator, PLAIN, lq, (240, 180), tile=128)
    assert used < 128
    assert np.abs(canvas - whole(local(**make), lq, (240, 180))).max() <= 1e-5


def test_only_the_failed_tile_is_redone_and_later_ones_start_with_what_fits(local: Make, photo: FloatImage) -> None:
    generator = local(fail=lambda _, tiles: MemoryError() if tiles.shape[1] > 64 else None)
    canvas, used = generate_tiled(generator, PLAIN, photo, (451, 300), tile=128)
    assert used == 62, "half of the longer side, which was 125"
    assert np.abs(canvas - photo).max() <= 1e-5
    assert [max(shape[1:3]) > 62 for shape in generator.shapes].count(True) == 1, "what failed is not tried again"
    late = local(fail=lambda call, _: MemoryError() if call == 5 else None)
    generate_tiled(late, PLAIN, photo, (451, 300), tile=128)
    assert {shape[1:3] for shape in late.shapes[:6]} == {(111, 125)}
    assert max(max(shape[1:3]) for shape in late.shapes[6:]) <= 62


def test_the_smallest_tile_that_does_not_fit_is_an_error_with_the_numbers(
    local: Make, photo: FloatImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: 7 * 2**20)
    generator = local(minimum=32, bytes_per_pixel=4096, fail=lambda *_: MemoryError())
    with pytest.raises(OutOfMemory, match=r"32×32 pixels needs about 4 MiB, 7 MiB are free, and local takes no tile"):
        generate_tiled(generator, PLAIN, photo, (451, 300), tile=128)
    assert [shape[1:3] for shape in generator.shapes] == [(111, 125), (48, 53), (32, 32)]


def test_other_errors_are_not_taken_for_memory(local: Make, photo: FloatImage) -> None:
    generator = local(fail=lambda *_: RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        generate_tiled(generator, PLAIN, photo, (451, 300), tile=128)
    assert len(generator.shapes) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_tiny_pictures_are_padded_and_cut_back(local: Make, size: tuple[int, int]) -> None:
    lq = np.random.default_rng(0).random((size[1], size[0], 3), np.float32)
    generator = local(scale=4, grid="input", minimum=32)
    canvas, _ = generate_tiled(generator, PLAIN, lq, (size[0] * 4, size[1] * 4), tile=64)
    assert generator.shapes[0][1:3] == tuple(max(32, side + 2 * 32) for side in reversed(size)), "framed on all sides"
    assert np.array_equal(canvas, lq.repeat(4, 0).repeat(4, 1))


REAL = """
import resource, sys
import numpy as np
from rasr.generator import GenerationSettings, load_generator
from rasr.memory import free_memory
from rasr.restoration.tiles import generate_tiled
generator = load_generator("realesrgan", device="cpu", threads=1)
lq = np.random.default_rng(0).random((64, 80, 3), np.float32)
conditioning = generator.prepare(lq, [], GenerationSettings())
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[1]) * 2**20, resource.RLIM_INFINITY))
assert free_memory() <= int(sys.argv[1]) * 2**20
canvas, used = generate_tiled(generator, conditioning, lq, (320, 256), tile=128)
print(used, np.isfinite(canvas).all(), round(float(canvas.mean()), 2))
"""


def test_the_real_network_carries_on_in_smaller_tiles_when_the_system_refuses_memory() -> None:
    def run(megabytes: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", REAL, str(megabytes)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    plenty, little, none = run(4000), run(170), run(40)
    assert plenty.stdout.split()[:2] == ["128", "True"]
    assert little.stdout.split()[:1] == ["40"], little.stderr
    assert little.stdout.split()[1] == "True"
    assert float(little.stdout.split()[2]) == pytest.approx(float(plenty.stdout.split()[2]), abs=0.03)
    assert none.returncode != 0
    assert "OutOfMemory" in none.stderr
    assert "takes no tile below 32" in none.stderr


Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (2**40, 64),  # never more than the default, so that the same picture comes out on larger machines
        (2 * 40 * 40 * 1000, 40),
        (2 * 47 * 47 * 1000, 40),  # a multiple of 8
        (1, 8),  # the minimum is at least tried
    ],
)
def test_auto_fits_half_of_the_free_memory(
    local: Make, free: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: free)
    assert choose_tile("auto", local(multiple=8, bytes_per_pixel=1000).info) == expected


def test_auto_is_the_default_where_the_cost_is_unknown(local: Make) -> None:
    assert choose_tile("auto", local().info) == 64


def test_a_number_is_taken_as_it_is_unless_too_small(local: Make) -> None:
    assert choose_tile(500, local().info) == 500
    with pytest.raises(UsageError, match="local needs tiles of at least 8"):
        choose_tile(7, local().info)
