"""Worker process of a batch: one model, one picture at a time, saved once the parent has it in the journal."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from rasr.child import Pipe, parent_of
from rasr.device import use_threads
from rasr.errors import RasrError, error_facts
from rasr.memory import divide_memory
from rasr.object_path import place as path_of
from rasr.restoration.plan import Job
from rasr.restoration.result import Result
from rasr.restoration.work import FATAL, do_job, draw_map, fault_of
from rasr.restoration.workers import packed_evidence, read_setup


class Worker:
    """Does what the parent says until that hangs up."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def run(self) -> None:
        """Take the setup, then one picture after the other."""
        setup, _ = self._pipe.receive()
        divide_memory(setup["workers"])
        self._records, self._keeps = setup["record"], setup["keep_evidence"]
        try:
            self._restorer, self._settings, self._save, self._limits = read_setup(setup)
        except RasrError as error:
            self._pipe.send({"fatal": error_facts(error)})
            return
        self._pipe.send({"ready": True})
        while True:
            said, _ = self._pipe.receive()
            answer, content = self._restored(said)
            self._pipe.send(answer, content)

    def _restored(self, said: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Restore a picture, and tell what became of it."""
        job = Job(path_of(said["input"]), path_of(said["output"]), size=tuple(said["size"]))
        try:
            result = do_job(
                job,
                self._restorer,
                self._settings,
                self._save,
                limits=self._limits,
                announce=lambda *_: self._progress,
                placing=self._placing if self._records else None,
            )
        except FATAL as error:
            return {"fatal": error_facts(error)}, b""
        except Exception as error:  # noqa: BLE001 - what is no picture's own fault is raised again, and ends this process
            return {"error": error_facts(fault_of(error, job))}, b""
        place = None if said["map"] is None else path_of(said["map"])
        failed = draw_map(result, place, overwrite=self._save.overwrite)
        answer = {"done": result.to_json(), "map_error": None if failed is None else error_facts(failed)}
        return answer, packed_evidence(result) if self._keeps else b""

    def _progress(self, stage: str, done: float, total: float) -> None:
        self._pipe.send({"stage": stage, "done": done, "total": total})

    def _placing(self, result: Result, facts: dict[str, Any]) -> None:
        """Have the parent note a result, and wait until it has."""
        self._pipe.send({"place": result.to_json() | facts})
        said, _ = self._pipe.receive()
        if said["unrecorded"]:
            result.notes += (said["unrecorded"],)


def main() -> None:
    """Be a worker until the parent is gone."""
    use_threads()
    pipe = parent_of(sys.argv)
    with suppress(EOFError, BrokenPipeError, ConnectionError):
        Worker(pipe).run()


if __name__ == "__main__":
    main()
