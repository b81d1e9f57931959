"""What a gallery looks like after its writer was killed, and while several write at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rasr.errors import GalleryBusy, GalleryNotFound
from rasr.gallery import Gallery, writer
from rasr.gallery.duplicates import content_hash
from rasr.images import read_picture
from tests.gallery.standin import ColourLayout, make_picture

HERE = Path(__file__).parent


def start(worker: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(HERE / worker), *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def states(log: Path) -> list[set[str]]:
    """The two sets of ids the gallery may hold: before and after the commit that was under way."""
    before: set[str] = set()
    after: set[str] = set()
    for line in log.read_text().splitlines() if log.exists() else ():
        entry = json.loads(line)
        if entry == "done":
            before = after
        else:
            after = (before - set(entry["remove"])) | set(entry["add"])
    return [before, after]


def storm(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill a writer again and again; after each kill the gallery must be whole and hold what was committed."""
    rng = random.Random(seed)
    folder, photos, log = tmp_path / "gallery", tmp_path / "photos", tmp_path / "log"
    encoder, vectors = ColourLayout(), {}
    for number in range(60):
        path = make_picture(photos / f"{number:03d}.png", number)
        picture = read_picture(path)
        vectors[content_hash(path.read_bytes())] = encoder.embed(encoder.preprocess(picture.pixels)[None])[0]
    inside = 0
    following = start("ingest_worker.py", folder, photos, log, rng.randrange(2**31))
    for cycle in range(kills):
        worker = following
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        if cycle + 1 < kills:  # the next one imports while this one works
            following = start("ingest_worker.py", folder, photos, log, rng.randrange(2**31))
        go(worker)
        time.sleep(rng.uniform(0.0, 1.2))
        assert worker.poll() is None, worker.communicate()[1]
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        allowed = states(log)
        inside += allowed[0] != allowed[1]
        gallery = Gallery(folder, encoder=encoder)
        try:
            listed = [photo.id for photo in gallery.list()]
        except GalleryNotFound:
            assert allowed[0] == set()
            continue
        assert len(listed) == len(set(listed)), "a photo is stored twice"
        assert set(listed) in allowed, (
            f"cycle {cycle}: lost {allowed[0] - set(listed)}, phantom {set(listed) - allowed[1]}"
        )
        report = gallery.verify()
        assert report.ok, report.problems
        if listed:
            wanted = rng.choice(listed)
            best = gallery.search(vectors[wanted], 1)[0]
            assert content_hash(best.path.read_bytes()) == wanted
            expected = max(float(vectors[photo] @ vectors[wanted]) for photo in listed)
            assert best.score == pytest.approx(expected, abs=1e-5)
        # What was under way is now decided; the log goes on from what the gallery holds.
        log.write_text(json.dumps({"remove": [], "add": listed}) + '\n"done"\n')
    assert inside > 0, "no kill fell into a commit"


def test_a_few_kills_lose_nothing(tmp_path: Path) -> None:
    storm(tmp_path, kills=12, seed=1)


@pytest.mark.large
@pytest.mark.timeout(3600)
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    storm(tmp_path, kills=200, seed=2)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the writer's own code runs after it, except releasing the lock."""


KILL_POINTS = {
    "before the table is touched": ("rasr.gallery.store.Store.open_table", "before"),
    "after rows were removed": ("lancedb.table.LanceTable.delete", "after"),
    "after rows were added": ("lancedb.table.LanceTable.add", "after"),
    "while files are made durable": ("rasr.gallery.writer.checksum_file", "before"),
    "before the pointer is replaced": ("rasr.gallery.writer.write_pointer", "before"),
    "after the pointer was replaced": ("rasr.gallery.writer.write_pointer", "after"),
    "while the new table is made": ("rasr.gallery.writer.create_table", "after"),
}


@pytest.mark.parametrize("compacting", [False, True])
@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_at(
    point: str, compacting: bool, gallery: Gallery, photos: Path, reopen: Callable[[], Gallery],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    target, moment = KILL_POINTS[point]
    changed = photos / "cat" / "00.png"
    make_picture(changed, 900, (50, 34))
    make_picture(photos / "new.png", 901)
    before = {photo.id for photo in gallery.list()}
    wanted = {content_hash(path.read_bytes()) for path in photos.rglob("*.png")}
    if compacting:
        monkeypatch.setattr(writer, "COMPACT_COMMITS", 0)
    module, _, name = target.rpartition(".")
    with monkeypatch.context() as patch:
        owner = _resolve(module)
        original = getattr(owner, name)

        def killed(*arguments: object, **options: object) -> object:
            if moment == "after":
                original(*arguments, **options)
            raise Killed

        patch.setattr(owner, name, killed)
        try:
            Gallery(gallery.path, encoder=ColourLayout()).add(photos)
        except Killed:
            pass
        else:
            assert name == "create_table", "the kill point was never reached"
            assert not compacting
    found = {photo.id for photo in reopen().list()}
    assert found in (before, wanted)
    assert {problem.kind for problem in reopen().verify().problems} <= {"photo-changed"}
    reopen().add(photos)
    assert {photo.id for photo in reopen().list()} == wanted
    report = reopen().verify(deep=True)
    assert report.ok
    assert not [name for name in report.leftovers if name.startswith(_table(gallery))]


def _resolve(name: str) -> object:
    import importlib

    module, _, attribute = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), attribute)


def _table(gallery: Gallery) -> str:
    return gallery.info().version.partition(".")[0]


def test_eight_processes_adding_at_once_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    shared = [make_picture(tmp_path / "shared" / f"{i}.png", i) for i in range(12)]
    own = [[make_picture(tmp_path / f"own{p}" / f"{i}.png", 1000 * (p + 1) + i) for i in range(6)] for p in range(8)]
    workers = [start("add_worker.py", folder, *shared, *mine) for mine in own]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        go(worker)
    reader, sizes = Gallery(folder, encoder=ColourLayout()), []
    query = ColourLayout().embed(ColourLayout().preprocess(read_picture(shared[0]).pixels)[None])[0]
    while any(worker.poll() is None for worker in workers):
        try:  # readers never wait and never fail
            sizes.append(len(reader.search(query, 1000)))
        except GalleryNotFound:
            assert not sizes
        time.sleep(0.01)
    outputs = [worker.communicate() for worker in workers]
    reports = [json.loads(output) for output, _ in outputs]
    everything = {*shared, *(path for mine in own for path in mine)}
    listed = [photo.path for photo in reader.list()]
    assert sorted(listed) == sorted(everything)
    assert sum(report["added"] for report in reports) == len(everything)
    assert all(report["failed"] == [] for report in reports)
    assert sizes == sorted(sizes)
    assert reader.verify(deep=True).ok
    assert len(reader.search(query, 1000)) == len(everything)


def test_a_lock_held_for_too_long_names_its_owner(gallery: Gallery, photos: Path) -> None:
    impatient = Gallery(gallery.path, encoder=ColourLayout(), lock_timeout=0.2)
    with gallery._store.writing():
        with pytest.raises(GalleryBusy, match=f"process {os.getpid()}"):
            impatient.remove(category="cat")
        assert len(impatient.search(photos / "07.png", 50)) == 12
    assert len(impatient.remove(category="cat")) == 3


def test_vectors_stay_unit_and_equal_after_many_rewrites(
    gallery: Gallery, photos: Path, encoder: ColourLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "COMPACT_COMMITS", 2)
    for number in range(8):
        gallery.add(make_picture(photos / f"more{number}.png", 700 + number))
        gallery.remove([photos / f"more{number}.png"])
    assert int(_table(gallery).rpartition("-")[2]) > 3
    for path in sorted(photos.rglob("[01]*.png")):
        expected = encoder.embed(encoder.preprocess(read_picture(path).pixels)[None])[0]
        assert gallery.search(expected, 1)[0].path == path
        np.testing.assert_allclose(gallery.scores(expected).max(), 1.0, atol=1e-6)
