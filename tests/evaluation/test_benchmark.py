"""Layouts, and pairing by name: a sort-order mismatch is refused, never measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rasr.errors import BenchmarkError, UsageError
from rasr.evaluation import load_benchmark


def make(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(path)


def test_flickr30(tmp_path: Path) -> None:
    for species in ("otter", "peacock"):
        make(*(tmp_path / species / "test" / f"{n}.png" for n in "ab"))
        make(*(tmp_path / species / "reference" / f"r{n}.png" for n in "abc"), tmp_path / species / "train" / "t.png")
    benchmark = load_benchmark(tmp_path)
    assert (benchmark.layout, benchmark.by_category) == ("flickr30", True)
    assert [s.name for s in benchmark.samples] == ["otter__a", "otter__b", "peacock__a", "peacock__b"]
    names = {category: [photo.name for photo in photos] for category, photos in benchmark.references.items()}
    assert names == {species: ["ra.png", "rb.png", "rc.png"] for species in ("otter", "peacock")}


def test_cufed5(tmp_path: Path) -> None:
    make(*(tmp_path / f"{group:03d}_{rank}.png" for group in range(2) for rank in range(6)))
    (tmp_path / "list.txt").write_text("not a picture")
    benchmark = load_benchmark(tmp_path)
    assert benchmark.layout == "pairs"
    assert [s.name for s in benchmark.samples] == ["000", "001"]
    assert [p.name for p in benchmark.samples[1].paired] == [f"001_{rank}.png" for rank in range(1, 6)]
    assert {category: len(photos) for category, photos in benchmark.references.items()} == {"000": 5, "001": 5}


@pytest.mark.parametrize("lost", ["001_0.png", "001_3.png"])
def test_cufed5_with_a_hole_is_refused(tmp_path: Path, lost: str) -> None:
    make(*(tmp_path / f"{group:03d}_{rank}.png" for group in range(3) for rank in range(6)))
    (tmp_path / lost).unlink()
    with pytest.raises(BenchmarkError, match="Group 001"):
        load_benchmark(tmp_path)


def test_wrsr(tmp_path: Path) -> None:
    make(
        *(tmp_path / "input" / f"{n:03d}.png" for n in (1, 2)), *(tmp_path / "ref" / f"{n:03d}_ref.png" for n in (1, 2))
    )
    benchmark = load_benchmark(tmp_path)
    assert [(s.name, s.paired[0].name) for s in benchmark.samples] == [("001", "001_ref.png"), ("002", "002_ref.png")]
    (tmp_path / "ref" / "002_ref.png").rename(tmp_path / "ref" / "003_ref.png")
    with pytest.raises(BenchmarkError, match="002"):
        load_benchmark(tmp_path)


def make_scenes(root: Path, *names: str) -> None:
    for name in names:
        make(root / name / "truth.png", root / name / "refs" / "b.jpg", root / name / "refs" / "a.jpg")


def test_scenes(tmp_path: Path) -> None:
    make_scenes(tmp_path, "castle-b", "castle-a", "buddha-06", "buddha-18", "statue-rome")
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "castle-a" / "truth.txt").write_text("no picture")
    benchmark = load_benchmark(tmp_path)
    assert benchmark.layout == "pairs"
    assert [(s.name, s.category) for s in benchmark.samples] == [
        ("buddha-06", "buddha"), ("buddha-18", "buddha"), ("castle-a", "castle"), ("castle-b", "castle"),
        ("statue-rome", "statue-rome"),
    ]  # fmt: skip
    assert [photo.name for photo in benchmark.samples[0].paired] == ["a.jpg", "b.jpg"]
    assert {place: len(photos) for place, photos in benchmark.references.items()} == {
        "buddha": 4, "castle": 4, "statue-rome": 2,
    }  # fmt: skip


def test_scenes_that_only_have_numbers_are_places_of_their_own(tmp_path: Path) -> None:
    make_scenes(tmp_path, "scene-001", "scene-002")
    assert [s.category for s in load_benchmark(tmp_path).samples] == ["scene-001", "scene-002"]


@pytest.mark.parametrize("fault", ["no truth", "two truths", "no refs", "empty refs"])
def test_a_scene_that_is_not_whole_is_named(tmp_path: Path, fault: str) -> None:
    make_scenes(tmp_path, "good", "bad")
    if fault == "no truth":
        (tmp_path / "bad" / "truth.png").unlink()
    elif fault == "two truths":
        make(tmp_path / "bad" / "truth.jpg")
    else:
        for photo in (tmp_path / "bad" / "refs").iterdir():
            photo.unlink()
        if fault == "no refs":
            (tmp_path / "bad" / "refs").rmdir()
    with pytest.raises(BenchmarkError, match="bad"):
        load_benchmark(tmp_path)


def test_folder_of_photos_keeps_plain_names_and_categories(tmp_path: Path) -> None:
    make(tmp_path / "cat" / "a.png", tmp_path / "dog" / "b.png")
    samples = load_benchmark(tmp_path).samples
    assert [(s.name, s.category, s.low) for s in samples] == [("a", "cat", None), ("b", "dog", None)]


def test_repeated_stems_get_their_category(tmp_path: Path) -> None:
    make(tmp_path / "cat" / "a.png", tmp_path / "dog" / "a.png", tmp_path / "dog" / "b.png")
    assert [s.name for s in load_benchmark(tmp_path).samples] == ["b", "cat__a", "dog__a"]
    make(tmp_path / "cat" / "a.webp")
    with pytest.raises(BenchmarkError, match=r"cat/a\..*have the same name"):
        load_benchmark(tmp_path)


def test_pairs_of_folders_are_matched_by_name_whatever_the_extension(tmp_path: Path) -> None:
    make(tmp_path / "HR" / "a.png", tmp_path / "HR" / "b.png", tmp_path / "LQ" / "b.webp", tmp_path / "LQ" / "a.png")
    samples = load_benchmark(tmp_path).samples
    assert [(s.truth.name, s.low.name) for s in samples if s.low] == [("a.png", "a.png"), ("b.png", "b.webp")]


def test_sort_order_mismatch_is_refused(tmp_path: Path) -> None:
    """As many files on both sides, in the same order when sorted, but not the same pictures."""
    make(*(tmp_path / "hr" / f"{n}.png" for n in ("a", "b", "c")))
    make(*(tmp_path / "lq" / f"{n}.png" for n in ("a", "c", "d")))
    with pytest.raises(BenchmarkError, match=r"paired by name.*1 only in .*hr \(b\).*1 only in .*lq \(d\)"):
        load_benchmark(tmp_path)
    with pytest.raises(BenchmarkError, match="paired by name"):
        load_benchmark(tmp_path / "hr", low=tmp_path / "lq")


def test_unusable_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        load_benchmark(tmp_path / "nowhere")
    with pytest.raises(BenchmarkError):
        load_benchmark(tmp_path)
    with pytest.raises(UsageError, match="Unknown layout"):
        load_benchmark(tmp_path, layout="cifar")
