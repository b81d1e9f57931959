"""A service under load: clients that restore and search at once, and what becomes of time, memory and descriptors.

    python benchmarks/service.py --check                50 clients for 30 minutes
    python benchmarks/service.py --clients 10 --minutes 2

Starts a service with bicubic interpolation on a free port, a gallery of scikit-image's photos, and clients in threads.
Each sends a small picture and compares the result with what the same picture gave before, or searches and compares the
photo found. Memory and descriptors of all processes are looked at every half minute; compared are the medians of the
looks between a fifth and three tenths of the time, when everything was used once, and of the last tenth. With --check
exit 1 for a wrong answer, one of 5xx, memory that grew by 5 % and more, or more descriptors than before and ten.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from command_line import save_photos, say_where

SOURCE = Path(__file__).resolve().parent.parent / "src"
WORKER, DECODER = "rasr.service.worker", "rasr.service.decode"
EVERY = 30.0
"""Seconds between two looks at memory."""


class Running:
    """A service of this source tree in a process of its own, on a free port."""

    def __init__(self, folder: Path, *arguments: object, preset: str = "bicubic") -> None:
        self.folder, self.arguments, self.preset = folder, arguments, preset
        self.start()

    def start(self) -> float:
        """Start it, and return the seconds until it is ready."""
        begun = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "RASR_HOME": str(self.folder / "home")}
        command = ["serve", "--port", "0", "--data", self.folder / "data", "--preset", self.preset, *self.arguments]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rasr", *map(str, command)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.client = httpx2.Client(base_url=self.url, timeout=300)
        self.until(lambda: self.client.get("/health/ready").status_code == 200)
        return time.perf_counter() - begun

    def until(self, condition: Callable[[], object], seconds: float = 300) -> None:
        """Wait for something, looking often."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit("waited in vain")
            time.sleep(0.02)

    def submit(self, content: bytes, **fields: Any) -> dict[str, Any]:
        """Send a job."""
        sent = self.client.post("/jobs", files={"file": ("a.png", content)}, data=fields).raise_for_status()
        job: dict[str, Any] = sent.json()
        return job

    def ended(self, job: str) -> dict[str, Any]:
        """Wait until a job has ended, and return it."""
        self.until(lambda: self.client.get(f"/jobs/{job}").json()["state"] in {"done", "failed", "cancelled"}, 900)
        told: dict[str, Any] = self.client.get(f"/jobs/{job}").json()
        return told

    def children(self, module: str) -> list[int]:
        """Processes of a module that the service has started."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_text().split("\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == self.process.pid and module in words:
                found.append(int(folder.name))
        return found

    def look(self) -> dict[str, tuple[float, int]]:
        """Kind of process → MiB of memory, descriptors."""
        page, seen = os.sysconf("SC_PAGE_SIZE"), {}
        kinds = {"web": [self.process.pid], "worker": self.children(WORKER), "decoder": self.children(DECODER)}
        for kind, pids in kinds.items():
            memory, descriptors = 0.0, 0
            for pid in pids:
                try:
                    memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / 2**20
                    descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
                except OSError:  # replaced meanwhile
                    continue
            seen[kind] = memory, descriptors
        return seen

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it, and return the exit status."""
        self.process.send_signal(how)
        code = self.process.wait(300)
        self.client.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Load:
    """What the clients share."""

    def __init__(self, url: str, pictures: list[bytes], queries: list[tuple[str, bytes]]) -> None:
        self.url, self.pictures, self.queries = url, pictures, queries
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.seconds: dict[str, list[float]] = {"restore": [], "search": []}
        self.known: dict[int, bytes] = {}
        self.lock = threading.Lock()
        self.over = threading.Event()

    def client(self, number: int) -> None:
        """One client: three restorations, then a search, and again."""
        with httpx2.Client(base_url=self.url, timeout=300) as client:
            turn = number
            while not self.over.is_set():
                turn += 1
                try:
                    self._search(client, turn) if turn % 4 == 0 else self._restore(client, turn)
                except httpx2.HTTPError as error:
                    with self.lock:
                        self.wrong.append(repr(error))

    def _note(self, answer: httpx2.Response) -> httpx2.Response:
        with self.lock:
            self.statuses[answer.status_code] += 1
        return answer

    def _restore(self, client: httpx2.Client, turn: int) -> None:
        which, begun = turn % len(self.pictures), time.perf_counter()
        sent = self._note(
            client.post("/jobs", files={"file": (f"{which}.png", self.pictures[which])}, data={"scale": "2"})
        )
        if sent.status_code == 429:
            self.over.wait(min(5.0, float(sent.headers["retry-after"])))
            return
        job = sent.json()["id"]
        with client.stream("GET", f"/jobs/{job}/events") as stream:
            self._note(stream)
            for _ in stream.iter_lines():
                pass
        result = self._note(client.get(f"/jobs/{job}/result")).content
        self._note(client.delete(f"/jobs/{job}"))
        with self.lock:
            self.seconds["restore"].append(time.perf_counter() - begun)
            if self.known.setdefault(which, result) != result:
                self.wrong.append(f"picture {which} gave another result")

    def _search(self, client: httpx2.Client, turn: int) -> None:
        name, content = self.queries[turn % len(self.queries)]
        begun = time.perf_counter()
        found = self._note(
            client.post("/search", files={"file": ("q.png", content)}, data={"gallery": "photos", "k": 1})
        )
        with self.lock:
            self.seconds["search"].append(time.perf_counter() - begun)
            if found.status_code == 200 and found.json()["results"][0]["name"] != name:
                self.wrong.append(f"{name} was not found")


def middle(looks: list[dict[str, tuple[float, int]]]) -> dict[str, tuple[float, float]]:
    """Kind of process → medians of memory and descriptors over some looks."""
    return {
        kind: (statistics.median(look[kind][0] for look in looks), statistics.median(look[kind][1] for look in looks))
        for kind in looks[0]
    }


def main() -> int:
    """Put a service under load and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    looks: list[dict[str, tuple[float, int]]] = []
    with tempfile.TemporaryDirectory() as name:
        photos = save_photos(Path(name) / "photos")
        pictures, queries = [], []
        for path in sorted(Path(photos).iterdir()):
            image, stream = Image.open(path).convert("RGB"), io.BytesIO()
            image.resize((96, 96)).save(stream, "PNG")
            pictures.append(stream.getvalue())
            queries.append((path.name, stream.getvalue()))
        service = Running(Path(name), "-g", photos)
        load = Load(service.url, pictures, queries)
        threads = [threading.Thread(target=load.client, args=(number,)) for number in range(options.clients)]
        for thread in threads:
            thread.start()
        over = time.monotonic() + options.minutes * 60
        while (left := over - time.monotonic()) > 0:
            time.sleep(min(left, EVERY, options.minutes * 3))
            looks.append(service.look())
            told = "  ".join(f"{kind} {memory:.0f} MiB, {count}" for kind, (memory, count) in looks[-1].items())
            print(f"{left / 60:5.1f} minutes left  {told}  {dict(load.statuses)}", file=sys.stderr, flush=True)
        load.over.set()
        for thread in threads:
            thread.join()
        code = service.stop()
    first = middle(looks[len(looks) // 5 : len(looks) // 5 + max(1, len(looks) // 10)])
    last = middle(looks[-max(1, len(looks) // 10) :])
    print(f"{options.clients} clients, {options.minutes:g} minutes; the service ended with {code}")
    print("answers:", dict(sorted(load.statuses.items())), "wrong:", len(load.wrong), load.wrong[:5])
    for kind, seconds in load.seconds.items():
        if len(seconds) > 1:
            cuts = statistics.quantiles(seconds, n=20)
            print(f"{kind:<8} {len(seconds):>6} times, median {cuts[9]:.2f} s, 95 % within {cuts[18]:.2f} s")
    for kind, (memory, descriptors) in first.items():
        print(f"{kind:<8} MiB {memory:>7.1f} → {last[kind][0]:>7.1f}   descriptors {descriptors:g} → {last[kind][1]:g}")
    grown = sum(memory for memory, _ in last.values()) / sum(memory for memory, _ in first.values()) - 1
    more = sum(count for _, count in last.values()) - sum(count for _, count in first.values())
    print(f"memory of all {grown:+.1%}, descriptors {more:+g}")
    say_where()
    missed = load.wrong or code or grown >= 0.05 or more > 10 or any(status >= 500 for status in load.statuses)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
