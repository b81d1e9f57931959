"""What the room exports, and that importing it stays cheap."""

from __future__ import annotations

import subprocess
import sys

import rasr.evaluation
import rasr.evaluation.metrics


def test_exports_are_sorted_and_there() -> None:
    for room in (rasr.evaluation, rasr.evaluation.metrics):
        assert set(room.__all__) == {name for name in room.__all__ if hasattr(room, name)}
    assert rasr.evaluation.__all__ == sorted(rasr.evaluation.__all__)


def test_importing_loads_no_heavy_library() -> None:
    heavy = ("torch", "scipy", "jinja2", "lancedb", "diffusers")
    code = f"import sys, rasr.evaluation; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
