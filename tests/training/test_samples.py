"""Samples: number n is always the same, and batches do not depend on who makes them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from rasr.errors import PictureError
from rasr.training.batch import collate
from rasr.training.config import TrainingConfig
from rasr.training.data import TrainingData
from rasr.training.photos import DecodedPhotos
from rasr.training.samples import SampleMaker, batch_loader
from tests.training.standin import maker_for, tiny_config


def same(a: Any, b: Any) -> bool:
    pairs = [(a.lq, b.lq), (a.hr, b.hr)] + ([(a.reference, b.reference)] if a.reference is not None else [])
    return a.kind == b.kind and a.name == b.name and all(np.array_equal(x, y) for x, y in pairs)


def test_sample_n_is_always_the_same(photos: Path) -> None:
    config = tiny_config(photos)
    first = [maker_for(config)[n] for n in range(12)]
    second = maker_for(config)
    assert all(same(second[n], first[n]) for n in reversed(range(12)))
    assert len({sample.lq.tobytes() for sample in first}) == 12
    other = maker_for(tiny_config(photos, seed=1))
    assert not same(other[0], first[0])
    assert first[0].lq.shape == (8, 8, 3)
    assert first[0].hr.shape == (32, 32, 3)


def test_every_photo_appears_once_an_epoch(photos: Path) -> None:
    maker = maker_for(tiny_config(photos))
    epochs = [[maker[5 * epoch + place].name for place in range(5)] for epoch in range(4)]
    assert all(len(set(epoch)) == 5 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_distinct_samples_repeat(photos: Path) -> None:
    maker = maker_for(tiny_config(photos, data__distinct=3))
    assert same(maker[1], maker[4])
    assert not same(maker[1], maker[2])


def test_the_mix_is_kept(photos: Path) -> None:
    mix = {"other_crop": 0.3, "warped": 0.2, "random": 0.35, "null": 0.15}
    config = tiny_config(photos, references__phases=[{"mix": mix}], data__crop=16)
    maker = maker_for(config)
    kinds = Counter(maker[n].kind for n in range(600))
    assert set(kinds) == set(mix)
    assert stats.chisquare([kinds[kind] for kind in mix], [600 * share for share in mix.values()]).pvalue > 1e-3


def test_the_curriculum_advances_with_the_steps(photos: Path) -> None:
    phases = [{"until": 2, "mix": {"warped": 1.0}}, {"mix": {"random": 1.0}}]
    maker = maker_for(tiny_config(photos, references__phases=phases, loop__batch=4))
    assert [maker[n].kind for n in (0, 7, 8, 50)] == ["warped", "warped", "random", "random"]


@pytest.mark.parametrize("pool", [0, 6])
def test_registered_references_lie_on_the_target_however_it_is_turned(photos: Path, pool: int) -> None:
    mix = {"warped": 0.7, "other_crop": 0.3}
    config = tiny_config(
        photos, references__phases=[{"mix": mix}], data__crop=64, data__pool=pool, data__pool_side=96,
        model__reference={"registered": True},
    )  # fmt: skip
    assert config.registered
    maker = TrainingData.prepare(config, None, lambda _line: None).maker
    samples = [maker[n] for n in range(24)]
    likeness = []
    for sample in samples:
        assert (sample.confidence is not None) == (sample.kind == "warped")
        if sample.confidence is not None and sample.reference is not None:
            planes = [one.mean(2) for one in (sample.reference, sample.hr)]
            where = sample.confidence[..., 0] > 100
            likeness.append(np.corrcoef(*(plane[where] for plane in planes))[0, 1])
    assert len(likeness) > 10
    assert np.median(likeness) > 0.8
    batch = collate(samples[:8])
    assert batch.confidence is not None
    assert batch.confidence.shape == (8, 1, 64, 64)
    kinds = [kind == "warped" for kind in batch.kinds]
    assert [bool((one < 1).any()) for one in batch.confidence] == kinds, "a reference as it is counts everywhere"
    assert batch.without_reference().confidence is None


def test_random_references_never_show_the_target(tmp_path: Path) -> None:
    """Photos of one grey level each: the reference's level must differ from the target's."""
    for level in (40, 90, 200):
        Image.fromarray(np.full((40, 40, 3), level, np.uint8)).save(tmp_path / f"{level}.png")
    maker = maker_for(tiny_config(tmp_path, references__phases=[{"mix": {"random": 1.0}}]))
    for n in range(40):
        sample = maker[n]
        assert sample.reference is not None
        assert sample.reference[0, 0, 0] != sample.hr[0, 0, 0]


def test_an_unreadable_photo_is_named_and_replaced(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    config = tiny_config(folder)
    maker = maker_for(config)
    torn = folder / "2.png"
    torn.write_bytes(torn.read_bytes()[:2000])  # damaged after the run has begun
    samples = [maker[n] for n in range(10)]
    named = {line for sample in samples for line in sample.skipped}
    assert named
    assert all("2.png" in line for line in named)
    assert all(sample.hr.shape == (32, 32, 3) for sample in samples)
    for path in folder.glob("*.png"):
        path.write_bytes(b"")
    uncached = maker_for_cached(config, maker)
    with pytest.raises(PictureError, match="50 photos in a row"):
        uncached[0]


def maker_for_cached(config: TrainingConfig, maker: SampleMaker) -> SampleMaker:
    """The same photos without the decoded cache."""
    return SampleMaker(config, maker.photos, maker.neighbours, DecodedPhotos(gigabytes=0, folder=Path("nowhere")))


def test_batches_do_not_depend_on_workers_or_processes(photos: Path) -> None:
    def batches(process: int = 0, processes: int = 1, **changes: Any) -> list[Any]:
        maker = maker_for(tiny_config(photos, loop__batch=4, **changes))
        return list(batch_loader(maker, range(1, 4), process=process, processes=processes))

    plain = batches()
    assert [batch.indices for batch in plain] == [(4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15)]
    worked = batches(data__workers=1)
    assert all(torch.equal(a.lq, b.lq) and a.kinds == b.kinds for a, b in zip(plain, worked, strict=True))
    halves = [batches(rank, 2, loop__accumulation=2) for rank in range(2)]
    assert [batch.indices for batch in halves[1][:2]] == [(6,), (7,)]
    joined = torch.cat([half[i].lq for half in halves for i in range(2)])
    assert torch.equal(joined, plain[0].lq)


def test_a_batch_can_lose_its_references(photos: Path) -> None:
    maker = maker_for(tiny_config(photos, references__phases=[{"mix": {"warped": 1.0}}]))
    batch = collate([maker[0], maker[1]])
    assert batch.has_reference.all()
    bare = batch.without_reference()
    assert not bare.has_reference.any()
    assert not bare.reference.any()
    assert torch.equal(bare.lq, batch.lq)
    assert batch.lq.max() <= 1
