"""What the room exports."""

from __future__ import annotations

import subprocess
import sys

import rasr.gallery


def test_exports_are_sorted_and_there() -> None:
    assert rasr.gallery.__all__ == sorted(rasr.gallery.__all__)
    assert all(hasattr(rasr.gallery, name) for name in rasr.gallery.__all__)


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, rasr.gallery; print([m for m in ('torch', 'lancedb', 'pyarrow', 'scipy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
