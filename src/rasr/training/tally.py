"""Sums kept on the device between two log rows, so that logging costs no synchronisation in between."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Tally"]


class Tally:
    """Means of the loss terms since the last row, how fast it went and how long data was waited for."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._last: dict[str, Tensor] = {}
        self._null = 0
        self._samples = 0
        self._steps = 0
        self._started = time.perf_counter()

    def add(self, values: Mapping[str, Tensor], kinds: Sequence[str]) -> None:
        """Scalars of one portion, and the kinds of its references."""
        for name, value in values.items():
            value = value.detach().float()  # noqa: PLW2901
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
            self._last[name] = value
        self._null += sum(kind == "null" for kind in kinds)
        self._samples += len(kinds)

    def gradient(self, norm: Tensor) -> None:
        """The gradient's norm of a step."""
        self.add({"grad_norm": norm}, ())

    def step(self) -> None:
        """A step is over."""
        self._steps += 1

    def latest(self) -> dict[str, float]:
        """The last value of everything, for an error message."""
        return {name: float(value) for name, value in self._last.items()}

    def take(self, accelerator: Accelerator, *, waited: float, samples: int) -> dict[str, float]:
        """The row's values, averaged over the processes, and begin anew.

        ``waited``: seconds spent waiting for data; ``samples``: samples of one step over all processes.
        """
        spent = time.perf_counter() - self._started
        names = list(self._sums)
        means = torch.stack([self._sums[name] / self._counts[name] for name in names])
        if accelerator.num_processes > 1:
            means = accelerator.reduce(means, reduction="mean")
        values = dict(zip(names, means.tolist(), strict=True))
        values["data_wait"] = min(1.0, waited / spent) if spent else 0.0
        values["samples_per_s"] = self._steps * samples / spent if spent else 0.0
        values["null_share"] = self._null / max(1, self._samples)
        self._clear()
        return values
