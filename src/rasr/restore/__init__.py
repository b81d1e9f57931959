"""Restoration: tiles, references, colour, size, batches and reports around one generator."""

from rasr.restore.batch import Outcome, SaveOptions, run_batch
from rasr.restore.colour import COLOUR_METHODS, ColourMethod, match_colour
from rasr.restore.plan import Job, plan_jobs
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
    "match_colour",
    "plan_jobs",
    "restore",
    "restore_query",
    "run_batch",
    "write_report",
]
