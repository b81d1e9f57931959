"""Jobs handed to the replicas of a cluster, stand-ins here: order, cancelling, losses, and an orderly stop."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rasr.errors import GalleryError
from rasr.service import replicas
from rasr.service.config import ServiceConfig
from rasr.service.jobs import Job, Jobs
from rasr.service.metrics import Metrics
from rasr.service.replicas import Replicas
from rasr.service.running import Parts

DONE = {"ended": True, "outcome": {"bytes": 1}, "restarts": 0}


class Desk:
    """The worker beside the replicas, which is ready."""

    def __init__(self, *_: Any, restores: bool) -> None:
        assert not restores
        self.ready, self.why, self.galleries = True, "", dict[str, str]()
        self.asked: list[str] = []

    def start(self) -> None: ...

    def stop(self, seconds: float) -> None: ...

    def measure(self) -> None: ...

    def ask(self, do: str, **said: Any) -> None:
        self.asked.append(do)


class Stream:
    """What a replica tells: whatever the test lets it."""

    def __init__(self, said: Mapping[str, Any], files: Mapping[str, bytes], removed: int) -> None:
        self.said, self.files, self.removed = said, files, removed
        self.cancelled = False
        self.told = queue.SimpleQueue[Any]()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (one := self.told.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one

    def cancel(self) -> None:
        self.cancelled = True
        self.told.put(RuntimeError("cancelled"))

    def tell(self, *told: Any) -> None:
        for one in told:
            self.told.put(one)


class Cluster:
    """Replicas whose work is the test's."""

    def __init__(self, most: int) -> None:
        self.most, self.streams = most, list[Stream]()
        self.state: tuple[int, str] | Exception = most, ""

    def restore(self, said: Mapping[str, Any], files: Mapping[str, bytes], removed: int) -> Stream:
        self.streams.append(Stream(said, files, removed))
        return self.streams[-1]

    def look(self) -> tuple[int, str]:
        if isinstance(self.state, Exception):
            raise self.state
        return self.state


class House:
    """A service's parts around the dispatcher."""

    def __init__(self, data: Path, most: int) -> None:
        self.data, self.cluster, self.metrics = data, Cluster(most), Metrics()
        (data / "tmp").mkdir(parents=True)
        self.jobs, self.published = Jobs(data / "jobs.db"), list[str]()
        self.gone: set[str] = set()
        config = ServiceConfig(data=data, preset="bicubic")
        self.replicas = Replicas(
            Parts(config, self.jobs, self, self.metrics, {}, self.prepare, lambda job: data / job.id),
            cluster=self.cluster,
        )

    def publish(self, job: str) -> None:
        self.published.append(job)

    def prepare(self, job: Job) -> dict[str, Any]:
        if job.id in self.gone:
            raise GalleryError("The gallery is gone.")
        folder = self.data / job.id
        return {
            "job": job.id, "folder": str(folder), "input": str(folder / "in.png"), "references": [],
            "output": str(folder / "result" / "out.png"), "gallery": "/galleries/zoo",
        }  # fmt: skip

    def add(self, *names: str) -> None:
        for name in names:
            (self.data / name / "result").mkdir(parents=True)
            (self.data / name / "in.png").write_bytes(name.encode())
            self.jobs.add(Job(name, f"{name}.png", "digest", 1, {}, bytes=len(name)), 100)
        self.replicas.wake()

    def state(self, name: str) -> str | None:
        job = self.jobs.get(name)
        return None if job is None else job.state

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def handed(self, count: int) -> list[Stream]:
        self.until(lambda: len(self.cluster.streams) == count)
        return self.cluster.streams

    def cancel(self, name: str) -> None:
        """As the service does it."""
        self.jobs.cancel(name)
        self.replicas.cancel(name)


@pytest.fixture
def open_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], House]]:
    monkeypatch.setattr(replicas, "Supervisor", Desk)
    monkeypatch.setattr(replicas, "LOOK", 0.05)
    monkeypatch.setattr(replicas, "REST", 0.2)
    opened: list[House] = []

    def begin(most: int) -> House:
        opened.append(House(tmp_path / f"data{len(opened)}", most))
        opened[-1].replicas.start()
        return opened[-1]

    yield begin
    for house in opened:
        house.replicas.stop(0)
        house.jobs.close()


def test_as_many_run_as_there_may_be_and_in_their_order(open_house: Callable[[int], House]) -> None:
    house = open_house(2)
    house.add("a", "b", "c")
    first, second = house.handed(2)
    assert {bytes(one.files["in.png"]) for one in (first, second)} == {b"a", b"b"}
    assert [house.state(name) for name in "abc"] == ["queued"] * 3, "nobody has begun"
    for one in (first, second):
        one.tell({"begun": "here"}, {"progress": [{"stage": "restore", "done": 1, "total": 4}]})
    house.until(lambda: [house.state(name) for name in "abc"] == ["running", "running", "queued"])
    house.until(lambda: house.replicas.progress_of("a").done == house.replicas.progress_of("b").done == 1)
    for one in (first, second):
        one.tell({"progress": [{"stage": "restore", "done": done, "total": 4} for done in (2, 3)]}, DONE, None)
    house.until(lambda: [house.state(name) for name in "ab"] == ["done"] * 2)
    assert len(house.handed(3)) == 3
    assert "rasr_tiles_total 4.0" in house.metrics.text().decode()


def test_files_are_placed_before_the_job_is_done_and_no_others(open_house: Callable[[int], House]) -> None:
    house = open_house(1)
    house.add("a")
    (one,) = house.handed(1)
    one.tell(
        {"begun": "here"}, {"file": "result/out.png", "content": b"one"}, {"file": "result/out.png", "content": b"two"}
    )
    one.tell({"file": "view.png", "content": b"view"}, {"file": "../../evil", "content": b"x"}, DONE, None)
    house.until(lambda: house.state("a") == "done")
    files = {
        path.relative_to(house.data).as_posix(): path.read_bytes() for path in house.data.rglob("*") if path.is_file()
    }
    assert {name: content for name, content in files.items() if not name.startswith("jobs.db")} == {
        "a/in.png": b"a", "a/result/out.png": b"onetwo", "a/view.png": b"view",
    }  # fmt: skip
    job = house.jobs.get("a")
    assert job is not None
    assert job.bytes == len("a" + "onetwo" + "view")


def test_a_lost_replica_costs_the_job_it_had(open_house: Callable[[int], House]) -> None:
    house = open_house(2)
    house.add("a", "b")
    streams = {bytes(one.files["in.png"]): one for one in house.handed(2)}
    for one in streams.values():
        one.tell({"begun": "here"}, {"file": "view.png", "content": b"half"})
    house.until(lambda: house.state("a") == house.state("b") == "running")
    streams[b"a"].tell(RuntimeError("The actor died unexpectedly."))
    house.until(lambda: house.state("a") == "failed")
    job = house.jobs.get("a")
    assert job is not None
    assert job.error == "a.png: the process that restored it was lost (The actor died unexpectedly). Send it again."
    streams[b"b"].tell(DONE, None)
    house.until(lambda: house.state("b") == "done")
    assert not list((house.data / "tmp").iterdir())
    assert "rasr_worker_restarts_total 1.0" in house.metrics.text().decode()


def test_one_that_says_nothing_is_lost(open_house: Callable[[int], House], monkeypatch: pytest.MonkeyPatch) -> None:
    house = open_house(1)
    house.add("a")
    (one,) = house.handed(1)
    one.tell({"begun": "here"})
    house.until(lambda: house.state("a") == "running")
    monkeypatch.setattr(replicas, "SILENCE", 0.2)
    house.until(lambda: house.state("a") == "failed")
    assert "no sign of life" in str(getattr(house.jobs.get("a"), "error", ""))
    house.until(lambda: one.cancelled)


def test_who_could_not_begin_waits_on(open_house: Callable[[int], House]) -> None:
    house = open_house(1)
    house.add("a")
    (one,) = house.handed(1)
    one.tell(RuntimeError("no replica"))
    again = house.handed(2)[1]
    assert house.state("a") == "queued"
    again.tell({"begun": "here"}, DONE, None)
    house.until(lambda: house.state("a") == "done")


def test_what_cannot_be_handed_out_fails_with_its_reason(open_house: Callable[[int], House]) -> None:
    house = open_house(1)
    house.gone.add("a")
    house.add("a", "b")
    house.until(lambda: house.state("a") == "failed")
    assert getattr(house.jobs.get("a"), "error", "") == "The gallery is gone."
    (house.data / "c" / "result").mkdir(parents=True)
    house.jobs.add(Job("c", "c.png", "digest", 1, {}), 100)  # without its picture
    house.handed(1)[0].tell({"begun": "here"}, DONE, None)
    house.until(lambda: house.state("c") == "failed")
    assert house.state("b") == "done"


def test_waiting_and_running_jobs_are_cancelled(open_house: Callable[[int], House]) -> None:
    house = open_house(2)
    house.add("a", "b", "c")
    streams = {bytes(one.files["in.png"]): one for one in house.handed(2)}
    house.cancel("b")  # handed out, and nobody has begun
    house.until(lambda: streams[b"b"].cancelled)
    assert house.state("b") == "cancelled"
    streams[b"a"].tell({"begun": "here"})
    house.until(lambda: house.state("a") == "running")
    house.cancel("a")
    house.until(lambda: house.state("a") == "cancelled")
    assert streams[b"a"].cancelled
    assert bytes(house.handed(3)[2].files["in.png"]) == b"c"
    assert "rasr_worker_restarts_total 0.0" in house.metrics.text().decode()


def test_one_that_was_cancelled_as_it_began_is_let_go(open_house: Callable[[int], House]) -> None:
    house = open_house(1)
    house.add("a")
    (one,) = house.handed(1)
    house.jobs.cancel("a")
    one.tell({"begun": "here"})
    house.until(lambda: one.cancelled)
    assert house.state("a") == "cancelled"


def test_a_stop_waits_for_what_runs_and_puts_the_rest_back(open_house: Callable[[int], House]) -> None:
    house = open_house(2)
    house.add("a", "b")
    streams = {bytes(one.files["in.png"]): one for one in house.handed(2)}
    for one in streams.values():
        one.tell({"begun": "here"})
    house.until(lambda: house.state("a") == house.state("b") == "running")
    streams[b"a"].tell(DONE, None)
    house.until(lambda: house.state("a") == "done")
    house.replicas.stop(0.3)
    assert (house.state("a"), house.state("b")) == ("done", "queued")
    house.until(lambda: streams[b"b"].cancelled)


def test_ready_is_told_with_the_reason(open_house: Callable[[int], House]) -> None:
    house = open_house(3)
    house.until(lambda: house.replicas.ready)
    assert house.replicas.lanes == 3
    house.cluster.state = 0, "No restorer could be started: no weights"
    house.until(lambda: not house.replicas.ready)
    assert (house.replicas.why, house.replicas.lanes) == ("No restorer could be started: no weights", 1)
    house.cluster.state = RuntimeError("no controller")
    house.until(lambda: "out of reach: no controller" in house.replicas.why)
    house.replicas.measure()
    assert "rasr_restorers 0.0" in house.metrics.text().decode()
    assert "rasr_worker_ready 0.0" in house.metrics.text().decode()


def test_a_gallery_that_was_removed_is_told_to_whoever_may_know_it(open_house: Callable[[int], House]) -> None:
    house = open_house(1)
    house.replicas.ask("remove", gallery="/galleries/zoo")
    house.add("a")
    assert house.handed(1)[0].removed == 1
