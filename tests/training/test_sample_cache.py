"""Views made once: what the cache holds, that it goes on where it stopped, and that samples cut from it correspond."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rasr.files import cache_dir
from rasr.generator import GenerationSettings, load_generator
from rasr.training import sample_cache
from rasr.training.batch import collate
from rasr.training.config import TrainingConfig
from rasr.training.data import TrainingData
from rasr.training.rng import epoch_order
from rasr.training.sample_cache import MakingStopped, ViewMaker
from tests.training.standin import tiny_config


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASR_HOME", str(tmp_path / "home"))


def pooled(photos: Path, **changes: Any) -> TrainingConfig:
    return tiny_config(photos, **{"data__pool": 10, "data__pool_side": 48} | changes)


def material(config: TrainingConfig) -> TrainingData:
    return TrainingData.prepare(config, None, lambda _line: None)


def test_a_view_is_the_photo_degraded_at_its_place(photos: Path) -> None:
    maker = material(pooled(photos)).maker
    assert maker.cache is not None
    views = [maker.cache.view(n) for n in range(10)]
    assert {view.position for view in views} == set(range(5)), "photos take turns"
    likeness = []
    for view in views:
        hr = view.box.cut(np.asarray(maker.decoded.read(maker.photos[view.position])))
        small = hr.reshape(12, 4, 12, 4, 3).mean((1, 3))
        likeness.append(np.corrcoef(small.ravel(), view.lq.astype(float).ravel())[0, 1])
        assert view.base is None
    assert np.median(likeness) > 0.8, "whatever the degradation did"
    assert min(likeness) > 0.3


def test_samples_from_a_pool_correspond_and_repeat(photos: Path) -> None:
    maker = material(pooled(photos)).maker
    samples = [maker[n] for n in range(40)]
    again = material(pooled(photos)).maker
    assert all(np.array_equal(again[n].lq, samples[n].lq) for n in (3, 17, 39))
    assert len({sample.lq.tobytes() for sample in samples}) > 30, "new parts and turns of the same ten views"
    likeness = []
    for sample in samples:
        assert sample.hr.shape == (32, 32, 3)
        assert sample.lq.shape == (8, 8, 3)
        small = sample.hr.reshape(8, 4, 8, 4, 3).mean((1, 3))
        likeness.append(np.corrcoef(small.ravel(), sample.lq.astype(float).ravel())[0, 1])
    assert np.median(likeness) > 0.8


def test_an_interrupted_pool_goes_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = material(pooled(photos)).maker.cache
    assert whole is not None
    wanted = [whole.view(n).lq for n in range(10)]
    for file in whole.folder.iterdir():
        file.unlink()
    calls: list[int] = []
    degraded = sample_cache._degraded

    def stops(number: int, *rest: Any) -> Any:
        calls.append(number)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return degraded(number, *rest)

    monkeypatch.setattr(sample_cache, "_degraded", stops)
    with pytest.raises(KeyboardInterrupt):
        material(pooled(photos))
    pool = material(pooled(photos)).maker.cache
    assert pool is not None
    order = epoch_order(0, 0, 10).tolist()
    assert calls == [*order, *order[8:]], "the first eight were kept"
    assert all(np.array_equal(pool.view(n).lq, wanted[n]) for n in range(10))


@pytest.mark.parametrize("cleaner", ["realesrgan", "mini"])
def test_the_cleaner_of_a_pool_is_the_one_of_restoring(photos: Path, cleaner: str) -> None:
    maker = material(pooled(photos, model__cleaner=cleaner, data__pool=3)).maker
    assert maker.cache is not None
    generator = load_generator(cleaner, device="cpu")
    for n in range(3):
        view = maker.cache.view(n)
        lq = view.lq.astype(np.float32) / 255
        restored = generator.generate(lq[None], None, generator.prepare(lq, (), GenerationSettings()))[0]
        assert view.base is not None
        assert np.abs(np.rint(restored * 255) - view.base).max() <= 1
    sample = maker[0]
    assert sample.base is not None
    assert sample.base.shape == sample.hr.shape


def test_a_pool_embeds_its_views_once(photos: Path) -> None:
    class Encoder:
        name = "means"
        calls = 0

        def preprocess(self, pixels: Any) -> Any:
            return pixels

        def embed(self, batch: Any) -> Any:
            Encoder.calls += 1
            return batch.mean((1, 2))

    for _ in range(2):
        maker = TrainingData.prepare(pooled(photos), Encoder(), lambda _line: None).maker  # type: ignore[arg-type]
        assert maker.cache is not None
        view = maker.cache.view(4)
        assert view.embedding is not None
        assert np.allclose(view.embedding, view.lq.mean((0, 1)) / 255, atol=1e-6)
        batch = collate([maker[0], maker[1]])
        assert batch.embedding is not None
        assert batch.embedding.shape == (2, 3)
    assert Encoder.calls == 1 + 2 + 1, "the width, two batches, and only the width again"


def test_a_pool_must_hold_the_crop(photos: Path) -> None:
    with pytest.raises(ValueError, match="at least the crop"):
        tiny_config(photos, data__pool=4, data__pool_side=16)
    with pytest.raises(ValueError, match="exclude each other"):
        tiny_config(photos, data__pool=4, data__pool_side=48, data__distinct=2)


def test_the_folder_is_in_the_cache(photos: Path) -> None:
    pool = material(pooled(photos)).maker.cache
    assert pool is not None
    assert pool.folder.parent == cache_dir("training")
    assert torch.from_numpy(pool.view(0).lq.copy()).dtype == torch.uint8


def lazy(config: TrainingConfig, log: list[str] | None = None) -> tuple[TrainingData, ViewMaker]:
    data = TrainingData.prepare(config, None, (log if log is not None else []).append, lazily=True)
    assert data.views is not None
    return data, data.views


def test_views_are_made_as_samples_ask_for_them(photos: Path) -> None:
    config = pooled(photos, data__pool=40)
    data, views = lazy(config)
    order = epoch_order(config.seed, 0, 40).tolist()
    views.ensure(3)
    made = [number for number in range(40) if views.cache.view(number).lq.any()]
    assert sorted(made) == sorted(order[:8]), "one batch, in the order of the first epoch"
    first = [data.maker[n] for n in range(8)]
    views.ensure(10**9)
    whole = material(pooled(photos, data__pool=40, data__cache_gb=0)).maker
    assert all(np.array_equal(one.lq, whole[n].lq) for n, one in enumerate(first))


def test_what_is_in_a_view_does_not_depend_on_when_it_was_made(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for place, steps in (("one", [40]), ("many", [1, 2, 3, 17, 18, 40]), ("stopped", [5])):
        monkeypatch.setenv("RASR_HOME", str(tmp_path / place))
        for end in steps:
            views = lazy(pooled(photos, data__pool=40, model__cleaner="realesrgan"))[1]
            views.stopping = lambda place=place: place == "stopped"  # type: ignore[misc]
            with pytest.raises(MakingStopped) if place == "stopped" else nullcontext():
                views.ensure(end)
        while place == "stopped" and views._views.made < 40:
            with pytest.raises(MakingStopped):
                views.ensure(40)
        found.append([views.cache.view(number) for number in range(40)])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert (one.position, one.box) == (two.position, two.box)
            assert np.array_equal(one.lq, two.lq)
            assert one.base is not None
            assert two.base is not None
            assert np.array_equal(one.base, two.base)


@pytest.mark.parametrize("torn", [b"", b"1", b"9" * 5000, b"\xff", b"24\n"])
@pytest.mark.parametrize("array", [None, b"", b"\x93NUMPY"])
def test_a_torn_count_or_array_is_made_again(photos: Path, torn: bytes, array: bytes | None) -> None:
    config = pooled(photos, data__pool=24)
    views = lazy(config)[1]
    views.ensure(16)
    wanted = [views.cache.view(number).lq.copy() for number in epoch_order(config.seed, 0, 24)[:16]]
    (views.cache.folder / "made-in-order").write_bytes(torn)
    if array is not None:
        (views.cache.folder / "lq.npy").write_bytes(array)
    views = lazy(config)[1]
    views.ensure(24)
    numbers = epoch_order(config.seed, 0, 24)[:16]
    assert all(np.array_equal(views.cache.view(n).lq, lq) for n, lq in zip(numbers, wanted, strict=True))


def test_how_long_it_takes_is_said_after_the_first_batch(photos: Path) -> None:
    said: list[str] = []
    views = lazy(pooled(photos, data__pool=40), said)[1]
    views.ensure(1)
    assert any(line.startswith("pool: 40 views of 48 px, 0 of them made before, kept in") for line in said)
    assert re.fullmatch(r"pool: 8 of 40 views, \d+\.\d\d s each, about \d+ (s|min) of making left", said[-1])
    views.ensure(40)
    assert said[-1] == "pool: 40 of 40 views"
    assert sum("making left" in line for line in said) == 1, "not more often than three times a minute"


def test_a_pool_of_an_earlier_version_is_still_good(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = material(pooled(photos)).maker.cache
    assert pool is not None
    (pool.folder / "made-in-order").unlink()
    (pool.folder / "made").write_text("10")
    monkeypatch.setattr(sample_cache, "_degraded", None)
    assert material(pooled(photos)).maker.cache == pool
