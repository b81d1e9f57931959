"""Pace of requests: when a host may be asked again, by its known rate and by what it says itself."""

import threading
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from rasr.files import whole_number


class Interrupted(Exception):
    """Raised in the workers when the build is stopping, so that none of them sleeps on."""


class Pace:
    """Pace of one host: moments at which a request may start, ``1/rate`` seconds apart or more.

    There is no burst: a crawler that was idle for a minute does not then send sixty requests at once. Only the
    monotonic clock is read, so a clock that is wrong or set during the run changes nothing.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float], wait: Callable[[float], bool]) -> None:
        """``wait(seconds)`` sleeps and returns True when the build is to stop instead."""
        self._interval = 1.0 / rate
        self._clock = clock
        self._wait = wait
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
        """Let nobody ask this host again for ``seconds``: it answered 429 or 503."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read the seconds to wait from a Retry-After header, or None when none can be read.

    The header is a number of seconds or a date. The date is compared with the same answer's Date header, so that only
    the server's clock is used; without one it is not used at all (RFC 9110, section 10.2.3).
    """
    value, date = headers.get("Retry-After", ""), headers.get("Date", "")
    if (seconds := whole_number(value.strip())) is not None:
        return float(seconds)
    try:
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
