"""A service under load: clients that restore and search at once, and what becomes of time, memory and descriptors.

    python benchmarks/service.py                        50 clients for 30 minutes
    python benchmarks/service.py --clients 10 --minutes 2

Starts a service with bicubic interpolation on a free port, a gallery of scikit-image's photos, and clients in threads.
Each sends a small picture and compares the result with what the same picture gave before, or searches and compares the
photo found. Prints answers by status, wrong ones, latencies, and memory and descriptors of all processes at the first
and at the last look; exit 1 for a wrong answer, an answer of 5xx, or memory of the service that grew by 5 % and more.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx2
from PIL import Image

from command_line import save_photos, say_where

SOURCE = Path(__file__).resolve().parent.parent / "src"


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


def processes(parent: int) -> dict[str, list[int]]:
    """Kind of process → process numbers, of a service."""
    found: dict[str, list[int]] = {"web": [parent], "worker": [], "decoder": []}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found["worker" if "rasr.service.worker" in words else "decoder"].append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def look(parent: int) -> dict[str, tuple[float, int]]:
    """Kind of process → MiB of memory, descriptors."""
    page, seen = os.sysconf("SC_PAGE_SIZE"), {}
    for kind, pids in processes(parent).items():
        memory = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids) / 2**20
        seen[kind] = round(memory, 1), sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    return seen


def main() -> int:
    """Put a service under load and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--settle", type=float, default=0.2, help="share of the time before memory is first looked at")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = save_photos(folder / "photos")
        pictures, queries = [], []
        for path in sorted(Path(photos).iterdir()):
            image, stream = Image.open(path).convert("RGB"), io.BytesIO()
            image.resize((96, 96)).save(stream, "PNG")
            pictures.append(stream.getvalue())
            queries.append((path.name, stream.getvalue()))
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "RASR_HOME": str(folder / "home")}
        command = [
            sys.executable,
            "-m",
            "rasr",
            "serve",
            "--port",
            "0",
            "--data",
            folder / "data",
            "--preset",
            "bicubic",
        ]
        service = subprocess.Popen(
            [*map(str, command), "-g", str(photos)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert service.stdout is not None
        url = service.stdout.readline().strip()
        while httpx2.get(f"{url}/health/ready").status_code != 200:
            time.sleep(0.2)
        load = Load(url, pictures, queries)
        threads = [threading.Thread(target=load.client, args=(number,)) for number in range(options.clients)]
        for thread in threads:
            thread.start()
        time.sleep(options.minutes * 60 * options.settle)
        first = look(service.pid)
        time.sleep(options.minutes * 60 * (1 - options.settle))
        last = look(service.pid)
        load.over.set()
        for thread in threads:
            thread.join()
        service.terminate()
        code = service.wait(120)
        service.stdout.close()
    print(f"{options.clients} clients, {options.minutes:g} minutes; the service ended with {code}")
    print("answers:", dict(sorted(load.statuses.items())), "wrong:", len(load.wrong), load.wrong[:5])
    for kind, seconds in load.seconds.items():
        if len(seconds) > 1:
            cuts = statistics.quantiles(seconds, n=20)
            print(f"{kind:<8} {len(seconds):>6} times, median {cuts[9]:.2f} s, 95 % within {cuts[18]:.2f} s")
    for kind in first:
        print(
            f"{kind:<8} MiB {first[kind][0]:>8} → {last[kind][0]:>8}   descriptors {first[kind][1]} → {last[kind][1]}"
        )
    grown = sum(memory for memory, _ in last.values()) / sum(memory for memory, _ in first.values()) - 1
    print(f"memory of all {grown:+.1%}")
    say_where()
    return 1 if load.wrong or code or grown >= 0.05 or any(status >= 500 for status in load.statuses) else 0


if __name__ == "__main__":
    raise SystemExit(main())
