"""Restoration: tiles, references, colour, size, batches and reports around one generator.

The room is callable: ``rasr.restore("old.jpg", "~/Photos")`` is :func:`rasr.restore.restore`. Python binds the name
``rasr.restore`` to this module as soon as anything in it is imported, so the one-liner of that name has to be here.
"""

import sys
from types import ModuleType
from typing import Any

from rasr.restore.batch import Outcome, SaveOptions, run_batch
from rasr.restore.colour import COLOUR_METHODS, ColourMethod, match_colour
from rasr.restore.plan import Job, is_folder, plan_jobs
from rasr.restore.query import restore_query
from rasr.restore.report import Report, write_report
from rasr.restore.restorer import Restorer, restore
from rasr.restore.result import Result
from rasr.restore.settings import QueryRestore, Settings
from rasr.restore.size import TargetSize

__all__ = [
    "COLOUR_METHODS",
    "ColourMethod",
    "Job",
    "Outcome",
    "QueryRestore",
    "Report",
    "Restorer",
    "Result",
    "SaveOptions",
    "Settings",
    "TargetSize",
    "is_folder",
    "match_colour",
    "plan_jobs",
    "restore",
    "restore_query",
    "run_batch",
    "write_report",
]


class _Room(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Result:  # noqa: ANN401
        return restore(*arguments, **options)


sys.modules[__name__].__class__ = _Room
