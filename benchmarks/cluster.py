"""Work on a Ray cluster of three nodes, all on this machine: what dies costs nothing, and how much slower it is.

    python benchmarks/cluster.py                         2 000 photos, 200 pictures; 3 nodes, 3 processes, 5 commands
    python benchmarks/cluster.py --check                 exit 1 when a bar is missed
    python benchmarks/cluster.py --photos 300 --pictures 40 --nodes 1 --processes 1 --commands 1
    python benchmarks/cluster.py --only overhead         one step: gallery, restore or overhead

Gallery and restorations are made by one process first. Then the same work is done on the cluster: undisturbed, while
nodes are killed (a new one joins before the next dies), while processes are, and by commands that are killed and go on.
Each result is compared with the first: ids and what is kept of each photo, vectors to 1e-6, files byte by byte. What a
killed command loses is counted: photos that it had embedded and handed to the writer and that the gallery does not
have, and lines of the journal beyond one a result. Moments are drawn over the work. Overhead: pictures of at least
0.2 s each, two processes of this machine against two of a cluster on it, in turns; counted from the second picture's
end on, since a start is paid once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from command_line import say_where
from rasr.cluster import ClusterOptions
from rasr.gallery import Gallery
from rasr.gallery.store import LocalStore
from rasr.restoration import BatchOptions, Restorer, Settings, TargetSize, plan_jobs, run_batch
from three_nodes import Nodes

STEPS = ("gallery", "restore", "overhead")
COMMIT = LocalStore.commit_photos
SLOWER = 1.15
COSTS = 0.2
ADD = """
import sys
from rasr.cluster import ClusterOptions
from rasr.gallery import Gallery
gallery, photos, cluster, told = sys.argv[1:]
def progress(stage, done, total):
    with open(told, "a") as file:
        file.write(f"{done}\\n")
Gallery(gallery).add(photos, cluster=ClusterOptions(cluster), progress=progress)
"""


class Bench:
    """The files, the cluster, and the bars that were missed."""

    def __init__(self, options: argparse.Namespace, folder: Path, nodes: Any) -> None:
        self.options, self.folder, self.nodes = options, folder, nodes
        self.missed: list[str] = []
        self.draw = random.Random(options.seed)

    def bar(self, met: bool, told: str) -> None:
        """Print a finding, and keep it when it misses the bar."""
        print(f"{'  ' if met else '! '}{told}", flush=True)
        if not met:
            self.missed.append(told)

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        """A command in a process of its own, with the cluster's token."""
        log = (self.folder / "log.txt").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, *map(str, words)], env=self.nodes.environment, stdout=log, stderr=log
            )

    def attack(
        self,
        make: Callable[[], subprocess.Popen[bytes]],
        done: Callable[[], int],
        total: int,
        kind: str,
        killed: Callable[[], None] = lambda: None,
    ) -> int:
        """Run a command while nodes or processes die, or run it again where it does; gives its kills.

        ``done`` counts photos that are done, of ``total``; ``killed`` is called after each death of the command.
        """
        kills, wanted = 0, getattr(self.options, kind)
        running = make()
        moments = sorted(self.draw.uniform(0.05, 0.85) * total for _ in range(wanted))
        for moment in moments:
            while running.poll() is None and done() < moment:
                time.sleep(0.05)
            try:
                if kind == "nodes":
                    self.nodes.kill_node(running)
                    self.nodes.grow()
                elif kind == "processes":
                    self.nodes.kill_process(running)
                else:
                    self.nodes.working(running)
                    running.kill()
            except RuntimeError:  # it ended before
                break
            kills += 1
            if kind == "commands":
                running.wait()
                killed()
                running = make()
        running.wait()
        self.bar(running.returncode == 0, f"{kind} killed: {kills}; the command ended with {running.returncode}")
        self.bar(kills == wanted, f"{kills} of {wanted} {kind} were killed at work")
        return kills


def photos_of(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Pictures of random blobs and fine noise."""
    folder.mkdir()
    for number in range(count):
        random_ = np.random.default_rng(number)
        coarse = Image.fromarray(random_.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse, np.int16) + random_.integers(-12, 13, (size[1], size[0], 1), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=92)
    return folder


def gallery_step(bench: Bench) -> None:
    """2 000 photos: the same gallery, whatever is killed."""
    count = bench.options.photos
    photos = photos_of(bench.folder / "photos", count, (320, 240))
    alone = Gallery(bench.folder / "alone")
    begun = time.monotonic()
    alone.add(photos)
    print(f"gallery of {count} photos, one process: {time.monotonic() - begun:.0f} s", flush=True)
    for kind in ("none", "nodes", "processes", "commands"):
        place, told = bench.folder / f"gallery-{kind}", bench.folder / f"told-{kind}"
        told.touch()
        lost: list[int] = []

        def count_lost(place: Path = place, told: Path = told, lost: list[int] = lost) -> None:
            lost.append(max(0, reached(told) - (len(Gallery(place)) if place.exists() else 0)))

        begun = time.monotonic()
        bench.nodes.grow()
        make = partial(bench.start, "-c", ADD, place, photos, bench.nodes.address, told)
        if kind == "none":
            done = make()
            done.wait()
            bench.bar(done.returncode == 0, f"undisturbed: ended with {done.returncode}")
        else:
            bench.attack(make, partial(reached, told), count, kind, count_lost)
        compare_galleries(bench, Gallery(place), alone, f"{kind} killed, {time.monotonic() - begun:.0f} s")
        if kind == "commands":
            most = max(lost, default=0)
            bench.bar(most <= COMMIT, f"photos embedded and not kept at each kill: {lost} (a commit: {COMMIT})")


def reached(told: Path) -> int:
    """How many photos a command said it had handed to the writer."""
    lines = told.read_text().split()
    return int(lines[-1]) if lines else 0


def compare_galleries(bench: Bench, made: Gallery, alone: Gallery, name: str) -> None:
    """Ids, what is kept of each photo, vectors, and the gallery's own check."""
    (photos, vectors), (expected, right) = made.embeddings(), alone.embeddings()
    facts = ("path", "category", "size", "mtime_ns", "width", "height", "phash", "near_duplicate_of")
    told = {photo.id: [getattr(photo, fact) for fact in facts] for photo in photos}
    same = told == {photo.id: [getattr(photo, fact) for fact in facts] for photo in expected}
    bench.bar(same and len(photos) == len(expected), f"{name}: {len(photos)} photos, the same: {same}")
    place = {photo.id: number for number, photo in enumerate(photos)}
    apart = max(
        (float(np.abs(vectors[place[photo.id]] - vector).max()) for photo, vector in zip(expected, right, strict=True)),
        default=0.0,
    ) if same else float("inf")  # fmt: skip
    bench.bar(apart <= 1e-6, f"{name}: vectors at most {apart:.1e} apart")
    bench.bar(made.verify(deep=True).ok, f"{name}: verified")


def restore_step(bench: Bench) -> None:
    """200 restorations: the same files, whatever is killed."""
    count = bench.options.pictures
    pictures = photos_of(bench.folder / "pictures", count, (400, 300))
    words = ["-m", "rasr", "restore", str(pictures), "--preset", "bicubic", "--scale", "3"]
    begun = time.monotonic()
    alone = bench.folder / "restored-alone"
    bench.start(*words, "-o", alone).wait()
    print(f"{count} restorations, one process: {time.monotonic() - begun:.0f} s", flush=True)
    expected = files(alone)
    bench.bar(len(expected) == count, f"{len(expected)} results")
    for kind in ("none", "nodes", "processes", "commands"):
        out = bench.folder / f"restored-{kind}"
        begun = time.monotonic()
        bench.nodes.grow()
        make = partial(bench.start, *words, "-o", out, "--cluster", bench.nodes.address)
        kills = 0
        if kind == "none":
            make().wait()
        else:
            kills = bench.attack(make, partial(placed, out), count, kind)
        same = files(out) == expected
        bench.bar(same, f"{kind} killed, {time.monotonic() - begun:.0f} s: the same files: {same}")
        lines = [json.loads(line)["output"] for line in (out / "report.jsonl").read_text().splitlines()]
        again, allowed = len(lines) - len(set(lines)), kills if kind == "commands" else 0
        bench.bar(again <= allowed and len(set(lines)) == count, f"{kind} killed: recorded more than once: {again}")


def placed(folder: Path) -> int:
    """How many results are there."""
    return sum(1 for _ in folder.glob("*.jpg"))


def files(folder: Path) -> dict[str, bytes]:
    """Results by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.jpg")}


def overhead_step(bench: Bench) -> None:
    """Two processes of this machine against two of the cluster, in turns."""
    pictures = photos_of(bench.folder / "large", bench.options.large, (800, 600))
    restorer, settings = Restorer("bicubic"), Settings(size=TargetSize(scale=2))
    paces: dict[str, list[float]] = {"machine": [], "cluster": []}
    os.environ["OMP_NUM_THREADS"] = "2"  # cores that either may use
    for turn in range(bench.options.turns):
        for name in ("machine", "cluster") if turn % 2 == 0 else ("cluster", "machine"):
            folder = bench.folder / f"large-{name}-{turn}"
            where: dict[str, Any] = {"options": BatchOptions(workers=2)}
            if name == "cluster":
                where = {"cluster": ClusterOptions("local")}
            ends = []
            jobs = plan_jobs([pictures], folder)
            for outcome in run_batch(jobs, restorer, settings, journal_folder=folder, **where):
                if outcome.error is not None:
                    raise outcome.error
                ends.append(time.monotonic())
            paces[name].append((ends[-1] - ends[1]) / (len(ends) - 2))
            print(f"  turn {turn + 1}, {name}: {paces[name][-1]:.3f} s a picture", flush=True)
    # Two at once: a picture takes one process twice as long as the pace says.
    cost = 2 * statistics.median(paces["machine"])
    ratio = statistics.median(paces["cluster"]) / statistics.median(paces["machine"])
    bench.bar(cost >= COSTS, f"a picture takes a process {cost:.2f} s")
    bench.bar(ratio <= SLOWER, f"cluster against machine: {ratio:.2f} times the time (bar {SLOWER})")


def main() -> None:
    """Run the steps, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"photos": 2000, "pictures": 200, "nodes": 3, "processes": 3, "commands": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--large", type=int, default=24, help="pictures of each turn of the overhead")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=STEPS)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    options = parser.parse_args()
    say_where(packages=("numpy", "torch", "pillow", "ray"))
    with tempfile.TemporaryDirectory(prefix="rasr-cluster-") as temporary:
        folder = Path(temporary)
        steps = {"gallery": gallery_step, "restore": restore_step, "overhead": overhead_step}
        missed = []
        for name in STEPS if options.only is None else (options.only,):
            print(f"\n{name}", flush=True)
            begun = time.monotonic()
            with Nodes(folder / "nodes.txt") if name != "overhead" else nullcontext() as nodes:
                if nodes is not None:
                    idle = f"{nodes.memory() >> 20} MiB to themselves when idle"
                    print(f"three nodes started in {time.monotonic() - begun:.0f} s, {idle}", flush=True)
                bench = Bench(options, folder, nodes)
                steps[name](bench)
                missed += bench.missed
    print(f"\n{len(missed)} bars missed, load {os.getloadavg()[0]:.1f}")
    if options.check and missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
