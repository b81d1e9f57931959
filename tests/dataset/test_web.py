"""The polite client against servers that are slow, wrong, rude or gone; rates and waiting on a clock of our own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from rasr.dataset.pace import Interrupted, Pace, retry_after
from rasr.dataset.web import Download, FetchError, Web
from rasr.errors import SourceError
from tests.dataset.photo_sites import Photo, World, picture, serving


@pytest.fixture
def base(world: World) -> Iterator[str]:
    with serving(world) as address:
        yield address


def _web(**settings: object) -> Web:
    fast = {"rates": {"127.0.0.1": 1000.0}, "back_off": 0.0, "attempts": 3, "timeout": 5.0, "loopback": True}
    return Web(Download.model_validate(fast | settings), "rasr-tests (tests@rasr.invalid)")


def _photo(world: World, fault: str, number: int = 42) -> str:
    world.photos.append(Photo(number, "thing", "flickr", "somebody", fault=fault))
    return f"/img/{number}/original.jpg"


def test_a_photo_arrives_whole_and_the_agent_is_named(world: World, base: str, tmp_path: Path) -> None:
    path = _photo(world, "")
    with _web() as web:
        web.download(base + path, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == picture(42, "thing", 360, 340)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert world.requests[0][2] == "rasr-tests (tests@rasr.invalid)"


def test_a_broken_connection_is_continued_not_begun_again(world: World, base: str, tmp_path: Path) -> None:
    path = _photo(world, "cut")
    with _web() as web:
        web.download(base + path, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == picture(42, "thing", 360, 340)
    assert len(world.ranges) == 1
    assert world.ranges[0] != "bytes=0-"


def test_a_part_of_another_version_is_not_continued(world: World, base: str, tmp_path: Path) -> None:
    path = _photo(world, "")
    (tmp_path / "a.part").write_bytes(b"old" * 100)
    (tmp_path / "a.part.mark").write_text('"of-another-version"')
    with _web() as web:
        web.download(base + path, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == picture(42, "thing", 360, 340)
    assert not world.ranges


def test_a_part_left_by_a_killed_build_is_continued(world: World, base: str, tmp_path: Path) -> None:
    path = _photo(world, "")
    whole = picture(42, "thing", 360, 340)
    (tmp_path / "a.part").write_bytes(whole[:1000])
    (tmp_path / "a.part.mark").write_text(f'"42-{len(whole)}"')
    with _web() as web:
        web.download(base + path, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == whole
    assert world.ranges == ["bytes=1000-"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("dead", "dead link"),
        ("unavailable", "dead link"),
        ("redirect-loop", "redirect loop"),
        ("503", "server trouble"),
        ("huge", "too large"),
        ("forever", "rate limit"),
    ],
)
def test_what_does_not_work_is_named_and_leaves_no_file(
    world: World, base: str, tmp_path: Path, fault: str, kind: str
) -> None:
    path = _photo(world, fault)
    with _web(max_megabytes=1.0) as web, pytest.raises(FetchError) as raised:
        web.download(base + path, tmp_path / "a")
    assert raised.value.kind == kind
    assert not (tmp_path / "a").exists()
    assert not list(tmp_path.iterdir())


def test_an_announced_giant_is_refused_before_its_body(world: World, base: str, tmp_path: Path) -> None:
    path = _photo(world, "")
    with _web(max_megabytes=0.001) as web, pytest.raises(FetchError, match="announces"):
        web.download(base + path, tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [42, 43])
def test_server_errors_and_rate_limits_are_waited_out(world: World, base: str, tmp_path: Path, number: int) -> None:
    """Both forms of Retry-After; the server's clock is a year fast, which must not make the client wait a year."""
    world.clock_error = 365 * 86400.0
    flaky, throttled = _photo(world, "flaky", 7), _photo(world, "throttled", number)
    with _web() as web:
        web.download(base + flaky, tmp_path / "a")
        web.download(base + throttled, tmp_path / "b")
    assert world.tries == {7: 3, number: 2}


def test_a_host_that_asks_for_a_day_is_left_alone(world: World, base: str, tmp_path: Path) -> None:
    path = _photo(world, "forever")
    with _web() as web:
        for _ in range(5):
            with pytest.raises(FetchError, match="asks to wait 1440 minutes"):
                web.download(base + path, tmp_path / "a")
    assert len(world.requests) == 1


def test_a_page_that_is_no_picture(world: World, base: str, tmp_path: Path) -> None:
    path = _photo(world, "html")
    with _web() as web, pytest.raises(FetchError) as raised:
        web.download(base + path, tmp_path / "a")
    assert raised.value.kind == "not a picture"


def test_nobody_answers(tmp_path: Path) -> None:
    with _web() as web, pytest.raises(FetchError) as raised:
        web.download("http://127.0.0.1:9/x.jpg?api_key=secret", tmp_path / "a")
    assert raised.value.kind == "no connection"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "nonsense"])
def test_addresses_that_are_not_of_the_web(url: str, tmp_path: Path) -> None:
    with _web() as web, pytest.raises(FetchError):
        web.download(url, tmp_path / "a")


def test_downloads_are_concurrent_and_within_the_rate(world: World, base: str, tmp_path: Path) -> None:
    world.delay = 0.1
    paths = [_photo(world, "", number) for number in range(1, 25)]
    with _web(rates={"127.0.0.1": 40.0}, workers=8) as web:
        workers = [
            threading.Thread(target=web.download, args=(base + path, tmp_path / str(index)))
            for index, path in enumerate(paths)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    moments = sorted(moment for moment, _, _ in world.requests)
    # 24 requests at 40 a second span at least 23 intervals; a slow machine only makes it longer. The first and last
    # request may reach the server late by what one thread switch takes.
    assert moments[-1] - moments[0] >= 23 / 40 * 0.8
    assert 1 < world.most_running <= 8
    assert len(list(tmp_path.iterdir())) == 24


def test_stopping_ends_waiting_workers(world: World, base: str, tmp_path: Path) -> None:
    paths = [_photo(world, "", number) for number in (1, 2)]
    web = _web(rates={"127.0.0.1": 0.001})
    web.download(base + paths[0], tmp_path / "a")
    threading.Timer(0.2, web.stop).start()
    started = time.monotonic()
    with pytest.raises(Interrupted):
        web.download(base + paths[1], tmp_path / "b")
    assert time.monotonic() - started < 60
    web.__exit__()


def test_a_contact_with_any_letters_is_sent(world: World, base: str, tmp_path: Path) -> None:
    path = _photo(world, "")
    with Web(Download(rates={"127.0.0.1": 1000.0}, loopback=True), "rasr (Zoo Zürich)") as web:
        web.download(base + path, tmp_path / "a")
    assert world.requests[0][2].startswith("rasr (Zoo Z")


def test_offline_means_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASR_OFFLINE", "1")
    with _web() as web:
        web.ready("http://127.0.0.1:80/")
        with pytest.raises(SourceError, match=r"www\.flickr\.com is not asked"):
            web.ready("https://www.flickr.com/services/rest/")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        with self.lock:
            self.now += seconds
        return False


def test_requests_are_spread_evenly_and_idle_time_gives_no_burst() -> None:
    clock = Clock()
    pace = Pace(4, clock=clock, wait=clock.wait)
    times = []
    for step in range(12):
        pace.acquire()
        times.append(clock.now)
        if step == 5:
            clock.now += 60
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) >= 0.25 - 1e-9
    assert sum(gaps) == pytest.approx(60 + 10 * 0.25, abs=0.3)


def test_workers_share_one_pace() -> None:
    clock = Clock()
    pace = Pace(10, clock=clock, wait=clock.wait)
    times: list[float] = []

    def work() -> None:
        for _ in range(20):
            pace.acquire()
            times.append(clock.now)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    # 80 requests need 79 intervals: the clock cannot have moved by less.
    assert clock.now - 1000 >= 7.9 - 1e-6


def test_a_pause_holds_everyone_back() -> None:
    clock = Clock()
    pace = Pace(10, clock=clock, wait=clock.wait)
    pace.acquire()
    pace.pause(30)
    pace.acquire()
    assert clock.now >= 1030


def test_stopping_wakes_the_sleeper() -> None:
    pace = Pace(0.001, clock=lambda: 5.0, wait=lambda _: True)
    pace.acquire()
    with pytest.raises(Interrupted):
        pace.acquire()


@pytest.mark.parametrize(
    ("value", "date", "expected"),
    [
        ("7", None, 7.0),
        (" 120 ", "Mon, 23 Nov 2026 10:00:00 GMT", 120.0),
        # The server's clock is years off; only the difference between its own two dates counts.
        ("Thu, 01 Jan 1998 00:00:30 GMT", "Thu, 01 Jan 1998 00:00:00 GMT", 30.0),
        ("Thu, 01 Jan 1998 00:00:00 GMT", "Thu, 01 Jan 1998 00:00:30 GMT", 0.0),
        ("Thu, 01 Jan 1998 00:00:30 GMT", None, None),
        ("soon", "Thu, 01 Jan 1998 00:00:00 GMT", None),
        ("-5", None, None),
        (None, None, None),
    ],
)
def testretry_after(value: str | None, date: str | None, expected: float | None) -> None:
    assert (
        retry_after({name: text for name, text in (("Retry-After", value), ("Date", date)) if text is not None})
        == expected
    )
