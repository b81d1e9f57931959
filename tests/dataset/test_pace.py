"""Rates and waiting, on a clock that only moves when somebody waits."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from rasr.dataset.pace import Interrupted, Pace, retry_after


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
def test_retry_after(value: str | None, date: str | None, expected: float | None) -> None:
    assert retry_after(value, date) == expected
