"""What the check finds: each planted fault, and nothing in a dataset that is in order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rasr.dataset import build_dataset, check_dataset, read_manifest
from rasr.dataset.config import DatasetConfig
from rasr.errors import DatasetError
from tests.dataset.photo_sites import Photo, World, picture, serving


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset in good order."""
    from rasr.dataset.config import parse_config
    from tests.dataset.photo_sites import KEY, config_for

    out = tmp_path_factory.mktemp("built") / "out"
    photos = [Photo(number, "owl", "flickr", f"user {number}") for number in range(1, 30)]
    with pytest.MonkeyPatch.context() as patch, serving(World(photos)) as base:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("FLICKR_API_KEY", KEY)
        raw = config_for(base, ["owl"], ["flickr"]) | {"gallery": False, "lq": {"crop": 64}}
        raw["splits"] = {"train": 4, "test": 2, "reference": 6, "related_similarity": 0.995}
        config: DatasetConfig = parse_config(raw, "t", Path())
        build_dataset(config, out)
    return out


@pytest.fixture
def dataset(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "dataset", ignore=shutil.ignore_patterns(".build")))


def _edit(dataset: Path, change: Callable[[list[dict[str, object]]], None]) -> None:
    path = dataset / "manifest.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _kinds(dataset: Path, *, quick: bool = True) -> set[str]:
    return {finding.kind for finding in check_dataset(dataset, quick=quick).findings if finding.level == "error"}


def test_a_dataset_in_order(dataset: Path) -> None:
    report = check_dataset(dataset)
    assert report.ok, report.findings
    assert report.photos == 12


def test_a_planted_near_duplicate_across_splits(dataset: Path) -> None:
    """The same picture, saved again at another quality and listed as if it were another photo."""
    records = read_manifest(dataset)
    train = next(record for record in records if record.split == "train")
    test = next(record for record in records if record.split == "test")
    (dataset / test.file).write_bytes(picture(int(train.source_id), "owl", 360, 340, quality=60))
    report = check_dataset(dataset)
    leaks = [finding.message for finding in report.findings if finding.kind == "leak"]
    assert any(train.file in leak and test.file in leak for leak in leaks)


def test_the_same_file_in_two_splits(dataset: Path) -> None:
    records = read_manifest(dataset)
    train, test = (next(record for record in records if record.split == split) for split in ("train", "test"))
    shutil.copy(dataset / train.file, dataset / test.file)
    assert "leak" in _kinds(dataset)


def test_a_planted_same_author_pair(dataset: Path) -> None:
    def change(rows: list[dict[str, object]]) -> None:
        train, test = (next(row for row in rows if row["split"] == split) for split in ("train", "reference"))
        train["author"], train["author_id"] = test["author"], test["author_id"]

    _edit(dataset, change)
    report = check_dataset(dataset, quick=True)
    assert [finding.kind for finding in report.findings] == ["leak"]


def test_the_same_author_by_name_only(dataset: Path) -> None:
    def change(rows: list[dict[str, object]]) -> None:
        train, test = (next(row for row in rows if row["split"] == split) for split in ("train", "test"))
        train["author"], train["source"] = str(test["author"]).upper(), "commons"

    _edit(dataset, change)
    assert _kinds(dataset) == {"leak"}


def _set(name: str, value: object) -> Callable[[list[dict[str, object]]], None]:
    def change(rows: list[dict[str, object]]) -> None:
        rows[0][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_set("licence", ""), "licence"),
        (_set("licence", "CC-BY-NC-2.0"), "licence"),
        (_set("author", ""), "licence"),
        (_set("review", "drop"), "review"),
        (_set("sha256", "00" * 32), "hash"),
        (_set("width", 10), "size"),
        (_set("file", "../../etc/passwd"), "manifest"),
        (_set("split", "validation"), "manifest"),
        (lambda rows: rows.append(rows[0]), "manifest"),
        (lambda rows: rows.pop(), "count"),
    ],
)
def test_faults_of_the_manifest(dataset: Path, change: Callable[[list[dict[str, object]]], None], kind: str) -> None:
    _edit(dataset, change)
    assert kind in _kinds(dataset)


def test_files_missing_damaged_and_unlisted(dataset: Path) -> None:
    records = read_manifest(dataset)
    (dataset / records[0].file).unlink()
    cut = dataset / records[1].file
    cut.write_bytes(cut.read_bytes()[:2000])
    shutil.copy(dataset / records[2].file, dataset / "owl/test/stray.jpg")
    assert {"missing", "hash", "unreadable", "unlisted"} <= _kinds(dataset, quick=False)


def test_missing_and_wrong_low_quality_inputs(dataset: Path) -> None:
    tests = [record for record in read_manifest(dataset) if record.split == "test"]
    (dataset / "lq/owl" / f"{tests[0].id}.png").unlink()
    shutil.copy(dataset / "hr/owl" / f"{tests[1].id}.png", dataset / "lq/owl" / f"{tests[1].id}.png")
    messages = [finding.message for finding in check_dataset(dataset, quick=True).findings]
    assert len(messages) == 2
    assert any("64x64, not 16x16" in message for message in messages)


def test_a_layout_without_a_manifest(dataset: Path) -> None:
    for name in ("manifest.jsonl", "manifest.csv", "dataset.json"):
        (dataset / name).unlink()
    report = check_dataset(dataset)
    assert report.ok
    assert report.photos == 12
    assert report.findings[0].kind == "manifest"
    records = sorted((dataset / "owl/train").iterdir())
    shutil.copy(records[0], dataset / "owl/reference/again.jpg")
    assert not check_dataset(dataset).ok


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="neither"):
        check_dataset(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x"}', '{"id": 3}', "null"])
def test_a_broken_manifest_is_named_by_line(dataset: Path, line: str) -> None:
    with (dataset / "manifest.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(DatasetError, match="line 13"):
        check_dataset(dataset)
