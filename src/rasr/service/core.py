"""The service itself: queue, worker, decoders and galleries put together, and a job as its clients see it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rasr.errors import shown
from rasr.files import sync_folder
from rasr.gallery.stores import open_store
from rasr.images.encode import usual_extension
from rasr.object_path import ObjectPath, expand
from rasr.object_path import place as path_of
from rasr.restoration.plan import READ_ONLY
from rasr.restoration.settings import Settings, TargetSize
from rasr.service.config import ServiceConfig, take_folder
from rasr.service.decoders import Decoded, Decoders
from rasr.service.events import Feed
from rasr.service.jobs import ENDED, Job, Jobs, KeyTaken, QueueFull
from rasr.service.metrics import Metrics
from rasr.service.refusal import Refused
from rasr.service.running import Dispatcher, MakeDispatcher, Parts
from rasr.service.shelf import Shelf
from rasr.service.supervisor import Supervisor
from rasr.service.uploads import Stored, place, sweep
from rasr.service.view import TYPES, part_of, show

SWEEP = 60.0
"""Seconds between two looks for what is too old or too much."""
RESERVE = 256 * 2**20
"""Bytes that stay free on the disk: with less nothing more is accepted."""
CACHE_BYTES = 512 * 2**20
"""Of pictures made ready to be shown."""
_log = logging.getLogger("rasr.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a client wants of a picture, as it was sent."""

    scale: float
    preset: str
    strength: float
    detail: float
    reduce: bool
    seed: int
    k: int
    format: str | None
    metadata: str
    gallery: str
    photos: Sequence[str]
    references: str
    batch: str | None
    key: str | None

    def chosen(self) -> dict[str, Any]:
        """The settings as they are sent, but those of size and references."""
        return {name: getattr(self, name) for name in ("strength", "detail", "reduce", "seed", "k")}

    def settings(self) -> Settings:
        """The settings, checked. Raises UsageError."""
        chosen = self.chosen()
        return Settings(reference=self.references, size=TargetSize(scale=self.scale), **chosen)  # type: ignore[arg-type]  # checked by the option itself


class Service:
    """Everything that outlives a request."""

    def __init__(self, config: ServiceConfig, make: MakeDispatcher | None = None) -> None:
        """``make`` gives who hands out the jobs; without it that is a process of this machine.

        Raises UsageError when the data folder cannot be used, or another service uses it.
        """
        self.config = config
        self.data = data = expand(config.data).resolve()
        self._lock = take_folder(config, "service.lock", ("jobs", "galleries", "tmp", "cache"))
        tempfile.tempdir = str(data / "tmp")  # where bodies are kept that do not fit into memory
        self.metrics = Metrics()
        self.feed = Feed(self.metrics.streams)
        self.jobs = Jobs(data / "jobs.db")
        self.decoders = Decoders(config, self.metrics)
        self.dispatcher: Dispatcher = (make or Supervisor)(
            Parts(config, self.jobs, self.feed, self.metrics, named(config.galleries), self.prepare, self.folder)
        )
        self.shelf = Shelf(data / "galleries", self.dispatcher.galleries)
        self.stopping = False
        self._swept = threading.Event()

    # Life.

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take up what an earlier service left, and begin to work."""
        self.feed.attach(loop)
        lost = self.jobs.recover()
        if lost:
            _log.warning("%d running job(s) were lost when the service ended before.", lost)
        sweep(self.data / "tmp")
        sweep(self.data / "jobs", self.jobs.ids())
        self.dispatcher.start()
        self.decoders.warm()
        threading.Thread(target=self._sweeping, name="rasr-sweeper", daemon=True).start()

    def refuse(self) -> None:
        """Take no more work, and let those go who follow jobs."""
        self.stopping = True
        self.feed.close()

    def stop(self) -> None:
        """End worker and decoders; the running job has the grace to be finished, else it waits for the next start."""
        self.stopping = True
        self._swept.set()
        self.dispatcher.stop(self.config.grace)
        self.decoders.close()
        self.jobs.close()
        self._lock.release()

    def check_ready(self) -> None:
        """Raise Refused when no job could be restored now."""
        self.check_room()
        if not self.dispatcher.ready:
            raise Refused(503, "worker", self.dispatcher.why, retry_after=5)

    # Jobs.

    def check_room(self) -> None:
        """Raise Refused when a job would not be accepted now, whatever it is."""
        if self.stopping:
            raise Refused(503, "stopping", "The service is stopping. Try again when it is back.", retry_after=10)
        if shutil.disk_usage(self.data).free < RESERVE:
            raise Refused(503, "disk", "The service's disk is full. Tell whoever runs it.", retry_after=60)

    def admit(self, key: str) -> None:
        """Raise Refused when a job would not be accepted now, unless its key says that it was.."""
        self.check_room()
        if self.jobs.waiting() >= self.config.queue and not self.jobs.has_key(key):
            raise self.full()

    def accept(self, order: Order, staged: Path, picture: Stored, facts: Decoded, references: Sequence[Stored]) -> Job:
        """Put a job into the queue: its files from ``staged`` to their place first. Raises Refused and UsageError."""
        settings = order.settings()
        width, height = settings.size.of(facts.width, facts.height)
        if width * height > self.config.max_result:
            raise Refused(
                422, "too_large",
                f"{picture.name}: the result would have {width}×{height} pixels, and the limit is "
                f"{self.config.max_result / 1e6:g} megapixels. Ask for a smaller scale.",
            )  # fmt: skip
        if order.gallery:
            entry = self.shelf.get(order.gallery)
            for photo in order.photos:
                self.shelf.photo(entry, photo)
            if not self.shelf.count(entry):
                raise Refused(
                    422, "empty_gallery", f"The gallery '{entry.name}' has no photos. Add some, or choose none."
                )
        elif order.photos:
            raise Refused(422, "no_gallery", "Photos are chosen from a gallery: name it, too.")
        name, extension = _stem(picture.name, facts.format, order.format)
        request: dict[str, Any] = {
            "input": f"input/{picture.name}",
            "references": [f"references/{number}/{one.name}" for number, one in enumerate(references)],
            "photos": list(order.photos),
            "gallery": order.gallery or None,
            "reference": order.references,
            "preset": order.preset,
            "scale": order.scale,
            "settings": order.chosen(),
            "save": {"format": order.format, "metadata": order.metadata},
            "output": f"result/{name}_rasr{extension}",
            "size": [facts.width, facts.height],
            "result_size": [width, height],
        }
        sent = [picture.digest, [[one.name, one.digest] for one in references], order.batch, request]
        digest = hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()
        job = Job(secrets.token_hex(8), picture.name, digest, width * height, request, key=order.key, batch=order.batch)
        job.bytes = picture.size + sum(one.size for one in references)
        try:
            known = self.jobs.find_key(order.key, digest)
            if known is not None:
                return known
            (staged / "result").mkdir()
            place(staged, self.folder(job))
            try:
                accepted = self.jobs.add(job, self.config.queue)
            except QueueFull as error:
                shutil.rmtree(self.folder(job), ignore_errors=True)
                raise self.full() from error
        except KeyTaken as error:
            shutil.rmtree(self.folder(job), ignore_errors=True)
            raise Refused(
                409, "key", "This Idempotency-Key came with another request before. Use a new key for a new request."
            ) from error
        if accepted.id != job.id:
            shutil.rmtree(self.folder(job), ignore_errors=True)
        self.dispatcher.wake()
        return accepted

    def full(self) -> Refused:
        """The refusal when no more jobs may wait: with the seconds until there will be room."""
        head = self.jobs.head()
        seconds = None if head is None else self.remaining(head)
        return Refused(
            429, "queue", f"{self.config.queue} pictures wait already. Try again later.",
            retry_after=10.0 if seconds is None else min(3600.0, max(1.0, seconds)),
        )  # fmt: skip

    def prepare(self, job: Job) -> dict[str, Any]:
        """A job as the worker takes it, with the places of its files. Raises Refused."""
        folder, request = self.folder(job), job.request
        gallery = None if request["gallery"] is None else self.shelf.get(request["gallery"]).address
        references = [str(folder / path) for path in request["references"]]
        places = {
            "folder": str(folder),
            "input": str(folder / request["input"]),
            "output": str(folder / request["output"]),
        }
        return {**request, **places, "references": references, "gallery": gallery}

    def get(self, job: str) -> Job:
        """The job of an id. Raises Refused."""
        found = self.jobs.get(job)
        if found is None:
            raise Refused(404, "no_job", "There is no such job, or it was removed.")
        return found

    def finished(self, job: str) -> Job:
        """A job that is done. Raises Refused."""
        found = self.get(job)
        if found.state != "done":
            raise Refused(409, "not_done", f"{found.name} is {found.state}: there is no result.")
        return found

    def delete(self, job: str) -> None:
        """Cancel a job that waits or runs, remove one that has ended. Raises Refused."""
        found = self.get(job)
        if found.state in ENDED:
            if self.jobs.remove(job):
                self._remove_files(job)
        else:
            self.jobs.cancel(job)
            self.dispatcher.cancel(job)
        self.feed.publish(job)

    def folder(self, job: Job | str) -> Path:
        """Folder of a job's files."""
        return self.data / "jobs" / (job if isinstance(job, str) else job.id)

    def show(self, job: Job) -> dict[str, Any]:
        """A job as its clients see it, and its revision."""
        progress = self.dispatcher.progress_of(job.id) if job.state == "running" else None
        return show(job, progress, self._position(job), self.remaining(job))

    def look(self, job: str) -> dict[str, Any] | None:
        """As :meth:`show`; None when the job is gone."""
        found = self.jobs.get(job)
        return None if found is None else self.show(found)

    def remaining(self, job: Job) -> float | None:
        """Seconds until a job is done, by what was measured; None when that is unknown or over."""
        pace = self.jobs.pace()
        if job.state == "running":
            elapsed = time.time() - (job.started or time.time())
            progress = self.dispatcher.progress_of(job.id)
            part = part_of(progress.stage, progress.done, progress.total)
            if part > 0.1:
                return elapsed * (1 - part) / part
            return None if pace is None else max(0.0, pace * job.pixels - elapsed)
        if job.state == "queued" and pace is not None:
            return pace * (self.jobs.ahead(job)[1] / self.dispatcher.lanes + job.pixels)
        return None

    def reference_path(self, job: Job, index: int) -> tuple[Path, str]:
        """File and name of a reference. Raises Refused."""
        references = (job.outcome or {}).get("references", [])
        if not 0 <= index < len(references):
            raise Refused(404, "no_reference", f"{job.name} has {len(references)} references, counted from 0.")
        path = path_of(references[index]["path"])
        if not path.is_file():
            raise Refused(404, "gone", f"{shown(path.name)}: the photo is not there any more.")
        return path, shown(path.name)

    # Pictures made ready to be shown.

    async def shown(self, path: Path, name: str, how: Any, key: str) -> tuple[Path, str]:
        """A picture as a browser shows it, made by the decoders once and then kept; file and type. Raises Refused."""
        base = self.data / "cache" / f"{key}-{how}"
        for suffix, kind in ((".png", "image/png"), (".jpg", "image/jpeg")):
            if (kept := base.with_suffix(suffix)).is_file():
                with suppress(OSError):
                    os.utime(kept)
                return kept, kind
        temporary = self.data / "tmp" / secrets.token_hex(8)
        if isinstance(path, ObjectPath):  # decoders have no network
            try:
                await asyncio.to_thread(_fetch, path, temporary)
                decoded = await asyncio.wrap_future(self.decoders.submit(temporary, name, how))
            finally:
                temporary.unlink(missing_ok=True)
        else:
            decoded = await asyncio.wrap_future(self.decoders.submit(path, name, how))
        target = base.with_suffix(".png" if decoded.type == "image/png" else ".jpg")
        await asyncio.to_thread(temporary.write_bytes, decoded.content)
        temporary.rename(target)
        return target, decoded.type

    # Housekeeping.

    def sweep(self) -> None:
        """Remove what is too old or too much."""
        for job in self.jobs.outdated(time.time() - self.config.keep_days * 86400, self.config.keep_bytes):
            if self.jobs.remove(job):
                self._remove_files(job)
        kept = sorted((self.data / "cache").iterdir(), key=lambda file: -file.stat().st_mtime)
        total = 0
        for file in kept:
            total += file.stat().st_size
            if total > CACHE_BYTES:
                file.unlink(missing_ok=True)
        self.measure()

    def measure(self) -> None:
        """Bring the gauges up to date."""
        for state, count in self.jobs.counts().items():
            self.metrics.jobs.labels(state).set(count)
        self.dispatcher.measure()

    def _sweeping(self) -> None:
        while True:
            with suppress(OSError):
                self.sweep()
            if self._swept.wait(SWEEP):
                return

    def _remove_files(self, job: str) -> None:
        shutil.rmtree(self.folder(job), ignore_errors=True)
        for file in (self.data / "cache").glob(f"job-{job}-*"):
            file.unlink(missing_ok=True)
        sync_folder(self.data / "jobs")

    def _position(self, job: Job) -> int | None:
        if job.state == "running":
            return 0
        return self.jobs.ahead(job)[0] + 1 if job.state == "queued" else None


def named(galleries: Sequence[str | Path]) -> dict[str, str | Path]:
    """Names for the galleries that the service is started with: their folders', made different where they are not."""
    names: dict[str, str | Path] = {}
    for path in galleries:
        last = open_store(path).address.rpartition("/")[2]
        base = re.sub(r"[^\w .-]+", "_", last).strip(" ._-")[:50] or "gallery"
        name, number = base, 2
        while name in names:
            name, number = f"{base} {number}", number + 1
        names[name] = path
    return names


def _fetch(path: ObjectPath, target: Path) -> None:
    """Copy an object into a file. Raises Refused."""
    try:
        target.write_bytes(path.read_bytes())
    except OSError as error:
        raise Refused(404, "gone", f"{shown(path.name)}: the photo cannot be read ({error.strerror}).") from error


def _stem(name: str, found: str, format: str | None) -> tuple[str, str]:
    """Stem and extension of the result's name, as ``rasr restore`` chooses them."""
    path = Path(name)
    if format is not None:
        return path.stem, f".{format}"
    if path.suffix.lower() in TYPES:
        return path.stem, path.suffix
    return (path.stem if path.suffix.lower() in READ_ONLY else name), usual_extension(found) or ".jpg"
