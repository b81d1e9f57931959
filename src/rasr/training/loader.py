"""Data loader: the batches of one process, made ahead by worker processes, and the time spent waiting for them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from rasr.training.batch import TrainingBatch, TrainingSample, collate
from rasr.training.samples import SampleMaker

__all__ = ["BatchStream"]


class _Samples(Dataset[TrainingSample]):
    def __init__(self, maker: SampleMaker) -> None:
        self._maker = maker

    def __getitem__(self, index: int) -> TrainingSample:
        return self._maker.make(index)


class BatchStream:
    """Iterable of the batches of steps ``first_step``..``last_step`` that counts the seconds it was waited for.

    What comes out depends on the numbers alone, not on ``workers``: it can be stopped and started again anywhere.
    """

    def __init__(
        self,
        maker: SampleMaker,
        *,
        first_step: int,
        last_step: int,
        batch: int,
        portions: int = 1,
        process: int = 0,
        processes: int = 1,
        workers: int = 2,
        pin: bool = False,
    ) -> None:
        # Not "fork": LanceDB and torch run threads, which do not survive it. Not "forkserver": its workers do not see
        # that the main process was killed, and stay.
        options: dict[str, Any] = {"prefetch_factor": 4, "multiprocessing_context": "spawn"} if workers else {}
        self._loader = DataLoader(
            _Samples(maker),
            batch_sampler=_portions(range(first_step, last_step), batch, portions, process, processes),
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=_set_up_worker,
            pin_memory=pin,
            **options,
        )
        self.waited = 0.0
        """Seconds spent waiting since the last :meth:`take_waited`."""

    def __iter__(self) -> Iterator[TrainingBatch]:
        batches = iter(self._loader)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def take_waited(self) -> float:
        """Return the seconds waited, and start counting anew."""
        waited, self.waited = self.waited, 0.0
        return waited


def _portions(steps: range, batch: int, portions: int, process: int, processes: int) -> Iterator[list[int]]:
    """Number the samples of each portion of each step, for one process: step by step, portion by portion."""
    mine = batch // processes
    size = mine // portions
    for step in steps:
        start = step * batch + process * mine
        for portion in range(portions):
            yield list(range(start + portion * size, start + (portion + 1) * size))


def _set_up_worker(_worker: int) -> None:
    """Keep to one core and leave Ctrl-C to the main process, which finishes its step and saves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
