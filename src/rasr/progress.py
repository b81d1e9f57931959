"""Progress of long work: one signature for all of it, and the seconds each stage took."""

import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

Progress = Callable[[str, float, float], None]
"""``progress(stage, done, total)``: what is being done in a word or two, and how far it is, in the stage's own units.
``total`` is the same in every call of a stage; ``done == total`` ends it. Called from the thread that does the work."""


@contextmanager
def timed(timings: MutableMapping[str, float], stage: str) -> Iterator[None]:
    """Add the wall seconds of a block to ``timings[stage]``, rounded to milliseconds."""
    begun = time.perf_counter()
    yield
    timings[stage] = round(timings.get(stage, 0.0) + time.perf_counter() - begun, 3)
