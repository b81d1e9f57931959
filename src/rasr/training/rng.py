"""Random numbers without state: every choice is a function of a seed and a purpose.

Nothing then needs to be saved to resume a run bit for bit, and neither the number of workers nor of processes matters.
"""

import hashlib
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray


def generator_for(seed: int, *purpose: object) -> np.random.Generator:
    """Return numpy's generator for one purpose, such as ``generator_for(0, "sample", 1234)``."""
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose)))


def seed_torch(seed: int, *purpose: object) -> torch.Generator:
    """Set torch's global random state for one purpose; returns the CPU generator."""
    return torch.manual_seed(_key(seed, purpose) % 2**63)


def _key(seed: int, purpose: tuple[object, ...]) -> int:
    text = "\0".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Order in which an epoch goes through ``count`` photos or views: each once, (count,)."""
    return generator_for(seed, "epoch", epoch).permutation(count)
