"""Whole builds against the stand-in: the paper's protocol, faults, interruptions, review, bad input."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rasr.dataset import build_dataset, check_dataset, read_manifest
from rasr.dataset.build import BuildReport
from rasr.dataset.config import DatasetConfig, parse_config
from rasr.dataset.review import DECISIONS
from rasr.errors import DatasetBusy, DatasetError, OutputError
from rasr.gallery import Gallery
from rasr.images import read_header
from tests.dataset.photo_sites import Photo, World, config_for, make_world, picture, serving

Make = Callable[..., DatasetConfig]
SMALL = {"train": 6, "test": 2, "reference": 8}
PLAIN: dict[str, object] = {"lq": {"enabled": False}, "gallery": False}


def _build(config: DatasetConfig, out: Path) -> tuple[BuildReport, list[str]]:
    said: list[str] = []
    return build_dataset(config, out, say=said.append), said


def _small(count: int = 40, subject: str = "owl", source: str = "flickr", first: int = 1) -> list[Photo]:
    return [Photo(number, subject, source, f"user {number}") for number in range(first, first + count)]


@pytest.mark.timeout(900)
def test_the_papers_protocol_end_to_end(tmp_path: Path, make_config: Make) -> None:
    """2 species × 40/5/100 from three sources, with every fault the stand-in knows."""
    subjects = ["owl", "zebra"]
    world = make_world(subjects, {"flickr": 150, "inaturalist": 60, "commons": 60})
    world.page_size = 40
    world.api_faults = {"services": ["429", "500", "html"], "v1": ["500"], "w": ["busy"]}
    out = tmp_path / "out"
    with serving(world) as base:
        report, said = _build(make_config(base, subjects, ["flickr", "inaturalist", "commons"]), out)
    assert report.problems == []
    records = read_manifest(out)
    counts = Counter((record.category, record.split) for record in records)
    assert counts == {
        (name, split): n for name in subjects for split, n in [("train", 40), ("test", 5), ("reference", 100)]
    }
    assert world.most_running > 1
    assert all("tests@rasr.invalid" in agent for _, _, agent in world.requests)
    # Each filter had something to do, and says so.
    rejected = Counter[str]()
    for category in report.categories:
        rejected.update(category.rejected)
    expected = {"dead link", "not a picture", "unreadable", "too small", "redirect loop", "server trouble"}
    assert expected | {"licence", "repeated (hash)"} <= set(rejected)
    assert any("dead link" in line for line in said)
    # The folder is what it says it is.
    checked = check_dataset(out)
    assert checked.ok, checked.findings
    assert len(Gallery(out)) == 200
    tests = [record for record in records if record.split == "test"]
    for record in tests:
        lq, hr = (read_header(out / kind / record.category / f"{record.id}.png") for kind in ("lq", "hr"))
        assert (lq.width * 4, lq.height * 4) == (hr.width, hr.height) == (256, 256)
    card = (out / "README.md").read_text("utf-8")
    assert card.startswith("---\npretty_name: ")
    assert "| owl (*owl*) | 40 | 5 | 100 |" in card
    credits_ = (out / "ATTRIBUTION.md").read_text("utf-8")
    assert all(record.file in credits_ for record in records)
    assert (out / "histograms.svg").read_text("utf-8").startswith("<svg")
    assert read_header(out / "contact-sheet.jpg").width > 1000


def test_the_same_seed_gives_the_same_manifest_and_another_one_not(tmp_path: Path, make_config: Make) -> None:
    world = make_world(["owl"], {"flickr": 50})
    manifests = []
    with serving(world) as base:
        for seed, name in ((5, "a"), (5, "b"), (6, "c")):
            config = make_config(base, ["owl"], ["flickr"], splits=SMALL, seed=seed, **PLAIN)
            _build(config, tmp_path / name)
            manifests.append((tmp_path / name / "manifest.jsonl").read_bytes())
    assert manifests[0] == manifests[1] != manifests[2]


def test_building_again_downloads_nothing(tmp_path: Path, make_config: Make) -> None:
    world = World(_small())
    with serving(world) as base:
        config = make_config(base, ["owl"], ["flickr"], splits=SMALL, **PLAIN)
        _build(config, tmp_path / "out")
        before = (tmp_path / "out/manifest.jsonl").read_bytes()
        fetched = sum(world.fetched.values())
        _build(config, tmp_path / "out")
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == before
    assert sum(world.fetched.values()) == fetched
    assert max(world.fetched.values()) == 1


def test_a_photographer_gives_at_most_so_many_and_is_in_one_split(tmp_path: Path, make_config: Make) -> None:
    world = World([Photo(number, "owl", "flickr", f"user {number % 6}") for number in range(1, 60)])
    with serving(world) as base:
        config = make_config(base, ["owl"], ["flickr"], splits=SMALL, download={"per_photographer": 3}, **PLAIN)
        report, _ = _build(config, tmp_path / "out")
    records = read_manifest(tmp_path / "out")
    assert max(Counter(record.author for record in records).values()) <= 3
    by_author: dict[str, set[str]] = {}
    for record in records:
        by_author.setdefault(record.author, set()).add(record.split)
    assert all(len(splits) == 1 for splits in by_author.values())
    assert len(by_author) == 6
    assert report.categories[0].missing == 16 - len(records)


def test_the_same_name_on_two_sites_is_one_photographer(tmp_path: Path, make_config: Make) -> None:
    photos = _small(20) + _small(20, source="inaturalist", first=100)
    for one, other in zip(photos[:20], photos[20:], strict=True):
        other.author = one.author.upper()
    with serving(World(photos)) as base:
        config = make_config(base, ["owl"], ["flickr", "inaturalist"], splits=SMALL | {"reference": 20}, **PLAIN)
        _build(config, tmp_path / "out")
    splits: dict[str, set[str]] = {}
    for record in read_manifest(tmp_path / "out"):
        splits.setdefault(record.author.casefold(), set()).add(record.split)
    assert all(len(found) == 1 for found in splits.values())


def test_photos_that_must_stay_together_are_named_as_the_reason(tmp_path: Path, make_config: Make) -> None:
    photos = _small(40)
    for photo in photos:
        photo.author = "One Person"
    with serving(World(photos)) as base:
        wide = {"per_photographer": 40}
        config = make_config(base, ["owl"], ["flickr"], splits=SMALL, download=wide, **PLAIN)
        report, _ = _build(config, tmp_path / "out")
        alone = make_config(base, ["owl"], ["flickr"], splits=SMALL | {"by_photographer": False}, **PLAIN)
        second, _ = _build(alone, tmp_path / "alone")
    assert "40 of them must stay together" in report.problems[0]
    assert second.problems == []
    assert check_dataset(tmp_path / "alone", quick=True).ok
    assert "one photographer are in several splits" in (tmp_path / "alone/README.md").read_text("utf-8")


def test_a_stranger_among_owls_is_reported_or_dropped(tmp_path: Path, make_config: Make) -> None:
    photos = _small(30)
    photos[3].look = "something else entirely"
    strict = {"outlier_deviations": 5.0}
    with serving(World(photos)) as base:
        places = {"train": 5, "test": 2, "reference": 22}
        config = make_config(base, ["owl"], ["flickr"], splits=places, filters=strict, **PLAIN)
        _build(config, tmp_path / "reported")
        dropping = make_config(
            base, ["owl"], ["flickr"], splits=places, filters=strict | {"outlier_action": "drop"}, **PLAIN
        )
        report, _ = _build(dropping, tmp_path / "dropped")
    strange = [record.source_id for record in read_manifest(tmp_path / "reported") if record.deviation]
    assert "4" in strange
    assert "4" not in [record.source_id for record in read_manifest(tmp_path / "dropped")]
    assert report.categories[0].rejected["off subject"] == len(strange)


def test_what_the_review_drops_is_replaced_and_what_it_keeps_stays(tmp_path: Path, make_config: Make) -> None:
    out = tmp_path / "out"
    with serving(World(_small(60))) as base:
        config = make_config(base, ["owl"], ["flickr"], splits=SMALL, gallery=False, lq={"crop": 64})
        _build(config, out)
        first = read_manifest(out)
        victim, kept = next(record for record in first if record.split == "test"), first[0]
        lines = [json.dumps({"id": name, "decision": what}) for name, what in ((victim.id, "drop"), (kept.id, "keep"))]
        (out / DECISIONS).write_text("\n".join(lines) + '\n{"id": "cut o', "utf-8")
        report, _ = _build(config, out)
    second = {record.id: record for record in read_manifest(out)}
    assert len(second) == len(first) == 16
    assert victim.id not in second
    assert second[kept.id].review == "keep"
    assert report.categories[0].rejected["review"] == 1
    assert not (out / victim.file).exists()
    assert not (out / "lq" / victim.category / f"{victim.id}.png").exists()
    assert check_dataset(out).ok


def test_a_source_without_a_key_leaves_the_work_to_the_others(
    tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLICKR_API_KEY", "")
    with serving(World(_small(source="inaturalist"))) as base:
        config = make_config(base, ["owl"], ["flickr", "inaturalist"], splits=SMALL, **PLAIN)
        report, _ = _build(config, tmp_path / "out")
    assert report.photos == 16
    assert len(report.problems) == 1
    assert "FLICKR_API_KEY" in report.problems[0]


def test_only_source_refused(tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKR_API_KEY", "wrong")
    with serving(World(_small())) as base:
        config = make_config(base, ["owl"], ["flickr"], splits=SMALL, **PLAIN)
        with pytest.raises(DatasetError, match="refuses the API key"):
            _build(config, tmp_path / "out")
    assert not (tmp_path / "out/manifest.jsonl").exists()


def test_a_species_nobody_photographed_is_named_and_the_rest_goes_on(tmp_path: Path, make_config: Make) -> None:
    with serving(World(_small())) as base:
        config = make_config(base, ["yeti", "owl"], ["flickr"], splits=SMALL, **PLAIN)
        report, _ = _build(config, tmp_path / "out")
    assert report.photos == 16
    assert any("yeti: flickr has nothing for text yeti by relevance" in problem for problem in report.problems)
    assert any("yeti: 16 of 16 photos are missing" in problem for problem in report.problems)


@pytest.mark.parametrize("kind", ["flickr", "inaturalist", "commons"])
def test_answers_of_another_shape_are_one_sentence(tmp_path: Path, make_config: Make, kind: str) -> None:
    api = {"flickr": "services", "inaturalist": "v1", "commons": "w"}[kind]
    with serving(World(_small(), api_faults={api: ["shape"] * 9})) as base:
        config = make_config(base, ["owl"], [kind], splits=SMALL, **PLAIN)
        with pytest.raises(DatasetError, match="form that is not its API's"):
            _build(config, tmp_path / "out")


def test_a_server_that_asks_for_a_day_is_asked_again_another_day(tmp_path: Path, make_config: Make) -> None:
    photos = _small(20)
    for photo in photos[5:]:
        photo.fault = "forever"
    world = World(photos)
    with serving(world) as base:
        # One worker: which photos come before the server shuts must not depend on luck.
        config = make_config(base, ["owl"], ["flickr"], splits=SMALL, download={"workers": 1}, **PLAIN)
        report, _ = _build(config, tmp_path / "out")
        assert report.photos == 5
        assert report.categories[0].rejected["rate limit"] == 15
        for photo in photos:
            photo.fault = ""
        again, _ = _build(config, tmp_path / "out")
    assert again.problems == []
    assert again.photos == 16
    assert all(world.fetched[number] == 1 for number in range(1, 6))


def test_a_full_disk_stops_the_build_and_the_next_one_goes_on(
    tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        written[0] += 1
        if written[0] > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    world = World(_small())
    with serving(world) as base:
        config = make_config(base, ["owl"], ["flickr"], splits=SMALL, download={"workers": 2}, **PLAIN)
        with monkeypatch.context() as patch:
            patch.setattr("rasr.dataset.web.os.fsync", fsync)
            with pytest.raises(OutputError, match="No space left"):
                _build(config, tmp_path / "out")
        assert not (tmp_path / "out/manifest.jsonl").exists()
        arrived = [path for path in (tmp_path / "out/.build/photos").iterdir() if path.suffix == ""]
        assert len(arrived) == 6
        for path in arrived:
            assert path.read_bytes() == picture(int(path.name.partition("_")[2]), "owl", 360, 340)
        report, _ = _build(config, tmp_path / "out")
    assert report.photos == 16
    assert all(world.fetched[int(path.name.partition("_")[2])] == 1 for path in arrived)


def test_two_builds_at_once(tmp_path: Path, make_config: Make) -> None:
    with serving(World(_small())) as base:
        config = make_config(base, ["owl"], ["flickr"], splits=SMALL, **PLAIN)
        failed: list[Exception] = []

        def second(step: str, *_: int) -> None:
            if step == "downloading" and not failed:
                try:
                    build_dataset(config, tmp_path / "out")
                except DatasetBusy as error:
                    failed.append(error)

        build_dataset(config, tmp_path / "out", progress=second)
    assert len(failed) == 1


def test_folders_of_others_are_left_alone(tmp_path: Path, make_config: Make) -> None:
    config = make_config("http://127.0.0.1:9", ["owl"], ["flickr"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="not a dataset of RASR"):
        build_dataset(config, tmp_path / "mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        build_dataset(config, tmp_path / "file")


def test_a_manifest_that_names_files_elsewhere_deletes_nothing(tmp_path: Path, make_config: Make) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    out = tmp_path / "out"
    with serving(World(_small())) as base:
        config = make_config(base, ["owl"], ["flickr"], splits=SMALL, **PLAIN)
        _build(config, out)
        lines = (out / "manifest.jsonl").read_text("utf-8").splitlines()
        lines[0] = json.dumps(json.loads(lines[0]) | {"file": "../victim.txt"})
        (out / "manifest.jsonl").write_text("\n".join(lines), "utf-8")
        with pytest.raises(OutputError, match="not inside"):
            _build(config, out)
    assert victim.read_text() == "precious"


def test_a_folder_that_changed_is_read_again(tmp_path: Path) -> None:
    """New photos, a photo edited in place, and credits that were corrected."""
    photos = tmp_path / "photos" / "owl"
    photos.mkdir(parents=True)
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(picture(number, "owl", 360, 340))
    table = tmp_path / "credits.csv"
    table.write_text("photo,author,licence\n" + "".join(f"{n},A{n},CC0\n" for n in range(3)), "utf-8")
    raw = config_for("", [], []) | {"category": [], "gallery": False, "lq": {"enabled": False}}
    raw["source"] = [{"kind": "folder", "path": str(photos.parent), "credits": str(table)}]
    raw["splits"] = {"train": 2, "test": 1, "reference": 3, "related_similarity": 0.999}
    out = tmp_path / "out"
    first, _ = _build(parse_config(raw, "t", tmp_path), out)
    assert first.photos == 3
    assert first.categories[0].rejected == {"licence": 1}
    (photos / "0.jpg").write_bytes(picture(100, "owl", 400, 380))
    (photos / "4.jpg").write_bytes(picture(4, "owl", 360, 340))
    table.write_text("photo,author,licence\n" + "".join(f"{n},B{n},CC-BY-4.0\n" for n in range(5)), "utf-8")
    second, _ = _build(parse_config(raw, "t", tmp_path), out)
    records = read_manifest(out)
    assert second.photos == 5
    assert {record.author for record in records} == {f"B{n}" for n in range(5)}
    assert sorted(record.width for record in records) == [360] * 4 + [400]
    assert check_dataset(out).findings[0].kind == "count"
    assert {finding.kind for finding in check_dataset(out).findings} == {"count"}


def test_a_photo_edited_in_place_is_degraded_again(tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "owl"
    photos.mkdir(parents=True)
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(picture(number, "owl", 360, 340))
    raw = config_for("", [], []) | {"category": [], "gallery": False, "lq": {"crop": 64}}
    raw["source"] = [{"kind": "folder", "path": str(photos.parent), "author": "A", "licence": "CC0-1.0"}]
    raw["splits"] = {"train": 0, "test": 3, "reference": 0, "related_similarity": 0.999, "by_photographer": False}
    out = tmp_path / "out"
    _build(parse_config(raw, "t", tmp_path), out)
    before = {path.name: path.read_bytes() for path in (out / "lq/owl").iterdir()}
    (photos / "0.jpg").write_bytes(picture(50, "owl", 360, 340))
    _build(parse_config(raw, "t", tmp_path), out)
    after = {path.name: path.read_bytes() for path in (out / "lq/owl").iterdir()}
    assert set(before) == set(after)
    assert sum(before[name] != after[name] for name in before) == 1
    assert check_dataset(out).findings == []
    # With another crop all are made anew, and what is no test photo any more goes.
    (photos / "1.jpg").unlink()
    _build(parse_config(raw | {"lq": {"crop": 48}}, "t", tmp_path), out)
    assert len(list((out / "lq/owl").iterdir())) == len(list((out / "hr/owl").iterdir())) == 2
