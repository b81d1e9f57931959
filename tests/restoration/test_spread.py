"""A batch on a cluster, which is a stand-in here: one machine's bytes and journal, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rasr.cluster import ClusterOptions
from rasr.errors import ClusterError, OutputError, OutputExists, UsageError
from rasr.files import xxh3_file
from rasr.gallery import Gallery
from rasr.memory import divide_memory
from rasr.restoration import BatchOptions, Outcome, Restorer, SaveOptions, Settings, TargetSize, plan_jobs, run_batch
from rasr.restoration.batch import Run
from rasr.restoration.plan import plan_maps
from rasr.restoration.spread import Restoring
from rasr.restoration.work_key import work_key
from rasr.restoration.workers import setup_of
from tests.cluster.fake_ray import FakeRay, install
from tests.restoration.conftest import Scene

TWICE = Settings(size=TargetSize(scale=2))
LOCAL = ClusterOptions("local")
SAVE = SaveOptions()


@pytest.fixture(autouse=True)
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    yield install(monkeypatch, FakeRay(machines=3))
    divide_memory(1)


def run(photos: Path, out: str, cluster: ClusterOptions | None = LOCAL, **more: Any) -> list[Outcome]:
    folder = photos.parent / out
    restorer = more.pop("restorer", None) or Restorer("bicubic")
    jobs = plan_jobs([photos], folder)
    return list(run_batch(jobs, restorer, TWICE, journal_folder=folder, cluster=cluster, **more))


def results(photos: Path, out: str) -> dict[str, bytes]:
    folder = photos.parent / out
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def journal(photos: Path, out: str) -> dict[str, dict[str, Any]]:
    """The lines by their input, without what depends on the time."""
    lines = [json.loads(line) for line in (photos.parent / out / "report.jsonl").read_text().splitlines()]
    return {line["input"]: {**line, "timings": sorted(line["timings"]), "output_mtime_ns": None} for line in lines}


def told(outcome: Outcome) -> tuple[Any, ...]:
    facts = outcome.to_json()
    output = facts["output"] and Path(facts["output"]).name
    return outcome.job.input.name, output, facts["error"], facts["settings"], facts["notes"], type(outcome.error)


def test_a_cluster_gives_what_one_machine_gives(photos: Path) -> None:
    alone, spread = run(photos, "alone", None), run(photos, "spread")
    assert sorted(map(told, spread), key=str) == sorted(map(told, alone), key=str)
    assert results(photos, "spread") == results(photos, "alone")
    assert len(results(photos, "alone")) == 6
    assert journal(photos, "spread") == journal(photos, "alone")
    for line in (photos.parent / "spread/report.jsonl").read_text().splitlines():
        if (facts := json.loads(line))["error"] is None:
            placed = photos.parent / "spread" / facts["output"]
            assert (placed.stat().st_mtime_ns, xxh3_file(placed)) == (facts["output_mtime_ns"], facts["output_hash"])
    assert [outcome.earlier for outcome in run(photos, "spread", None)].count(True) == 6, "one machine goes on"
    assert [outcome.earlier for outcome in run(photos, "alone")].count(True) == 6, "and so does a cluster"
    assert not list((photos.parent / "spread").rglob(".rasr-*"))


def test_formats_and_what_they_give_up(photos: Path) -> None:
    Image.new("RGBA", (9, 7), (1, 2, 3, 99)).save(photos / "clear.png")
    save = SaveOptions(format="jpg", metadata="strip")
    alone, spread = run(photos, "alone", None, save=save), run(photos, "spread", save=save)
    assert sorted(map(told, spread), key=str) == sorted(map(told, alone), key=str)
    assert any("ransparen" in str(told(outcome)) for outcome in spread)
    names = [f"{out}/clear_rasr.png" for out in ("alone", "spread")]
    assert (photos.parent / names[0]).read_bytes() == (photos.parent / names[1]).read_bytes()


def test_what_lies_there_is_not_replaced(photos: Path) -> None:
    (photos.parent / "out").mkdir()
    (photos.parent / "out/0_rasr.png").write_bytes(b"mine")
    errors = {one.job.input.name: one.error for one in run(photos, "out") if one.error}
    assert isinstance(errors["0.png"], OutputExists)
    assert (photos.parent / "out/0_rasr.png").read_bytes() == b"mine"
    run(photos, "out", save=SaveOptions(overwrite=True))
    assert (photos.parent / "out/0_rasr.png").read_bytes() != b"mine"


def test_evidence_and_its_map_travel(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(scene.query.read_bytes())
    maps: dict[str, list[bytes]] = {}
    evidence: dict[str, list[bytes]] = {}
    for out, cluster in (("alone", None), ("spread", LOCAL)):
        jobs = plan_jobs([tmp_path / "in"], tmp_path / out)
        places = plan_maps(jobs, tmp_path / f"{out}-maps", several=True, overwrite=False)
        batch = Run(jobs, Restorer("bicubic", scene.same.parent), TWICE, cluster=cluster)
        made = list(batch.go(maps=places, keep_evidence=True))
        assert not [one.error for one in made if one.error or one.map_error]
        maps[out] = [place.read_bytes() for place in sorted(places.values())]
        evidence[out] = [one.evidence for one in made]
    assert maps["alone"] == maps["spread"]
    assert len(maps["alone"]) == 2
    assert all(evidence["spread"])


def test_a_result_in_the_place_of_its_guide_is_refused(scene: Scene, tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "gallery")
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos/right.png"
    photo.write_bytes(scene.same.read_bytes())
    gallery.add(photo)
    jobs = plan_jobs([scene.query], photo)
    batch = Run(jobs, Restorer("bicubic", gallery), TWICE, SaveOptions(overwrite=True), cluster=LOCAL)
    (made,) = batch.go()
    assert isinstance(made.error, OutputError)
    assert "which guided the result" in str(made.error)
    assert photo.read_bytes() == scene.same.read_bytes()


def test_a_folder_as_gallery_is_for_one_machine(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.png").unlink()
    (photos / "cut.png").unlink()
    elsewhere = ClusterOptions("10.0.0.5:6379")
    with pytest.raises(UsageError, match="rasr gallery add GALLERY FOLDER"):
        Run([], Restorer("bicubic", photos), TWICE, cluster=elsewhere)
    Run([], Restorer("bicubic", photos), TWICE, cluster=LOCAL)
    gallery = Gallery(tmp_path / "gallery")
    gallery.add(photos)
    Run([], Restorer("bicubic", tmp_path / "gallery"), TWICE, cluster=elsewhere)


def test_workers_are_of_one_machine(photos: Path) -> None:
    with pytest.raises(UsageError, match="leave them out"):
        run(photos, "out", options=BatchOptions(workers=2))


def prepared(restorer: Restorer, **more: Any) -> dict[str, Any]:
    setup = setup_of(restorer, TWICE, SAVE, None, keep_evidence=False)
    return {**setup, "key": work_key(restorer, TWICE, SAVE), "processes": 1, "driver": "elsewhere", **more}


def test_a_machine_that_would_restore_otherwise_ends_the_work() -> None:
    Restoring(prepared(Restorer("bicubic")))
    with pytest.raises(ClusterError, match="would restore otherwise"):
        Restoring(prepared(Restorer("bicubic"), key="another"))


def test_another_file_there_is_refused_and_the_machine_named(photos: Path) -> None:
    restoring = Restoring(prepared(Restorer("bicubic")))
    said = {"input": str(photos / "0.png"), "output": "0.png", "size": (16, 12), "map": False}
    size = (photos / "0.png").stat().st_size
    good, other, gone = restoring(
        [{**said, "bytes": size}, {**said, "bytes": size + 1}, {**said, "input": str(photos / "none.png"), "bytes": 1}]
    )
    assert good["content"]
    assert "another file than on the machine of the command. (on the machine" in other["error"]["message"]
    assert "No such file" in gone["error"]["message"]
