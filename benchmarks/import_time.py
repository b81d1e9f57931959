"""How long ``import rasr`` and ``rasr --help`` take in a fresh process.

Run as ``python benchmarks/import_time.py``.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time

RUNS = 15


def seconds(*arguments: str) -> float:
    """Median wall time of a fresh interpreter with these arguments."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    bare = seconds("-c", "pass")
    print(f"{platform.machine()}, Python {platform.python_version()}, median of {RUNS} fresh processes")
    print(f"bare interpreter   {bare:.3f} s")
    for title, arguments in (("import rasr", ("-c", "import rasr")), ("rasr --help", ("-m", "rasr", "--help"))):
        total = seconds(*arguments)
        print(f"{title:<18} {total:.3f} s  (+{total - bare:.3f} s)")
