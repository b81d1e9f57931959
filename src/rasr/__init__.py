"""Restore a bad photo with your own photos as evidence.

Nothing heavy is imported until it is used: ``import rasr`` loads neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rasr.errors import RasrError

if TYPE_CHECKING:
    from rasr.gallery import Gallery
    from rasr.restore import Restorer, Result, restore

__all__ = ["Gallery", "RasrError", "Restorer", "Result", "__version__", "restore"]

__version__ = "0.1.0"

_LAZY = {"Gallery": "rasr.gallery", "Restorer": "rasr.restore", "Result": "rasr.restore", "restore": "rasr.restore"}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name in _LAZY:
        room = importlib.import_module(_LAZY[name])
        # rasr.restore is a room and the one-liner: the room can be called, so `rasr.restore.tiles` works as well.
        value = room if name == "restore" else getattr(room, name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'rasr' has no attribute {name!r}")
