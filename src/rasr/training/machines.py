"""Several processes of one training, on one machine or on more: they begin alike, and none waits for one that died."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from rasr.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """Raise ClusterError where what the processes exchange fails, since one of them has ended or cannot be reached."""
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes < 2 or not _of_exchange(error):
            raise
        raise ClusterError(
            f"Another process of this training has ended or cannot be reached ({str(error).splitlines()[0][:200]}). "
            "What it says itself tells why. The last checkpoint is kept: start all processes again with --resume."
        ) from error


def check_alike(accelerator: Accelerator, step: int, facts: Mapping[str, str]) -> None:
    """Compare with the other processes the step from which each goes on, and the hashes of its photos and networks.

    Raises ConfigError where they differ, in all processes: they would train something that is no model of either.
    """
    if accelerator.num_processes < 2:
        return
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=6).digest()
    mine = torch.tensor([[step, int.from_bytes(digest, "big")]], device=accelerator.device)
    steps, digests = (column.tolist() for column in accelerator.gather(mine).T)
    if len({*steps}) > 1:
        raise ConfigError(
            f"The processes of this training would go on from different steps ({', '.join(map(str, steps))}, process "
            "by process): all machines must see the same folder of the run (--out)."
        )
    if len({*digests}) > 1:
        others = [number for number, one in enumerate(digests) if one != digests[0]]
        raise ConfigError(
            f"Process {', '.join(map(str, others))} of this training has other photos or loss networks than process 0: "
            "all machines must have the same files at the same paths."
        )


def _of_exchange(error: RuntimeError) -> bool:
    """True for what torch raises when the processes' exchange fails; gloo's errors have no class of their own."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).casefold()
