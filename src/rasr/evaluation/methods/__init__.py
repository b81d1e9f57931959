"""Methods that can be evaluated, by name."""

from __future__ import annotations

from rasr.evaluation.methods.table import BUILT_IN, MethodOptions, list_methods, load_method

__all__ = ["BUILT_IN", "MethodOptions", "list_methods", "load_method"]
