"""What a service needs: seconds until it is ready, memory of its processes, seconds a megapixel of result, the queue.

    python benchmarks/service_sizes.py                  mini, results of 0.07, 0.25, 1 and 4 megapixels
    python benchmarks/service_sizes.py --preset bicubic --runs 5

Prints the seconds of each start, until ready with the data folder new and used; MiB of the web process, the worker and
a decoder after the start and at their peak; the seconds a result takes without a reference, by its megapixels, as the
service measured them, and the worker's seconds of CPU, which other work on the machine changes little; what a job adds
beside its own work; and how many such jobs an hour keep the queue short.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image

from command_line import SAMPLES, say_where
from service import DECODER, WORKER, Running

SIDES = (64, 125, 250, 500)
"""Of the inputs, enlarged four times: 0.07, 0.25, 1 and 4 megapixels."""
BUSY = 0.7
"""Share of the worker's time up to which the queue stays short."""


def peak(pids: list[int]) -> float:
    """MiB that the largest of some processes ever had."""
    found = 0.0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                found = max(found, int(line.split()[1]) / 1024)
    return found


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def photo(side: int) -> bytes:
    """A square part of a photo as PNG."""
    stream = io.BytesIO()
    with Image.open(SAMPLES / "motorcycle_left.png") as image:
        image.convert("RGB").resize((741, 500)).crop((0, 0, 500, 500)).resize((side, side)).save(stream, "PNG")
    return stream.getvalue()


def span(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Start, restore, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(f"preset {options.preset}, {options.runs} runs each")
    with tempfile.TemporaryDirectory() as name:
        begun = time.perf_counter()
        service = Running(Path(name), preset=options.preset)
        starts = [time.perf_counter() - begun]
        for _ in range(options.runs):
            service.stop()
            starts.append(service.start())
        print(f"until ready: {starts[0]:.2f} s, then {span(starts[1:])}")
        rest = {kind: memory for kind, (memory, _) in service.look().items()}
        took: dict[int, list[float]] = {side: [] for side in SIDES}
        used: dict[int, list[float]] = {side: [] for side in SIDES}
        beside: list[float] = []
        (worker,) = service.children(WORKER)
        service.ended(service.submit(photo(16), scale="4", references="none")["id"])  # loads what is loaded once
        for side in SIDES:
            for _ in range(options.runs):
                begun, before = time.perf_counter(), cpu(worker)
                job = service.ended(service.submit(photo(side), scale="4", references="none")["id"])
                beside.append(time.perf_counter() - begun - job["seconds"])
                took[side].append(job["seconds"])
                used[side].append(cpu(worker) - before)
        for kind, pids in (
            ("web", [service.process.pid]), ("worker", [worker]), ("decoder", service.children(DECODER)),
        ):  # fmt: skip
            print(f"{kind:<8} {rest[kind] / len(pids):7.0f} MiB after the start, {peak(pids):7.0f} MiB at most")
        for side, seconds in took.items():
            megapixels = (4 * side) ** 2 / 1e6
            hour = BUSY * 3600 / statistics.median(seconds)
            each = statistics.median(used[side]) / megapixels
            print(
                f"{megapixels:5.2f} megapixels: {span(seconds)}, CPU {each:.1f} s a megapixel; up to {hour:.0f} an hour"
            )
        print(f"a job takes beside its work: {span(beside)}")
        service.stop()
    say_where()


if __name__ == "__main__":
    main()
