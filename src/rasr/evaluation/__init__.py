"""Evaluation: methods, reference policies, metrics, and the tables that compare them.

:func:`evaluate` does the work, :func:`write_report` writes the tables and the page. A name is imported when it is used,
so that the command line can read the options without numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rasr.evaluation.benchmark import load_benchmark
    from rasr.evaluation.method import EvalJob, EvalOutcome, MethodInfo
    from rasr.evaluation.methods import MethodOptions, list_methods, load_method
    from rasr.evaluation.report import write_report
    from rasr.evaluation.runner import Evaluation, evaluate
    from rasr.evaluation.settings import EvaluationSettings, InputSettings

__all__ = [
    "EvalJob",
    "EvalOutcome",
    "Evaluation",
    "EvaluationSettings",
    "InputSettings",
    "MethodInfo",
    "MethodOptions",
    "evaluate",
    "list_methods",
    "load_benchmark",
    "load_method",
    "write_report",
]

_MODULES = ("settings", "benchmark", "method", "methods", "runner", "report")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name, None)
            if value is not None:
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
