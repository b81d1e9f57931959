"""Photos, caches, views and samples: found, kept, cut and repeated exactly."""

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
from skimage import data

from rasr.errors import ConfigError, PictureError
from rasr.training.batch import collate
from rasr.training.config import TrainingConfig
from rasr.training.neighbours import find_neighbours
from rasr.training.photos import DecodedPhotos, find_photos
from rasr.training.rng import generator_for
from rasr.training.samples import SampleMaker, batch_loader
from rasr.training.views import Box, warped_view, whole_view
from tests.training.standin import make_photos, tiny_config


def maker_for(config: TrainingConfig, *, neighbours: Any = None) -> SampleMaker:
    found = find_photos(config.data.photos, config.data.layout, smallest=config.data.crop)
    decoded = DecodedPhotos(gigabytes=config.data.cache_gb)
    return SampleMaker(config, found.targets, neighbours or [[] for _ in found.targets], decoded)


def same(a: Any, b: Any) -> bool:
    pairs = [(a.lq, b.lq), (a.hr, b.hr)] + ([(a.reference, b.reference)] if a.reference is not None else [])
    return a.kind == b.kind and a.name == b.name and all(np.array_equal(x, y) for x, y in pairs)


def test_layouts(tmp_path: Path) -> None:
    make_photos(tmp_path / "birds" / "owl", 2)
    make_photos(tmp_path / "fish", 1)
    found = find_photos([tmp_path], "folder", smallest=32)
    assert [photo.category for photo in found.targets] == ["birds/owl", "birds/owl", "fish"]
    assert len(found.gallery) == 3

    lsdir = tmp_path / "lsdir"
    make_photos(lsdir / "0001000", 2)
    make_photos(lsdir / "X4" / "0001000", 2)
    make_photos(lsdir / "val1" / "HR", 1)
    assert [photo.path.parent.name for photo in find_photos([lsdir], "lsdir", smallest=32).targets] == ["0001000"] * 2

    flickr = tmp_path / "flickr"
    for split in ("train", "test", "reference"):
        make_photos(flickr / "okapi" / split, 2)
    found = find_photos([flickr], "flickr30", smallest=32)
    assert {photo.path.parent.name for photo in found.targets} == {"train"}
    assert {path.parent.name for path in found.gallery} == {"reference"}
    assert {photo.category for photo in found.targets} == {"okapi"}


def test_what_cannot_serve_is_left_out_by_name(tmp_path: Path) -> None:
    make_photos(tmp_path, 2)
    Image.fromarray(data.coffee()[:31, :200]).save(tmp_path / "thin.png")
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    for _ in range(2):  # the second time from the remembered sizes
        found = find_photos([tmp_path], "folder", smallest=32)
        assert len(found.targets) == 2
        assert any("thin.png: 200x31 pixels, smaller than the 32-pixel crop" in line for line in found.left_out)
        assert any("torn.jpg" in line for line in found.left_out)
    with pytest.raises(ConfigError, match="no usable photo"):
        find_photos([tmp_path], "folder", smallest=1000)
    with pytest.raises(ConfigError, match="is not a folder"):
        find_photos([tmp_path / "nowhere"], "folder", smallest=32)


def test_decoded_photos_survive_in_the_cache(tmp_path: Path, photos: Path) -> None:
    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    photo = find_photos([copy], "folder", smallest=32).targets[0]
    with Image.open(photo.path) as picture:
        expected = np.asarray(picture)
    first = DecodedPhotos(gigabytes=1, folder=tmp_path / "cache")
    assert np.array_equal(first.read(photo), expected)
    photo.path.unlink()
    again = DecodedPhotos(gigabytes=1, folder=tmp_path / "cache")
    assert np.array_equal(again.read(photo), expected), "from the cache, since the file is gone"

    (entry,) = (tmp_path / "cache").glob("*.npy")
    entry.write_bytes(entry.read_bytes()[:200])
    with pytest.raises(PictureError):
        again.read(photo)  # the damaged entry is not believed
    assert not entry.exists()


def test_the_cache_stays_within_its_budget(tmp_path: Path, photos: Path) -> None:
    found = find_photos([photos], "folder", smallest=32).targets
    one = 140 * 140 * 3
    cache = DecodedPhotos(gigabytes=2.5 * one / 1e9, folder=tmp_path / "cache")
    for photo in found:
        cache.read(photo)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2
    none = DecodedPhotos(gigabytes=0, folder=tmp_path / "none")
    none.read(found[0])
    assert not (tmp_path / "none").exists()
    reduced = DecodedPhotos(gigabytes=1, long_side=70, folder=tmp_path / "cache2").read(found[0])
    assert reduced.shape == (70, 70, 3)


def test_views_are_cut_from_inside_the_photo() -> None:
    photo = data.astronaut()[:100, :150]
    random = np.random.default_rng(0)
    boxes = [Box.anywhere(random, photo, 64) for _ in range(300)]
    assert {min(box.left for box in boxes), min(box.top for box in boxes)} == {0}
    assert max(box.left for box in boxes) == 86
    assert max(box.top for box in boxes) == 36
    box = Box(0, 0, 32)
    assert box.elsewhere(random, photo).overlap(box) == 0
    assert np.array_equal(Box(3, 5, 10).cut(photo), photo[5:15, 3:13])
    assert whole_view(photo, 50).shape == (50, 50, 3)
    assert np.array_equal(whole_view(photo[:, :100], 100), photo[:, :100])


def test_a_warped_view_shows_the_same_place() -> None:
    """It correlates with the crop far more than another place does, yet is not the crop."""
    photo = data.astronaut()
    box = Box(180, 60, 96)
    crop = box.cut(photo).mean(2)
    random = np.random.default_rng(1)

    def likeness(view: Any) -> float:
        """Best correlation over small shifts of the centre."""
        core = view.mean(2)[16:80:2, 16:80:2].ravel()
        return max(
            np.corrcoef(core, crop[16 + dy : 80 + dy : 2, 16 + dx : 80 + dx : 2].ravel())[0, 1]
            for dy in range(-16, 17, 4)
            for dx in range(-16, 17, 4)
        )

    views = [warped_view(random, photo, box) for _ in range(12)]
    others = [box.elsewhere(random, photo).cut(photo) for _ in range(12)]
    assert all(view.shape == (96, 96, 3) for view in views)
    assert not any(np.array_equal(view, box.cut(photo)) for view in views)
    assert np.median([likeness(v) for v in views]) > np.median([likeness(o) for o in others]) + 0.2


def test_a_warped_view_at_the_edge_is_continued_by_mirroring() -> None:
    view = warped_view(np.random.default_rng(0), np.full((40, 40, 3), 128, np.uint8), Box(0, 0, 40))
    assert view.std(axis=(0, 1)).max() == 0, "no black corners"


def test_sample_n_is_always_the_same(photos: Path) -> None:
    config = tiny_config(photos)
    first = [maker_for(config).make(n) for n in range(12)]
    second = maker_for(config)
    assert all(same(second.make(n), first[n]) for n in reversed(range(12)))
    assert len({sample.lq.tobytes() for sample in first}) == 12
    other = maker_for(tiny_config(photos, seed=1))
    assert not same(other.make(0), first[0])
    assert first[0].lq.shape == (8, 8, 3)
    assert first[0].hr.shape == (32, 32, 3)


def test_every_photo_appears_once_an_epoch(photos: Path) -> None:
    maker = maker_for(tiny_config(photos))
    epochs = [[maker.make(5 * epoch + place).name for place in range(5)] for epoch in range(4)]
    assert all(len(set(epoch)) == 5 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_distinct_samples_repeat(photos: Path) -> None:
    maker = maker_for(tiny_config(photos, data__distinct=3))
    assert same(maker.make(1), maker.make(4))
    assert not same(maker.make(1), maker.make(2))


def test_the_mix_is_kept(photos: Path) -> None:
    mix = {"other_crop": 0.3, "warped": 0.2, "random": 0.35, "null": 0.15}
    config = tiny_config(photos, references__phases=[{"mix": mix}], data__crop=16)
    maker = maker_for(config)
    kinds = Counter(maker.make(n).kind for n in range(600))
    assert set(kinds) == set(mix)
    assert stats.chisquare([kinds[kind] for kind in mix], [600 * share for share in mix.values()]).pvalue > 1e-3


def test_the_curriculum_advances_with_the_steps(photos: Path) -> None:
    phases = [{"until": 2, "mix": {"warped": 1.0}}, {"mix": {"random": 1.0}}]
    maker = maker_for(tiny_config(photos, references__phases=phases, loop__batch=4))
    assert [maker.make(n).kind for n in (0, 7, 8, 50)] == ["warped", "warped", "random", "random"]


def test_random_references_never_show_the_target(tmp_path: Path) -> None:
    """Photos of one grey level each: the reference's level must differ from the target's."""
    for level in (40, 90, 200):
        Image.fromarray(np.full((40, 40, 3), level, np.uint8)).save(tmp_path / f"{level}.png")
    maker = maker_for(tiny_config(tmp_path, references__phases=[{"mix": {"random": 1.0}}]))
    for n in range(40):
        sample = maker.make(n)
        assert sample.reference is not None
        assert sample.reference[0, 0, 0] != sample.hr[0, 0, 0]


def test_an_unreadable_photo_is_named_and_replaced(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    config = tiny_config(folder)
    maker = maker_for(config)
    torn = folder / "2.png"
    torn.write_bytes(torn.read_bytes()[:2000])  # damaged after the run has begun
    samples = [maker.make(n) for n in range(10)]
    named = {line for sample in samples for line in sample.skipped}
    assert named
    assert all("2.png" in line for line in named)
    assert all(sample.hr.shape == (32, 32, 3) for sample in samples)
    for path in folder.glob("*.png"):
        path.write_bytes(b"")
    uncached = maker_for_cached(config, maker)
    with pytest.raises(PictureError, match="50 photos in a row"):
        uncached.make(0)


def maker_for_cached(config: TrainingConfig, maker: SampleMaker) -> SampleMaker:
    """The same photos without the decoded cache."""
    return SampleMaker(config, maker.photos, maker.neighbours, DecodedPhotos(gigabytes=0, folder=Path("nowhere")))


def test_retrieved_references_exclude_the_target_and_its_duplicates(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    with Image.open(folder / "0.png") as picture:
        picture.save(folder / "0-again.jpg", quality=92)
    found = find_photos([folder], "folder", smallest=32)
    options: dict[str, Any] = {"gallery": None, "encoder": None, "top_k": 3}
    rows = find_neighbours(found.targets, found.gallery, **options)
    for photo, row in zip(found.targets, rows, strict=True):
        names = [Path(path).name for path, _ in row]
        assert len(names) == 3
        assert photo.path.name not in names
        if photo.path.name in {"0.png", "0-again.jpg"}:
            assert not {"0.png", "0-again.jpg"} & set(names)
        assert [score for _, score in row] == sorted((score for _, score in row), reverse=True)
    assert find_neighbours(found.targets, found.gallery, **options) == rows

    config = tiny_config(folder, references__phases=[{"mix": {"retrieved": 1.0}}])
    maker = maker_for(config, neighbours=rows)
    assert {maker.make(n).kind for n in range(6)} == {"retrieved"}
    with pytest.raises(ConfigError, match="1 photos to retrieve from"):
        find_neighbours(found.targets[:1], found.gallery[:1], **options)


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
    batch = collate([maker.make(0), maker.make(1)])
    assert batch.has_reference.all()
    bare = batch.without_reference()
    assert not bare.has_reference.any()
    assert not bare.reference.any()
    assert torch.equal(bare.lq, batch.lq)
    assert batch.lq.max() <= 1


def test_keyed_generators_are_independent() -> None:
    draws = {generator_for(seed, "a", n).random() for seed in range(3) for n in range(3)}
    assert len(draws) == 9
    assert generator_for(0, "a", 1).random() == generator_for(0, "a", 1).random()
