"""Batches for one process of a run, made ahead by worker processes, with the time spent waiting for them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from rasr.training.batch import Sample, TrainingBatch, collate
from rasr.training.samples import SampleMaker

__all__ = ["BatchStream"]


class _Samples(Dataset[Sample]):
    def __init__(self, maker: SampleMaker) -> None:
        self._maker = maker

    def __getitem__(self, index: int) -> Sample:
        return self._maker.make(index)


class _Portions(Sampler[list[int]]):
    """Sample numbers of each portion of each step, for one process: step by step, portion by portion."""

    def __init__(
        self, first_step: int, last_step: int, batch: int, portions: int, process: int, processes: int
    ) -> None:
        self._steps = range(first_step, last_step)
        self._batch = batch
        self._portions = portions
        self._process, self._processes = process, processes

    def __iter__(self) -> Iterator[list[int]]:
        mine = self._batch // self._processes
        size = mine // self._portions
        for step in self._steps:
            start = step * self._batch + self._process * mine
            for portion in range(self._portions):
                yield list(range(start + portion * size, start + (portion + 1) * size))

    def __len__(self) -> int:
        return len(self._steps) * self._portions


class BatchStream:
    """Iterates over the batches of steps ``first_step``..``last_step`` and counts the seconds it kept its user waiting.

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
            batch_sampler=_Portions(first_step, last_step, batch, portions, process, processes),
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=_quiet,
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
        """The seconds waited, and start counting anew."""
        waited, self.waited = self.waited, 0.0
        return waited


def _quiet(_worker: int) -> None:
    """Workers use one core each and leave Ctrl-C to the main process, which finishes its step and saves."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
