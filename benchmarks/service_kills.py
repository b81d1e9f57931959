"""A service whose processes are killed: what is lost, what is done twice, and how soon it is back.

    python benchmarks/service_kills.py --check          worker × 20, decoders × 20, service × 5, then an orderly stop

Each time a job is running and two wait. A killed worker or service must cost the running job alone, which fails and
says so; the waiting ones are done, each once; the service is ready again in less than 10 s. A killed decoder costs at
most the request it worked for. The orderly stop has ten open streams and no grace; it is to take 2 s at most, exit 0.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image

from command_line import say_where
from service import DECODER, WORKER, Running

READY, STOP = 10.0, 2.0
"""Seconds: the bars."""


def picture(side: int) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


SLOW, QUICK = picture(1000), picture(32)


def begin(service: Running) -> tuple[str, list[str]]:
    """A job in the middle of its work, and two that wait."""
    running = service.submit(SLOW, scale="4")["id"]
    waiting = [service.submit(QUICK, scale=str(scale))["id"] for scale in (2, 3)]
    service.until(lambda: service.client.get(f"/jobs/{running}").json()["state"] == "running")
    return running, waiting


def lost(service: Running, running: str, waiting: list[str], words: str) -> list[str]:
    """What is not as it must be after a kill."""
    told = service.ended(running)
    found = (
        []
        if told["state"] == "failed" and words in told["error"]
        else [f"running job: {told['state']}, {told['error']}"]
    )
    for job in waiting:
        one = service.ended(job)
        if one["state"] != "done" or not service.client.get(one["links"]["result"]).content:
            found.append(f"waiting job: {one['state']}, {one['error']}")
    jobs = service.client.get("/jobs", params={"limit": 200}).json()["jobs"]
    if len(jobs) != 1 + len(waiting):
        found.append(f"{len(jobs)} jobs in place of {1 + len(waiting)}")
    for job in jobs:
        service.client.delete(f"/jobs/{job['id']}")
    return found


def done(service: Running) -> float:
    """Jobs that the service has finished, as it counts them."""
    for line in service.client.get("/metrics").text.splitlines():
        if line.startswith('rasr_jobs_ended_total{state="done"}'):
            return float(line.rpartition(" ")[2])
    return 0.0


def kill_workers(service: Running, times: int, faults: list[str]) -> list[float]:
    """Seconds until the service was ready again after each kill of its worker."""
    back, before = [], done(service)
    for _ in range(times):
        running, waiting = begin(service)
        (worker,) = service.children(WORKER)
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        service.until(lambda gone=worker: service.children(WORKER) not in ([gone], []))
        service.until(lambda: service.client.get("/health/ready").status_code == 200)
        back.append(time.monotonic() - killed)
        faults += lost(service, running, waiting, "ended by signal 9")
    if (count := done(service) - before) != 2 * times:
        faults.append(f"{count:g} jobs done in place of {2 * times}")
    return back


def kill_decoders(service: Running, times: int, faults: list[str]) -> list[float]:
    """Seconds until both decoders were there again after each kill of one."""
    back = []
    for _ in range(times):
        os.kill(service.children(DECODER)[0], signal.SIGKILL)
        killed, codes = time.monotonic(), list[int]()
        while 202 not in codes or len(service.children(DECODER)) < 2:  # replaced when it is its turn
            sent = service.client.post("/jobs", files={"file": ("a.png", QUICK)}, data={"scale": "1"})
            codes.append(sent.status_code)
        back.append(time.monotonic() - killed)
        if codes.count(422) > 1 or set(codes) - {202, 422}:
            faults.append(f"answers after a decoder was killed: {codes}")
    for job in service.client.get("/jobs", params={"limit": 200}).json()["jobs"]:
        if service.ended(job["id"])["state"] != "done":
            faults.append(f"after decoders were killed: {job}")
        service.client.delete(f"/jobs/{job['id']}")
    return back


def kill_services(service: Running, times: int, faults: list[str]) -> list[float]:
    """Seconds until the service was ready again after each kill and start of all of it."""
    back = []
    for _ in range(times):
        running, waiting = begin(service)
        children = [*service.children(WORKER), *service.children(DECODER)]
        service.stop(signal.SIGKILL)
        back.append(service.start())
        faults += lost(service, running, waiting, "service was stopped")
        if (count := done(service)) != 2:
            faults.append(f"{count:g} jobs done in place of 2")
        service.until(lambda gone=children: not any(Path(f"/proc/{one}").exists() for one in gone))
    return back


def stop_orderly(service: Running, faults: list[str]) -> float:
    """Seconds that a stop took with ten open streams and a running job."""
    job, ends = service.submit(SLOW, scale="4")["id"], list[str]()

    def follow() -> None:
        with httpx2.stream("GET", f"{service.url}/jobs/{job}/events", timeout=60) as stream:
            ends.append("".join(stream.iter_text())[-1:])

    threads = [threading.Thread(target=follow) for _ in range(10)]
    for thread in threads:
        thread.start()
    service.until(lambda: "rasr_streams 10.0" in service.client.get("/metrics").text)
    asked = time.monotonic()
    code = service.stop()
    stopped = time.monotonic() - asked
    for thread in threads:
        thread.join()
    if code or len(ends) != 10:
        faults.append(f"orderly stop: exit {code}, {len(ends)} of 10 streams ended whole")
    return stopped


def main() -> int:
    """Kill, look, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=float, default=1.0, help="Share of the 20, 20 and 5 kills.")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    faults: list[str] = []
    back: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        service = Running(Path(name), "--grace", 0)
        for kind, count, kill in (
            ("worker", 20, kill_workers), ("decoder", 20, kill_decoders), ("service", 5, kill_services),
        ):  # fmt: skip
            back[kind] = kill(service, max(1, round(count * options.times)), faults)
        stopped = stop_orderly(service, faults)
    for kind, seconds in back.items():
        middle = statistics.median(seconds)
        print(
            f"{kind:<8} killed {len(seconds)} times, back after {middle:.2f} s (median), {max(seconds):.2f} s at most"
        )
    print(f"SIGTERM with ten open streams and a running job: {stopped:.2f} s")
    print("lost or done twice:", faults or "nothing")
    say_where()
    late = max(max(seconds) for seconds in back.values()) >= READY or stopped > STOP
    return 1 if options.check and (faults or late) else 0


if __name__ == "__main__":
    raise SystemExit(main())
