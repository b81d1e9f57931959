"""Restoration: tiles, references, colour, size, batches and reports around one generator."""

from rasr.restoration.batch import Outcome, SaveOptions, run_batch
from rasr.restoration.colour import COLOUR_METHODS, ColourMethod, match_colour
from rasr.restoration.plan import Job, is_folder, plan_jobs
from rasr.restoration.report import Report, write_report
from rasr.restoration.restorer import Restorer, restore
from rasr.restoration.result import Result
from rasr.restoration.settings import Settings
from rasr.restoration.size import TargetSize

__all__ = [
    "COLOUR_METHODS",
    "ColourMethod",
    "Job",
    "Outcome",
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
    "run_batch",
    "write_report",
]
