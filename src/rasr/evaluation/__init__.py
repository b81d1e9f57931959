"""Evaluation: methods, reference policies, metrics, and the tables that compare them.

:func:`evaluate` does the work, :func:`write_report` writes the tables and the page.
"""

from rasr.evaluation.benchmark import Benchmark, BenchmarkSample, load_benchmark
from rasr.evaluation.inputs import InputSettings, TestInput
from rasr.evaluation.method import EvalJob, EvalOutcome, Method, MethodInfo
from rasr.evaluation.methods import MethodOptions, list_methods, load_method
from rasr.evaluation.report import write_report
from rasr.evaluation.runner import Evaluation, EvaluationSettings, evaluate

__all__ = [
    "Benchmark",
    "BenchmarkSample",
    "EvalJob",
    "EvalOutcome",
    "Evaluation",
    "EvaluationSettings",
    "InputSettings",
    "Method",
    "MethodInfo",
    "MethodOptions",
    "TestInput",
    "evaluate",
    "list_methods",
    "load_benchmark",
    "load_method",
    "write_report",
]
