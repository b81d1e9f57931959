"""What is kept, and for how long: ended jobs by age and by bytes, pictures made ready to be shown, galleries' names."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rasr.service import core
from rasr.service.config import ServiceConfig
from rasr.service.core import Service, named
from rasr.service.jobs import Job
from tests.service.conftest import Served, picture

DAY = 86400.0


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that was not started: its queue and its folders, no process."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    one = Service(ServiceConfig(data=tmp_path / "data", preset="bicubic", keep_days=30, keep_bytes=1000))
    yield one
    one.decoders.close()
    one.jobs.close()
    one._lock.release()


def ended(service: Service, name: str, age: float, size: int, state: str = "done") -> Job:
    """A job with files that came to its end so many seconds ago."""
    job = Job(name, f"{name}.png", "digest", 1, {})
    job.bytes = size
    service.jobs.add(job, 100)
    service.folder(job).mkdir()
    (service.folder(job) / "result").write_bytes(bytes(size))
    for kept in ("input", "reference-0"):
        (service.data / "cache" / f"job-{name}-{kept}.png").write_bytes(b"x")
    if state != "queued":
        assert service.jobs.take(60) is not None
        service.jobs.end(name, state)  # type: ignore[arg-type]
        with service.jobs._change() as database:
            database.execute("UPDATE jobs SET finished=? WHERE id=?", (time.time() - age, name))
    return job


def left(service: Service) -> set[str]:
    """Jobs of the table, after it was seen that exactly these have files."""
    ids = service.jobs.ids()
    assert {path.name for path in (service.data / "jobs").iterdir()} == ids
    cached = {path.name.split("-")[1] for path in (service.data / "cache").glob("job-*")}
    assert cached == ids
    return ids


def test_ended_jobs_go_by_age(service: Service) -> None:
    for name, age, state in (("old", 30.1, "done"), ("failed", 31, "failed"), ("young", 29.9, "done")):
        ended(service, name, age * DAY, 1, state)
    service.sweep()
    assert left(service) == {"young"}


def test_the_oldest_go_beyond_the_bytes(service: Service) -> None:
    for number, name in enumerate(("newest", "second", "third", "oldest")):
        ended(service, name, 60.0 * number, 400)
    service.sweep()
    assert left(service) == {"newest", "second"}
    service.sweep()
    assert left(service) == {"newest", "second"}


def test_what_waits_or_runs_is_kept_whatever_its_size(service: Service) -> None:
    ended(service, "running", 0, 5000, "queued")
    assert service.jobs.take(60) is not None
    ended(service, "waiting", 0, 5000, "queued")
    service.sweep()
    assert left(service) == {"running", "waiting"}


def test_pictures_to_be_shown_go_when_they_were_not_asked_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "CACHE_BYTES", 250)
    for number, name in enumerate(("last", "before", "first")):
        file = service.data / "cache" / f"photo-{name}-thumbnail.jpg"
        file.write_bytes(bytes(100))
        os.utime(file, (1e9 - number, 1e9 - number))
    service.sweep()
    assert sorted(path.name for path in (service.data / "cache").iterdir()) == [
        "photo-before-thumbnail.jpg", "photo-last-thumbnail.jpg",
    ]  # fmt: skip


def test_a_service_that_starts_looks_for_what_is_too_old(start: Callable[..., Served]) -> None:
    served = start()
    job = served.ended(served.submit(picture(), scale="1").json()["id"])["id"]
    assert served.stop() == 0
    served.arguments = ("--keep-bytes", 0)
    served.start()
    served.until(lambda: served.client.get(f"/jobs/{job}").status_code == 404)
    served.until(lambda: not list((served.data / "jobs").iterdir()))
    assert served.stop() == 0


def test_galleries_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "Photos", tmp_path / "b" / "Photos", tmp_path / "-:-"]
    assert list(named(folders)) == ["Photos", "Photos 2", "gallery"]
