"""Batch on a cluster: its machines restore pictures, this process alone checks, records and writes them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from rasr.cluster import Actors, Answered, ClusterOptions
from rasr.errors import ClusterError, PictureError, RasrError, UsageError, error_facts, error_of
from rasr.files import cache_dir, write_bytes
from rasr.memory import divide_memory
from rasr.object_path import place as path_of
from rasr.restoration.evidence import evidence_png
from rasr.restoration.plan import Job
from rasr.restoration.restorer import Restorer
from rasr.restoration.settings import SaveOptions, Settings
from rasr.restoration.work import Announce, Folders, check_guides, check_job, fault_of, make_file, write_map
from rasr.restoration.work_key import work_key
from rasr.restoration.workers import Ended, Recording, packed_evidence, read_setup


class Restoring:
    """On a machine of the cluster: a model, and pictures restored with it one by one; nothing is written."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        divide_memory(setup["processes"])
        self._where = "" if platform.node() == setup["driver"] else f" (on the machine {platform.node()})"
        self._restorer, self._settings, self._save, self._limits = read_setup(setup)
        self._keeps = setup["keep_evidence"]
        if work_key(self._restorer, self._settings, self._save) != setup["key"]:
            raise ClusterError(
                f"The machine {platform.node()} would restore otherwise: its weights, or photos picked as references, "
                "are not those here. Have the same files on all machines of the cluster."
            )

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Restore pictures; each answer holds the content of a result's file and its facts, or an error."""
        return [self._restored(said) for said in items]

    def _restored(self, said: Mapping[str, Any]) -> dict[str, Any]:
        job = Job(path_of(said["input"]), path_of(said["output"]), size=tuple(said["size"]))
        try:
            _check_same(job.input, said["bytes"])
            result, content, facts = make_file(
                job, self._restorer, self._settings, self._save, limits=self._limits
            )  # fmt: skip
            return {
                "made": result.to_json() | facts,
                "content": content,
                "evidence": packed_evidence(result) if self._keeps else b"",
                "map": evidence_png(result) if said["map"] else b"",
            }
        except Exception as error:  # noqa: BLE001 - what is no picture's own fault is raised again
            fault = fault_of(error, job)
            return {"error": error_facts(fault) | {"message": f"{fault}{self._where}"}}


def _check_same(picture: Path, size: int) -> None:
    """Refuse a picture that another machine has with another size. Raises PictureError, and OSError."""
    if picture.stat().st_size != size:
        raise PictureError(f"{picture}: this is another file than on the machine of the command.")


class Spread:
    """A batch spread over a cluster; ``record`` is told of a result before it is placed."""

    def __init__(
        self,
        cluster: ClusterOptions,
        setup: Mapping[str, Any],
        settings: Settings,
        save: SaveOptions,
        *,
        record: Recording | None,
    ) -> None:
        self._cluster, self._setup, self._settings, self._save = cluster, setup, settings, save
        self._record = record

    def work(
        self, jobs: Sequence[Job], announce: Announce | None, maps: Mapping[Path, Path], folders: Folders
    ) -> Generator[Ended]:
        """Work on measured jobs, and give what became of each as it is over. Raises ClusterError, and GalleryError."""

        def begin(job: Job) -> dict[str, Any]:
            if job.error is not None or job.size is None:
                raise fault_of(job.error or ValueError("the job was not measured"), job)
            try:
                folders.make(job.output)
                target = check_job(job, self._settings, self._save)
                size = job.input.stat().st_size
            except (RasrError, OSError) as error:
                raise fault_of(error, job) from error
            if announce is not None:
                announce(job, target)
            told = {"input": str(job.input), "output": str(job.output), "size": job.size}
            return {**told, "bytes": size, "map": job.output in maps}

        with (
            Actors(self._cluster, "rasr.restoration.spread:Restoring", self._setup) as actors,
            closing(actors.work(jobs, begin=begin)) as answered,
        ):
            for one in answered:
                yield self._ended(one, maps)

    def _ended(self, one: Answered[Job], maps: Mapping[Path, Path]) -> Ended:
        """Record a result, then place it."""
        job, answer = one.item, one.answer
        if one.error is not None:
            return Ended(job, error=fault_of(one.error, job))
        if "error" in answer:
            return Ended(job, error=error_of(answer["error"]))
        now = time.time_ns()
        facts = {**answer["made"], "output_mtime_ns": now}
        try:
            check_guides(job.output, (path_of(guide["path"]) for guide in facts["references"] if guide["accepted"]))
            if self._record is not None and (unrecorded := self._record(job, facts)):
                facts["notes"] = [*facts["notes"], unrecorded]
            write_bytes(answer["content"], job.output, overwrite=self._save.overwrite)
        except (RasrError, OSError) as error:
            return Ended(job, error=fault_of(error, job))
        with suppress(OSError):  # then it is compared by content
            os.utime(job.output, ns=(now, now))
        drawn = maps.get(job.output)
        map_error = None if drawn is None else write_map(answer["map"], drawn, overwrite=self._save.overwrite)
        return Ended(job, {**facts, "output": str(job.output)}, None, answer["evidence"], map_error)


def check_gallery(cluster: ClusterOptions, restorer: Restorer) -> None:
    """Refuse a folder of photos, whose index lies on this machine alone, for several. Raises UsageError."""
    address = restorer.gallery_address
    if address is not None and cluster.cluster != "local":
        check_shared(address)


def check_shared(address: str) -> None:
    """Refuse a gallery that RASR keeps of a folder of photos, on this machine alone. Raises UsageError."""
    if not Path(address).is_relative_to(cache_dir("galleries")):
        return
    raise UsageError(
        "A folder of photos as gallery is indexed on this machine alone, where others of the cluster do not see it. "
        "Make a gallery where all have it, with 'rasr gallery add GALLERY FOLDER', and name that."
    )
