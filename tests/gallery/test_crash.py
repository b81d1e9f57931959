"""What a gallery looks like after its writer was killed, and while several write at once."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rasr.errors import GalleryBusy, GalleryCorrupt, GalleryNotFound
from rasr.files import xxh3_file
from rasr.gallery import Gallery
from rasr.gallery.database import Database
from rasr.gallery.store import MARKER, PART
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
        vectors[xxh3_file(path)] = encoder.embed(encoder.preprocess(picture.pixels)[None])[0]
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
            assert xxh3_file(best.path) == wanted
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


KILL_POINTS = [
    ("rasr.gallery.store:LocalWriter.commit", "before"),
    ("rasr.gallery.database:_write", "before"),
    ("rasr.gallery.database:_write", "after"),
    ("rasr.gallery.store:LocalWriter.commit", "after"),
]
CREATION_POINTS = [
    ("rasr.gallery.database:Database.create", "before"),
    ("rasr.gallery.database:Database.create", "after"),
    ("pathlib:Path.rename", "before"),
    ("pathlib:Path.rename", "after"),
    ("rasr.gallery.store:write_bytes", "before"),
]


def killed_at(*arguments: object) -> None:
    process = start("kill_worker.py", *arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, f"the kill point was never reached: {output}{errors}"


@pytest.mark.parametrize(("function", "moment"), KILL_POINTS)
def test_killed_within_a_change(
    function: str, moment: str, gallery: Gallery, photos: Path, reopen: Callable[[], Gallery]
) -> None:
    make_picture(photos / "cat" / "00.png", 900, (50, 34))
    make_picture(photos / "new.png", 901)
    before = {photo.id for photo in gallery.list()}
    wanted = {xxh3_file(path) for path in photos.rglob("*.png")}
    killed_at(gallery.path, photos, function, moment)
    assert {photo.id for photo in reopen().list()} == (wanted if moment == "after" else before)
    assert {problem.kind for problem in reopen().verify().problems} <= {"photo-changed"}
    reopen().add(photos)
    assert {photo.id for photo in reopen().list()} == wanted
    report = reopen().verify(deep=True)
    assert report.ok
    assert report.leftovers == []


@pytest.mark.parametrize(("function", "moment"), CREATION_POINTS)
def test_killed_while_a_gallery_is_created(
    function: str, moment: str, tmp_path: Path, photos: Path, reopen: Callable[[], Gallery]
) -> None:
    killed_at(tmp_path / "gallery", photos, function, moment)
    assert not (tmp_path / "gallery" / MARKER).exists()
    if (tmp_path / "gallery" / Database.NAME).exists():
        assert reopen().list() == []
    else:
        with pytest.raises(GalleryNotFound):
            reopen().list()
    assert reopen().add(photos).added == 12
    assert reopen().verify(deep=True).ok
    assert not list((tmp_path / "gallery").glob(f"{PART}*"))
    assert (tmp_path / "gallery" / MARKER).exists()


def interrupted(gallery: Gallery, copy: Path) -> None:
    """Copy a gallery as SIGKILL leaves it in the middle of a commit: pages half written, and a journal to undo them."""
    connection = sqlite3.connect(gallery.path / Database.NAME, isolation_level=None)
    connection.execute("PRAGMA cache_size=1")  # dirty pages go to the file at once, not with the commit
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM photos WHERE number % 2 = 0")
    for number in range(200):
        entry = json.dumps([f"{number:032x}", f"/p/{number}.jpg", 1, 1, 1, 1, 1, "", [], "", ""])
        connection.execute("INSERT INTO photos VALUES (NULL, ?, ?, ?)", (entry, bytes(8), bytes(256)))
    assert (gallery.path / f"{Database.NAME}-journal").stat().st_size > 1000
    shutil.copytree(gallery.path, copy)
    connection.execute("ROLLBACK")
    connection.close()


def test_a_change_cut_off_within_its_commit_is_undone(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    expected = gallery.search(photos / "07.png", 50)
    interrupted(gallery, tmp_path / "copy")
    assert (tmp_path / "copy" / Database.NAME).read_bytes() != (gallery.path / Database.NAME).read_bytes()
    found = Gallery(tmp_path / "copy", encoder=ColourLayout())
    assert found.search(photos / "07.png", 50) == expected
    assert not (tmp_path / "copy" / f"{Database.NAME}-journal").exists()
    assert found.verify(deep=True).ok
    assert found.add(make_picture(photos / "late.png", 77)).added == 1


def test_a_damaged_or_lost_journal_is_no_silent_loss(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    expected = gallery.search(photos / "07.png", 50)
    interrupted(gallery, tmp_path / "copy")
    journal = tmp_path / "copy" / f"{Database.NAME}-journal"
    whole, pages = journal.read_bytes(), (tmp_path / "copy" / Database.NAME).read_bytes()
    rng, refused = random.Random(5), 0
    for number in range(60):
        content = bytearray(whole)
        if number % 3 == 0:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif number % 3 == 1:
            del content[rng.randrange(len(content)) :]
        else:
            content[rng.randrange(28) :] = b""
        (tmp_path / "copy" / Database.NAME).write_bytes(pages)
        journal.write_bytes(content) if number else journal.unlink()
        try:
            assert Gallery(tmp_path / "copy", encoder=ColourLayout()).search(photos / "07.png", 50) == expected
        except GalleryCorrupt:
            refused += 1
    assert refused > 0


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


def test_a_reader_that_does_not_end_is_waited_for_and_then_named(gallery: Gallery, photos: Path) -> None:
    impatient = Gallery(gallery.path, encoder=ColourLayout(), lock_timeout=0.2)
    reader = sqlite3.connect(gallery.path / Database.NAME, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM photos").fetchone()
    with pytest.raises(GalleryBusy, match="being read"):
        impatient.remove(category="cat")
    reader.close()
    assert len(impatient.list()) == 12
    assert len(impatient.remove(category="cat")) == 3


def test_vectors_stay_unit_and_equal_after_many_changes(gallery: Gallery, photos: Path, encoder: ColourLayout) -> None:
    versions = set()
    for number in range(8):
        gallery.add(make_picture(photos / f"more{number}.png", 700 + number))
        versions.add(gallery.info().version)
        gallery.remove([photos / f"more{number}.png"])
        versions.add(gallery.info().version)
    assert len(versions) == 16
    for path in sorted(photos.rglob("[01]*.png")):
        expected = encoder.embed(encoder.preprocess(read_picture(path).pixels)[None])[0]
        assert gallery.search(expected, 1)[0].path == path
        np.testing.assert_allclose(gallery.scores(expected).max(), 1.0, atol=1e-6)
