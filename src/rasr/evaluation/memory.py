"""Time and peak memory of a piece of work in this process."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Meter"]

_STATM = Path("/proc/self/statm")


class Meter:
    """Context manager: wall seconds, and the highest resident set sampled every 10 ms plus peak CUDA memory.

    Outside Linux the resident set is not sampled and only CUDA memory is counted.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.memory = 0
        self._stop = threading.Event()
        self._peak = 0

    def __enter__(self) -> Meter:
        self._cuda = _cuda()
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._begun = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._begun
        self._stop.set()
        self._thread.join()
        self.memory = self._peak + (self._cuda.max_memory_allocated() if self._cuda is not None else 0)

    def _sample(self) -> None:
        if not _STATM.exists():
            return
        page = os.sysconf("SC_PAGE_SIZE")
        while True:
            self._peak = max(self._peak, int(_STATM.read_text(encoding="ascii").split()[1]) * page)
            if self._stop.wait(0.01):
                return


def _cuda() -> Any:  # noqa: ANN401  (the module torch.cuda, when torch is loaded and has a device)
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
