"""Restore a bad photo with your own photos as evidence.

Nothing heavy is imported until it is used: ``import rasr`` loads neither torch nor numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

from rasr.errors import RasrError

if TYPE_CHECKING:
    from rasr.gallery import Gallery
    from rasr.restoration import Restorer, Result, restore

__all__ = ["Gallery", "RasrError", "Restorer", "Result", "__version__", "restore"]

__version__ = "0.1.0"

_LAZY = {
    "Gallery": "rasr.gallery",
    "Restorer": "rasr.restoration",
    "Result": "rasr.restoration",
    "restore": "rasr.restoration",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'rasr' has no attribute {name!r}")
