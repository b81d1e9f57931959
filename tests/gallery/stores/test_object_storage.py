"""Several writers, kills, lost answers, busy and dishonest storage: what a gallery on object storage comes through."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from rasr.errors import GalleryError, GalleryNotFound, StorageRefused
from rasr.files import xxh3_file
from rasr.gallery import Gallery
from rasr.gallery.lance_store import LanceStore
from tests.gallery.standin import ColourLayout, make_picture
from tests.objects.proxy import Fault, Proxy, free_port
from tests.objects.servers import CREDENTIALS

WORKER = Path(__file__).parent / "lance_worker.py"
SOURCE = Path(__file__).parents[3] / "src"


@pytest.fixture
def place(s3: str) -> str:
    pytest.importorskip("lancedb")
    return f"{s3}/zoo"


@contextmanager
def through(server: str, fault: Fault, patch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Talk to the server by a proxy with faults."""
    with Proxy(server, fault) as proxy, patch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", proxy.address)
        yield proxy


def start(place: str, log: Path, size: int, photos: list[Path]) -> subprocess.Popen[str]:
    """A process that will add photos once it is told to."""
    return subprocess.Popen(
        [sys.executable, str(WORKER), place, str(log), str(size), *map(str, photos)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def make_photos(folder: Path, writers: int, each: int) -> list[list[Path]]:
    """For every writer ``each`` photos, half of which all of them have."""
    shared = [make_picture(folder / "shared" / f"{n:04d}.png", n, (24, 16)) for n in range(each // 2)]
    own = [
        [make_picture(folder / f"own-{w}" / f"{n:04d}.png", 10_000 * w + n, (24, 16)) for n in range(each - each // 2)]
        for w in range(1, writers + 1)
    ]
    lists = [[*mine, *shared] for mine in own]
    for number, photos in enumerate(lists):
        random.Random(number).shuffle(photos)
    return lists


def ids(photos: list[list[Path]]) -> set[str]:
    return {xxh3_file(path) for some in photos for path in some}


def stored(place: str) -> Counter[str]:
    """Every row's id, doubled ones counted."""
    return Counter(photo.id for photo, what in LanceStore(place).inspect() if photo is not None)


def several_writers(place: str, tmp_path: Path, *, each: int, size: int) -> None:
    lists = make_photos(tmp_path / "photos", 4, each)
    workers = [start(place, tmp_path / f"log-{w}", size, photos) for w, photos in enumerate(lists)]
    for worker in workers:
        go(worker)
    reports = []
    for worker in workers:
        out, _ = worker.communicate(timeout=1500)
        assert worker.returncode == 0
        reports.append(json.loads(out))
    assert [one["failed"] for one in reports] == [[]] * 4
    found = stored(place)
    assert set(found) == ids(lists), "photos lost, or of nobody"
    assert max(found.values()) == 1, "photos doubled"
    report = Gallery(place).verify()
    assert report.ok, report.problems[:5]
    assert len(Gallery(place)) == each // 2 + 4 * (each - each // 2)


def test_four_processes_add_half_of_the_same_photos(shared: str, tmp_path: Path) -> None:
    several_writers(shared, tmp_path, each=24, size=6)


@pytest.mark.large
@pytest.mark.timeout(1800)
def test_four_processes_add_500_photos_each(shared: str, tmp_path: Path) -> None:
    several_writers(shared, tmp_path, each=500, size=50)


def killed_writers(place: str, tmp_path: Path, *, kills: int, each: int, size: int, others: int) -> None:
    lists = make_photos(tmp_path / "photos", 1 + others, each)
    rng = random.Random(5)
    beside = [start(place, tmp_path / f"other-{w}", size, photos) for w, photos in enumerate(lists[1:])]
    for worker in beside:
        go(worker)
    mine = {xxh3_file(path) for path in lists[0] if path.parent.name == "own-1"}
    acknowledged: set[str] = set()
    for kill in range(kills):
        log = tmp_path / f"killed-{kill}"
        worker = start(place, log, size, lists[0])
        go(worker)
        until, end = rng.randint(0, 2), time.monotonic() + 60
        while worker.poll() is None and time.monotonic() < end:
            done = log.read_text().count('"done"') if log.exists() else 0
            if done >= until:
                break
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        batches = [line for line in lines if line != "done"]
        acknowledged |= {photo for batch in batches[: lines.count("done")] for photo in batch}
        try:
            there = set(stored(place))
        except GalleryNotFound:
            there = set()
        assert acknowledged <= there, "acknowledged photos are gone"
        for batch in batches:
            only_mine = mine.intersection(batch)
            assert len(only_mine & there) in {0, len(only_mine)}, "half a batch"
    last = start(place, tmp_path / "last", size, lists[0])
    go(last)
    for worker in (*beside, last):
        worker.communicate(timeout=900)
        assert worker.returncode == 0
    found = stored(place)
    assert set(found) == ids(lists)
    assert max(found.values()) == 1


def test_a_killed_writer_loses_nothing_acknowledged(shared: str, tmp_path: Path) -> None:
    killed_writers(shared, tmp_path, kills=2, each=24, size=4, others=1)


@pytest.mark.large
@pytest.mark.timeout(1800)
def test_one_of_four_writers_is_killed_ten_times(shared: str, tmp_path: Path) -> None:
    killed_writers(shared, tmp_path, kills=10, each=200, size=10, others=3)


def test_a_commit_whose_answer_is_lost_is_applied_once(
    place: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty times the storage does the PUT of a commit and its answer never arrives."""
    monkeypatch.setattr(LanceStore, "commit_photos", 1)
    monkeypatch.setattr("rasr.gallery.ingest.BATCH", 1)
    photos = [make_picture(tmp_path / "photos" / f"{n}.png", n) for n in range(20)]
    Gallery(place, encoder=ColourLayout()).add(make_picture(tmp_path / "first.png", 99))
    seen: set[str] = set()

    def drop_first(method: str, path: str, headers: dict[str, str]) -> str:
        if method != "PUT" or "/_versions/" not in path or path in seen:
            return ""
        seen.add(path)
        return "drop"

    before = int(LanceStore(place).manifest().version.partition(".")[0])
    with through(s3_server, drop_first, monkeypatch) as proxy:
        report = Gallery(place, encoder=ColourLayout()).add(photos)
    assert (report.added, report.failed) == (20, [])
    assert len(proxy.done) == 20
    assert int(LanceStore(place).manifest().version.partition(".")[0]) == before + 20
    found = stored(place)
    assert set(found) == ids([photos]) | {xxh3_file(tmp_path / "first.png")}
    assert max(found.values()) == 1


@pytest.mark.parametrize("seed", range(3))
def test_busy_storage_leaves_whole_batches(
    place: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Bursts of 503, answers lost before and after they took effect: a batch is there or it is not."""
    monkeypatch.setattr(LanceStore, "commit_photos", 4)
    monkeypatch.setattr("rasr.gallery.ingest.BATCH", 4)
    photos = [make_picture(tmp_path / "photos" / f"{n:02d}.png", n) for n in range(24)]
    rng, burst = random.Random(seed), [0]

    def busy(method: str, path: str, headers: dict[str, str]) -> str:
        if burst[0]:
            burst[0] -= 1
            return "503"
        if rng.random() < 0.1:
            burst[0] = rng.randint(1, 4)
        return rng.choices(("", "drop"), (20, 1))[0]

    # It may give up: what is there is whole.
    with through(s3_server, busy, monkeypatch) as proxy, suppress(GalleryError):
        assert Gallery(place, encoder=ColourLayout()).add(photos).failed == []
    assert len(proxy.done) > 5
    for version in versions(place):
        assert version % 4 == 0, "half a batch was to be seen"
    assert Gallery(place, encoder=ColourLayout()).add(photos).failed == []
    found = stored(place)
    assert set(found) == ids([photos])
    assert max(found.values()) == 1


def versions(place: str) -> list[int]:
    """Number of rows of every version there is."""
    import lancedb

    table = lancedb.connect(place).open_table("photos")
    counts = []
    for version in table.list_versions():
        table.checkout(version["version"])
        counts.append(table.count_rows())
    return counts


@pytest.mark.large
def test_storage_that_does_not_answer_is_given_up_and_gone_on_with(
    place: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [make_picture(tmp_path / "photos" / f"{n:02d}.png", n) for n in range(8)]
    left = [6]

    def silent(method: str, path: str, headers: dict[str, str]) -> str:
        if method == "PUT" and "/_versions/" in path and left[0]:
            left[0] -= 1
            return "silent"
        return ""

    with through(s3_server, silent, monkeypatch) as proxy, suppress(GalleryError):
        Gallery(place, encoder=ColourLayout()).add(photos)
    assert proxy.done
    Gallery(place, encoder=ColourLayout()).add(photos)
    found = stored(place)
    assert set(found) == ids([photos])
    assert max(found.values()) == 1


def dishonest(method: str, path: str, headers: dict[str, str]) -> str:
    """As s3rver 3.7.1 and fauxqs 2.4.1 do: the condition is not looked at."""
    return "unconditional" if {"if-none-match", "if-match"} & {*headers} else ""


def test_storage_that_ignores_conditions_is_refused_before_anything_is_written(
    place: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = make_picture(tmp_path / "photos" / "a.png", 1)
    with through(s3_server, dishonest, monkeypatch) as proxy:
        with pytest.raises(StorageRefused, match="photos that were added would be gone without an error"):
            Gallery(place, encoder=ColourLayout()).add(photo)
        assert proxy.done
    assert objects(place) == []
    gallery = Gallery(place, encoder=ColourLayout())
    gallery.add(photo)
    with through(s3_server, dishonest, monkeypatch):
        opened = Gallery(place, encoder=ColourLayout())
        assert len(opened.search(photo, 1)) == 1, "it can be read"
        before = objects(place)
        for change in (lambda: opened.remove([photo]), lambda: opened.add(make_picture(tmp_path / "b.png", 2))):
            with pytest.raises(StorageRefused):
                change()
        assert objects(place) == before
        report = opened.verify()
        assert [problem.kind for problem in report.problems] == ["storage"]
        assert "If-None-Match" in report.problems[0].what
    assert gallery.verify().ok


def objects(place: str) -> list[str]:
    import obstore
    from obstore.store import from_url

    return sorted(item["path"] for some in obstore.list(from_url(place)) for item in some)


def test_doubled_rows_are_shown_once_and_reported(shared: str, tmp_path: Path) -> None:
    """What a plain append beside the merges does."""
    import lancedb

    gallery = Gallery(shared, encoder=ColourLayout())
    photo = make_picture(tmp_path / "photos" / "a.png", 1)
    gallery.add([photo, make_picture(tmp_path / "photos" / "b.png", 2)])
    table = lancedb.connect(shared).open_table("photos")
    table.add(table.to_arrow().slice(0, 1))
    assert len(gallery.list()) == 2
    assert len(gallery.search(photo, 5)) == 2
    report = gallery.verify()
    assert [(problem.kind, "stored twice" in problem.what) for problem in report.problems] == [("row", True)]


def test_a_storage_that_is_not_there_is_one_sentence_without_secrets(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(GalleryNotFound, match="no such bucket"):
        len(Gallery("s3://rasr-no-such-bucket/zoo"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("rasr.gallery.lance_table.RETRY_SECONDS", 1)
    with pytest.raises(GalleryError, match="Check the address, the credentials") as caught:
        len(Gallery(place))
    for secret in CREDENTIALS.values():
        assert secret not in str(caught.value) or secret == "us-east-1"


def test_scores_are_those_of_a_gallery_in_a_folder(shared: str, tmp_path: Path) -> None:
    photos = [make_picture(tmp_path / "photos" / f"{n:03d}.png", n) for n in range(60)]
    here, there = Gallery(tmp_path / "here", encoder=ColourLayout()), Gallery(shared, encoder=ColourLayout())
    here.add(photos)
    there.add(photos[:30])
    there.add(photos)
    for number in range(10):
        query = make_picture(tmp_path / "query.png", 1000 + number)
        ours, theirs = here.search(query, 60), there.search(query, 60)
        assert [one.path for one in ours] == [one.path for one in theirs]
        np.testing.assert_allclose([one.score for one in ours], [one.score for one in theirs], atol=1e-6, rtol=0)
