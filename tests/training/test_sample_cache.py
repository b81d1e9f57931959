"""Views made once: what the cache holds, that it goes on where it stopped, and that samples cut from it correspond."""

from __future__ import annotations

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
        if number == 9 and calls.count(9) == 1:
            raise KeyboardInterrupt
        return degraded(number, *rest)

    monkeypatch.setattr(sample_cache, "_degraded", stops)
    with pytest.raises(KeyboardInterrupt):
        material(pooled(photos))
    pool = material(pooled(photos)).maker.cache
    assert pool is not None
    assert calls == [*range(10), 8, 9], "the first eight were kept"
    assert all(np.array_equal(pool.view(n).lq, wanted[n]) for n in range(10))


@pytest.mark.parametrize("cleaner", ["realesrgan", "realesrgan-tuned"])
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
    assert Encoder.calls == 1


def test_references_may_be_larger_than_crops(photos: Path) -> None:
    mix = {"other_crop": 0.3, "warped": 0.3, "random": 0.3, "null": 0.1}
    config = pooled(photos, references__phases=[{"mix": mix}], references__side=64)
    maker = material(config).maker
    samples = [maker[n] for n in range(30)]
    assert {s.reference.shape for s in samples if s.reference is not None} == {(64, 64, 3)}
    batch = collate(samples)
    assert batch.reference.shape == (30, 3, 64, 64)
    assert not batch.reference[~batch.has_reference].any()


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
