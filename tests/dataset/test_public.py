"""What the room exports, and what of it works without the extra ``dataset``."""

from __future__ import annotations

import subprocess
import sys

import rasr.dataset


def test_exports_are_sorted_and_there() -> None:
    names = rasr.dataset.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(rasr.dataset, name) for name in names)


def test_importing_and_reading_configs_loads_no_web_client() -> None:
    code = (
        "import sys; from rasr.dataset import build_dataset, load_config; load_config('museum');"
        "print([m for m in ('httpx2', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
