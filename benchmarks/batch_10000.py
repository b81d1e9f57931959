"""A batch of ten thousand files: broken ones are named, done is done, memory stays flat, kills cost little.

    python benchmarks/batch_10000.py                     10 000 files of 64 px, 1 % of them broken in eight ways
    python benchmarks/batch_10000.py --check             exit 1 when a bar is missed
    python benchmarks/batch_10000.py --files 1000 --kills 5
    python benchmarks/batch_10000.py --place FOLDER --only again    one step, on the files of a run with --place
    python benchmarks/batch_10000.py --throughput        pictures an hour of 'mini': 1 worker × 2 threads, 2 × 1

Every run is the real command in a process of its own, with ``--preset bicubic`` and one thread. In order: one run with
one worker; the same command again (nothing to do but the broken ones); two shards side by side; a run with two workers
whose parent is killed again and again at random moments, and goes on; one whose workers are. All results are compared
with those of the first run byte by byte. What is redone is counted in the journals: lines beyond one a result.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from command_line import Tree, sample, say_where

SOURCE = Path(__file__).resolve().parent.parent / "src"
WORKERS = 2
BARS = {"seconds with nothing to do": 5.0, "growth of memory, %": 5.0}
STEPS = ("first", "again", "shards", "parents", "workers", "beside")
APART = 8
"""Pictures that are done between two kills of workers."""
EARLY = 500
"""Pictures after which the memory is looked at first."""


def _announcing(side: int) -> bytes:
    """A PNG whose header announces a square that is never there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", zlib.crc32(kind + content))

    header = struct.pack("!IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _flipped(content: bytes) -> bytes:
    """One bit of a PNG's pixels turned over, which its checksum tells."""
    at = content.index(b"IDAT") + 40
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


BROKEN: dict[str, Callable[[bytes, bytes], bytes]] = {
    "empty": lambda _jpeg, _png: b"",
    "text": lambda _jpeg, _png: b"This was a photo once.\n" * 40,
    "another format": lambda _jpeg, _png: b"GIF89a" + bytes(200),
    "cut in the header": lambda jpeg, _png: jpeg[:30],
    "cut in the pixels": lambda jpeg, _png: jpeg[: len(jpeg) * 2 // 3],
    "PNG cut in the pixels": lambda _jpeg, png: png[: len(png) * 2 // 3],
    "PNG with a flipped bit": lambda _jpeg, png: _flipped(png),
    "announces 60 000 pixels a side": lambda _jpeg, _png: _announcing(60_000),
}
"""Name → bytes of a broken file, made of a whole JPEG and a whole PNG."""


def make_files(folder: Path, count: int, *, seed: int = 0, side: int = 64) -> dict[str, str]:
    """Fill ``folder`` with JPEGs and PNGs in sub-folders of 500, one in a hundred broken: path → in which way."""
    choose, photo = random.Random(seed), sample("chelsea.png")
    names = list(BROKEN)
    broken = {number: names[place % 8] for place, number in enumerate(choose.sample(range(count), count // 100))}
    told = {}
    for number in range(count):
        kind = "png" if number % 4 == 0 else "jpg"
        path = folder / f"{number // 500:02}/{number:05}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        x, y = choose.randrange(photo.width - side), choose.randrange(photo.height - side)
        part = photo.crop((x, y, x + side, y + side))
        jpeg, png = path.with_suffix(".1"), path.with_suffix(".2")
        part.save(jpeg, "JPEG", quality=90)
        part.save(png, "PNG")
        content = {"jpg": jpeg.read_bytes(), "png": png.read_bytes()}
        jpeg.unlink()
        png.unlink()
        if number in broken:
            told[str(path.relative_to(folder))] = broken[number]
            path.write_bytes(BROKEN[broken[number]](content["jpg"], content["png"]))
        else:
            path.write_bytes(content[kind])
    long_ago = time.time() - 3600
    for path in folder.rglob("*.*"):
        os.utime(path, (long_ago, long_ago))
    return told


@dataclass
class Done:
    """What one run of the command did."""

    code: int
    seconds: float
    printed: list[str]
    talk: str
    cpu: float = 0.0
    """Seconds of it."""
    memory: dict[int, int] = field(default_factory=dict)
    """Pictures given → bytes of the command's processes."""


@dataclass
class Batch:
    """A folder of files, and the command that restores it."""

    place: Path
    tree: Tree
    preset: str = "bicubic"

    def start(self, out: str, *more: object) -> subprocess.Popen[str]:
        """Start the command."""
        arguments = ["restore", "in", "-o", out, "--preset", self.preset, "--failed", f"{out}.failed.jsonl", *more]
        return subprocess.Popen(
            self.tree.command(arguments), cwd=self.place, env=self.tree.environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, out: str, *more: object, beside: Callable[[int, list[str]], None] | None = None) -> Done:
        """Run the command to its end; ``beside`` is called in a thread with its process number and what it prints."""
        begun = time.perf_counter()
        process = self.start(out, *more)
        done = Done(0, 0.0, [], "")
        talk: list[str] = []
        reader = threading.Thread(target=lambda: talk.extend(process.stderr or ()))
        reader.start()
        if beside is not None:
            threading.Thread(target=beside, args=(process.pid, done.printed), daemon=True).start()
        for line in process.stdout or ():
            done.printed.append(line.rstrip("\n"))
            if len(done.printed) % 100 == 0:
                done.memory[len(done.printed)] = sum(_resident(one) for one in (process.pid, *children(process.pid)))
        reader.join()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = done.code = os.waitstatus_to_exitcode(status)
        process.communicate()
        done.cpu = usage.ru_utime + usage.ru_stime
        done.seconds, done.talk = time.perf_counter() - begun, "".join(talk)
        return done

    def results(self, out: str) -> dict[str, bytes]:
        """The results that lie in a folder."""
        folder = self.place / out
        return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*_rasr.*")}

    def failed(self, out: str) -> set[str]:
        """Pictures that the list of failures names."""
        lines = (self.place / f"{out}.failed.jsonl").read_text(encoding="utf-8").splitlines()
        return {str(Path(json.loads(line)["input"]).relative_to("in")) for line in lines}

    def redone(self, out: str) -> int:
        """Results that were made more than once, by the journals."""
        made: list[str] = []
        for journal in (self.place / out).glob("report*.jsonl"):
            for line in journal.read_bytes().splitlines():
                with suppress(ValueError):
                    made += [json.loads(line)["output"] or ""]
        made = [one for one in made if one]
        return len(made) - len(set(made))


def children(pid: int) -> list[int]:
    """Process numbers of a process's children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def kill_parents(batch: Batch, out: str, kills: int, choose: random.Random) -> dict[str, int]:
    """Kill the command ``kills`` times, each somewhere in its share of the work, then let it end; what was seen."""
    seen = {"kills": 0, "broken": 0, "most redone by a kill": 0, "workers left": 0}
    whole = batch.results("whole")
    before = 0
    for number in range(kills):
        there = len(batch.results(out))
        wait = choose.randrange(max(1, 2 * (len(whole) - there) // (kills - number + 1)))
        process = batch.start(out, "--workers", WORKERS, "-q")
        talk = threading.Thread(target=lambda process=process: process.stderr and process.stderr.read())
        talk.start()
        for count, _ in enumerate(process.stdout or ()):
            if count >= there + wait:
                break
        time.sleep(choose.uniform(0.0, 0.05))
        if process.poll() is None:
            seen["kills"] += 1
        workers = children(process.pid)
        process.kill()
        talk.join()
        process.communicate()
        until = time.monotonic() + 10
        while any(_lives(one) for one in workers) and time.monotonic() < until:
            time.sleep(0.01)
        seen["workers left"] += sum(_lives(one) for one in workers)
        seen["broken"] += sum(whole.get(name) != content for name, content in batch.results(out).items())
        redone = batch.redone(out)
        seen["most redone by a kill"] = max(seen["most redone by a kill"], redone - before)
        before = redone
    done = batch.run(out, "--workers", WORKERS, "-q")
    redone = batch.redone(out)
    seen["most redone by a kill"] = max(seen["most redone by a kill"], redone - before)
    return seen | {"redone": redone, "exit": done.code} | _compared(batch, out)


def kill_workers(batch: Batch, out: str, kills: int, choose: random.Random) -> dict[str, int]:
    """Kill a worker ``kills`` times, each at a random moment of one run; what was seen.

    Between two kills some pictures are done, so that none loses its worker twice, which would rightly be its end.
    """
    killed: list[int] = []
    moments = sorted(choose.sample(range(len(batch.results("whole")) * 8 // 10), kills))

    def storm(pid: int, printed: list[str]) -> None:
        earliest = 0
        while len(killed) < kills and Path(f"/proc/{pid}").exists():
            time.sleep(choose.uniform(0.0, 0.02))
            workers = children(pid)
            if workers and len(printed) >= max(earliest, moments[len(killed)]):
                earliest = len(printed) + APART
                chosen = choose.choice(workers)
                with suppress(ProcessLookupError):
                    os.kill(chosen, signal.SIGKILL)
                    killed.append(chosen)

    done = batch.run(out, "--workers", WORKERS, "-q", beside=storm)
    return {"kills": len(killed), "redone": batch.redone(out), "exit": done.code} | _compared(batch, out)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _compared(batch: Batch, out: str) -> dict[str, int]:
    """How a folder differs from the first run's."""
    whole, found = batch.results("whole"), batch.results(out)
    return {
        "other results": sum(whole.get(name) != content for name, content in found.items()),
        "missing": len(whole.keys() - found.keys()),
        "failures not as named": len(batch.failed("whole") ^ batch.failed(out)),
        "leftovers": len(list((batch.place / out).rglob(".rasr-*"))),
    }


def first_run(batch: Batch, count: int, seed: int) -> Iterator[tuple[str, bool]]:
    """Make the files, and restore them with one worker."""
    broken = make_files(batch.place / "in", count, seed=seed)
    first = batch.run("whole")
    good = count - len(broken)
    named = {name for name in broken if Path(name).name in first.talk}
    met = (first.code, len(first.printed), len(batch.results("whole"))) == (1, good, good)
    met &= named == set(broken) == batch.failed("whole")
    told = f"{len(batch.failed('whole'))} of {len(broken)} broken ones named, exit {first.code}"
    took = f"{first.seconds:.0f} s ({first.cpu:.0f} s of CPU)"
    yield f"one worker: {len(first.printed)} results, {told}, {took}", met
    yield _memory("one worker", first)


def nothing_to_do(batch: Batch) -> tuple[str, bool]:
    """The same command again."""
    good, before = len(batch.results("whole")), batch.redone("whole")
    again = batch.run("whole")
    redone = batch.redone("whole") - before
    met = again.seconds <= BARS["seconds with nothing to do"] and redone == 0 and len(again.printed) == good
    told = f"{again.seconds:.1f} s ({again.cpu:.1f} s of CPU)"
    return f"the same command again: {told}, {redone} redone, exit {again.code}", met


def two_shards(batch: Batch) -> tuple[str, bool]:
    """Two parts side by side into one folder."""
    parts = [batch.start("shards", "-q", "--shard", f"{part}/2") for part in (1, 2)]
    printed = [set(part.communicate()[0].splitlines()) for part in parts]
    # Each part names its own failures: the list of both is what one run over the same folder finds.
    union = batch.run("shards", "-q")
    seen = _compared(batch, "shards") | {"by both": len(printed[0] & printed[1]), "redone": batch.redone("shards")}
    met = not any(seen.values()) and len(printed[0] | printed[1]) == len(batch.results("whole")) == len(union.printed)
    return f"two shards: {len(printed[0])} and {len(printed[1])} results, {seen}", met


def measure(batch: Batch, count: int, kills: int, seed: int, only: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Run the steps; a sentence and whether its bar is met, as they come."""
    choose = random.Random(seed)
    zero = ("other results", "missing", "failures not as named", "leftovers")
    if "first" in only:
        yield from first_run(batch, count, seed)
    if "again" in only:
        yield nothing_to_do(batch)
    if "shards" in only:
        yield two_shards(batch)
    if "parents" in only:
        seen = kill_parents(batch, "parents", kills, choose)
        met = not any(seen[one] for one in ("broken", "workers left", *zero)) and seen["kills"] == kills
        yield f"parent killed, {WORKERS} workers: {seen}", met and seen["most redone by a kill"] <= WORKERS
    if "workers" in only:
        seen = kill_workers(batch, "workers", kills, choose)
        met = not any(seen[one] for one in zero) and seen["redone"] <= kills == seen["kills"]
        yield f"workers killed, {WORKERS} workers: {seen}", met
    if "beside" in only:
        beside = batch.run("beside", "--workers", WORKERS)
        seen = _compared(batch, "beside")
        told = f"{len(beside.printed)} results in {beside.seconds:.0f} s ({beside.cpu:.0f} s of CPU)"
        yield f"{WORKERS} workers: {told}, {seen}", not any(seen.values())
        yield _memory(f"{WORKERS} workers", beside)


def _memory(what: str, done: Done) -> tuple[str, bool]:
    last = max(done.memory, default=0)
    if last <= EARLY:
        return f"{what}: too few pictures to tell how the memory grows", True
    early, late, most = done.memory[EARLY], done.memory[last], max(done.memory.values())
    growth = (late - early) / early * 100
    told = f"{what}: {early / 2**20:.1f} MiB after {EARLY} pictures, {late / 2**20:.1f} after {last} ({growth:+.1f} %)"
    return f"{told}, at most {most / 2**20:.1f}", growth < BARS["growth of memory, %"]


def throughput(place: Path, tree: Tree, pictures: int, repeats: int) -> None:
    """Print pictures an hour of ``mini``: one worker of two threads and two workers of one, by turns."""
    (place / "in").mkdir()
    photo = sample("chelsea.png")
    for number in range(pictures):
        photo.crop((20 * number, 10, 20 * number + 128, 106)).save(place / f"in/{number}.jpg", quality=85)
    batch = Batch(place, tree, "mini")
    for turn in range(repeats):
        for workers in (1, 2):
            load = os.getloadavg()[0]
            out = f"out{turn}-{workers}"
            done = batch.run(out, "-q", "--workers", workers, "--threads", 2)
            same = batch.results(out).values() if turn or workers > 1 else ()
            equal = sorted(same) == sorted(batch.results("out0-1").values()) if same else True
            print(
                f"{workers} x {2 // workers} threads: {len(done.printed)} pictures of 128x96 in {done.seconds:.1f} s, "
                f"{3600 * len(done.printed) / done.seconds:.0f} an hour; same bytes: {equal}; load before {load:.1f}",
                flush=True,
            )


def main() -> None:
    """Run it, print what was seen, and with ``--check`` exit 1 when a bar is missed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=10_000)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--place", type=Path, help="folder to keep")
    arguments.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("--throughput", action="store_true")
    arguments.add_argument("--pictures", type=int, default=8, help="for --throughput")
    arguments.add_argument("--repeats", type=int, default=3, help="for --throughput")
    options = arguments.parse_args()
    say_where(packages=("numpy", "pillow"))
    with tempfile.TemporaryDirectory(prefix="rasr-batch-") as folder:
        place = options.place or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        tree = Tree(SOURCE, sys.executable, place / "home")
        if options.throughput:
            throughput(place, tree, options.pictures, options.repeats)
            return
        missed = 0
        for told, met in measure(Batch(place, tree), options.files, options.kills, options.seed, options.only):
            print(f"{'ok    ' if met else 'MISSED'} {told}; load {os.getloadavg()[0]:.1f}", flush=True)
            missed += not met
    if options.check and missed:
        raise SystemExit(f"{missed} bars missed")


if __name__ == "__main__":
    main()
