"""What was computed from references, kept while it fits: one reference serves every tile and many pictures."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from typing import Any

import torch

__all__ = ["ReferenceCache"]


class ReferenceCache:
    """Least recently used entries leave first once ``max_bytes`` of tensors are held; the newest always stays."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The entry for ``key``, made when it is not there."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        entry = make()
        with self._lock:
            self._entries[key] = entry, _bytes(entry)
            while len(self._entries) > 1 and self.held > self._max_bytes:
                self._entries.popitem(last=False)
        return entry

    @property
    def held(self) -> int:
        """Bytes of tensors held now."""
        return sum(size for _, size in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)


def _bytes(entry: Any) -> int:
    if isinstance(entry, torch.Tensor):
        return entry.untyped_storage().nbytes()  # what is held, however large a view of it is
    if is_dataclass(entry):
        return sum(_bytes(getattr(entry, field.name)) for field in fields(entry))
    return sum(_bytes(part) for part in entry)
