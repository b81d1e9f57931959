"""Restoration: tiles, references, colour, size, batches and reports around one generator.

A name is imported when it is used, so that the command line can read the options without numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rasr.restoration.batch import Outcome, run_batch
    from rasr.restoration.plan import Job, plan_jobs
    from rasr.restoration.report import Report, write_report
    from rasr.restoration.restorer import Restorer, restore
    from rasr.restoration.result import Result
    from rasr.restoration.settings import BatchOptions, ColourMethod, SaveOptions, Settings, Shard, TargetSize

__all__ = [
    "BatchOptions",
    "ColourMethod",
    "Job",
    "Outcome",
    "Report",
    "Restorer",
    "Result",
    "SaveOptions",
    "Settings",
    "Shard",
    "TargetSize",
    "plan_jobs",
    "restore",
    "run_batch",
    "write_report",
]

_MODULES = ("settings", "restorer", "result", "plan", "batch", "report")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name, None)
            if value is not None:
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
