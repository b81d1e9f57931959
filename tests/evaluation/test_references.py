"""Reference policies and the leak check, on a real gallery of real photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rasr.errors import LeakFound, UsageError
from rasr.evaluation import InputSettings, load_benchmark
from rasr.evaluation.inputs import TestInput, prepare_inputs
from rasr.evaluation.journal import Journal
from rasr.evaluation.references import ReferenceChooser, default_policies, find_leaks, parse_policies, refuse_leaks
from rasr.files import xxh3_file
from rasr.gallery import Gallery
from rasr.images import FloatImage, read_picture
from tests.evaluation.conftest import photo


@pytest.fixture
def inputs(photos: Path, tmp_path: Path) -> list[TestInput]:
    return prepare_inputs(load_benchmark(photos), tmp_path / "inputs", InputSettings(crop=128))


@pytest.fixture
def gallery(references: Path, tmp_path: Path) -> Gallery:
    gallery = Gallery(tmp_path / "gallery")
    gallery.add(references)
    return gallery


def test_policies_differ_as_they_should(inputs: list[TestInput], gallery: Gallery) -> None:
    chooser = ReferenceChooser(gallery)
    for item in inputs[:4]:
        retrieved, oracle, drawn = (chooser.choose(policy, item) for policy in ("retrieved", "oracle", "random"))
        assert len(retrieved) == len(oracle) == len(drawn) == 1
        assert drawn[0].path != retrieved[0].path
        assert drawn[0].score <= retrieved[0].score
        best = gallery.search(item.truth, 1)[0]
        assert (oracle[0].path, oracle[0].score) == (best.path, pytest.approx(best.score, abs=1e-5))
        assert chooser.choose("none", item) == []


def test_queries_are_cleaned_once_as_the_product_cleans_them(
    inputs: list[TestInput], gallery: Gallery, queries: list[FloatImage]
) -> None:
    chooser = ReferenceChooser(gallery)
    for policy in ("retrieved", "random", "oracle", "retrieved"):
        chooser.choose(policy, inputs[0])
    (query,) = queries  # the ground truth is never cleaned
    assert np.array_equal(query, read_picture(inputs[0].low).pixels)


def test_random_references_are_drawn_by_seed_and_name(inputs: list[TestInput], gallery: Gallery) -> None:
    first, again, other = (ReferenceChooser(gallery, seed=seed) for seed in (0, 0, 1))
    draws = [[chooser.choose("random", item)[0].path for item in inputs] for chooser in (first, again, other)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) > 1


def test_by_category_keeps_to_it(inputs: list[TestInput], gallery: Gallery) -> None:
    chooser = ReferenceChooser(gallery, by_category=True)
    for item in inputs[:3]:
        for policy in ("retrieved", "random", "oracle"):
            assert [choice.category for choice in chooser.choose(policy, item)] == [item.category]


def test_choices_are_kept_in_the_journal(
    inputs: list[TestInput], gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ReferenceChooser(gallery, journal=Journal(tmp_path / "j")).choose("retrieved", inputs[0])
    second = ReferenceChooser(gallery, journal=Journal(tmp_path / "j"))
    monkeypatch.setattr(second, "_search", lambda *_: pytest.fail("searched again"))
    assert second.choose("retrieved", inputs[0]) == first
    monkeypatch.undo()
    other = ReferenceChooser(gallery, journal=Journal(tmp_path / "j"), banned=[first[0].path])
    assert other.choose("retrieved", inputs[0])[0].path != first[0].path


def test_the_same_scene_needs_pairs(inputs: list[TestInput], gallery: Gallery) -> None:
    with pytest.raises(UsageError, match="layout 'pairs'"):
        ReferenceChooser(gallery).choose("same-scene", inputs[0])


def test_the_truth_is_a_reference_like_any_other(inputs: list[TestInput], gallery: Gallery) -> None:
    (shown,) = ReferenceChooser(gallery).choose("truth", inputs[0])
    assert (shown.path, shown.id) == (inputs[0].truth, xxh3_file(inputs[0].truth))


def test_a_random_reference_is_of_another_place(photos: Path, tmp_path: Path) -> None:
    """Whether its place is told by the scene's name or by a file that lies in both scenes."""
    root, files = tmp_path / "scenes", sorted(photos.rglob("*.png"))
    layout = {"castle-a": (0, 1), "castle-b": (3, 4), "mill": (6, 2), "tower": (7, 2), "bridge": (8, 5)}
    for scene, (truth, reference) in layout.items():
        (root / scene / "refs").mkdir(parents=True)
        (root / scene / "truth.png").write_bytes(files[truth].read_bytes())
        (root / scene / "refs" / "0.png").write_bytes(files[reference].read_bytes())
    benchmark = load_benchmark(root)
    gallery = Gallery(tmp_path / "gallery")
    for place, references in benchmark.references.items():
        gallery.add(references, category=place)
    items = {item.name: item for item in prepare_inputs(benchmark, tmp_path / "in", InputSettings(crop=64))}
    drawn = {name: set[str]() for name in items}
    for seed in range(12):
        chooser = ReferenceChooser(gallery, seed=seed)
        for name, item in items.items():
            drawn[name].add(chooser.choose("random", item)[0].id)
            assert chooser.choose("same-scene", item)[0].path == item.paired[0]
    contents = {number: xxh3_file(files[number]) for number in (1, 4, 2, 5)}
    assert drawn["castle-a"] == {contents[2], contents[5]}
    assert drawn["tower"] == drawn["mill"] == {contents[1], contents[4], contents[5]}
    assert drawn["bridge"] == {contents[1], contents[4], contents[2]}


def test_policy_names_are_parsed() -> None:
    assert parse_policies("none, Retrieved,none") == ["none", "retrieved"]
    assert parse_policies("paired,same-scene") == ["same-scene"]  # the earlier name
    assert default_policies("pairs") == ("none", "same-scene", "random", "truth")
    assert default_policies("folder") == ("retrieved", "none", "random", "oracle")
    with pytest.raises(UsageError, match="'best'"):
        parse_policies("best")


def test_a_clean_gallery_has_no_leaks(inputs: list[TestInput], gallery: Gallery) -> None:
    assert find_leaks(inputs, gallery) == []
    refuse_leaks([])


def test_planted_duplicates_are_refused(inputs: list[TestInput], gallery: Gallery, tmp_path: Path) -> None:
    """The file itself under another name; the picture resized and compressed; the crop that is tested."""
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "copy.png").write_bytes(inputs[0].source.read_bytes())
    Image.open(inputs[1].source).resize((300, 300)).save(planted / "recompressed.jpg", quality=60)
    Image.open(inputs[2].truth).save(planted / "crop.webp", quality=80)
    gallery.add(planted)
    leaks = find_leaks(inputs, gallery)
    found = {(leak.name, leak.photo.name) for leak in leaks}
    wanted = {(inputs[0].name, "copy.png"), (inputs[1].name, "recompressed.jpg"), (inputs[2].name, "crop.webp")}
    assert wanted <= found
    assert any("itself" in leak.why for leak in leaks)
    with pytest.raises(LeakFound, match=r"copy\.png.*--exclude-leaks"):
        refuse_leaks(leaks)


def test_other_parts_of_a_scene_are_no_leak(tmp_path: Path, gallery: Gallery) -> None:
    """The gallery holds another part of every photo tested: alike, but not the same picture."""
    (tmp_path / "one").mkdir()
    photo("coffee.png", (0, 0, 200, 100)).save(tmp_path / "one" / "a.png")
    made = prepare_inputs(load_benchmark(tmp_path / "one"), tmp_path / "made", InputSettings())
    assert find_leaks(made, gallery) == []
