"""How fast a host may be asked: one pace for each host, shared by all workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

__all__ = ["Interrupted", "Pace", "retry_after"]


class Interrupted(Exception):
    """The build is stopping; raised in the workers so that none of them sleeps on."""


class Pace:
    """Hands out moments at which a request may start, ``1/rate`` seconds apart and never earlier.

    There is no burst: a crawler that was idle for a minute does not then send sixty requests at once. Only the
    monotonic clock is read, so a clock that is wrong or set during the run changes nothing.
    """

    def __init__(
        self, rate: float, *, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], bool] | None = None
    ) -> None:
        """``wait(seconds)`` sleeps and returns True when the build is to stop instead."""
        self._interval = 1.0 / rate
        self._clock = clock
        self._wait = wait or _sleep
        self._next = clock()
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Return when this caller may send one request. Raises Interrupted."""
        while True:
            with self._lock:
                now = self._clock()
                left = self._next - now
                if left <= 0:
                    self._next = now + self._interval
                    return
            # Outside the lock, and looked at again afterwards: another worker may have paused the host meanwhile.
            if self._wait(left):
                raise Interrupted

    def pause(self, seconds: float) -> None:
        """Nobody asks this host again for ``seconds``: it answered 429 or 503."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def retry_after(value: str | None, date: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, or None when there is none that can be read.

    The header is a number of seconds or a date. The date is compared with the same answer's Date header, so that only
    the server's clock is used; without one it is not used at all (RFC 9110, section 10.2.3).
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(date or "")).total_seconds())
    except (ValueError, TypeError):
        return None
