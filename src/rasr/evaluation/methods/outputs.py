"""Finished pictures of a method that was run elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rasr.errors import BenchmarkError, PictureError, RasrError, UsageError
from rasr.evaluation.method import Job, MethodInfo, Outcome
from rasr.images import find_pictures, read_picture, write_picture

__all__ = ["OutputsMethod", "collect"]


class OutputsMethod:
    """A folder with one picture for each test picture, of the same name."""

    def __init__(self, name: str, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"outputs:{folder}: there is no such folder.")
        self._folder = folder
        files = find_pictures([folder])
        state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        self.info = MethodInfo(
            name,
            "Other",
            f"finished pictures in {folder}",
            uses_reference=False,
            whole=True,
            settings={"outputs": str(folder.resolve()), "files": state},
        )

    def run(self, jobs: Sequence[Job], folder: Path) -> Iterator[Outcome]:
        """Take over what is there.

        Raises BenchmarkError when names differ in both directions: pictures then belong to another benchmark or were
        renamed, and pairing them in order would compare wrong pictures.
        """
        found = {picture.stem: picture for picture in find_pictures([self._folder])}
        wanted = {job.name for job in jobs}
        missing, extra = sorted(wanted - found.keys()), sorted(found.keys() - wanted)
        if missing and extra:
            raise BenchmarkError(
                f"The names in {self._folder} are not those of the benchmark: '{missing[0]}' is missing and "
                f"'{extra[0]}' is there ({len(missing)} missing, {len(extra)} unknown). Pictures are paired by name, "
                "never by order."
            )
        for job in jobs:
            yield collect(job, found.get(job.name))


def collect(job: Job, source: Path | None, seconds: float = 0.0, memory: int = 0) -> Outcome:
    """Copy a picture made elsewhere to where the job wants it, as 8-bit PNG."""
    if source is None:
        return Outcome(job.name, seconds, memory, "no output picture was written")
    try:
        write_picture(read_picture(source), job.output, bits=8, metadata="strip", overwrite=True)
    except PictureError as error:
        return Outcome(job.name, seconds, memory, f"its output cannot be read: {error}")
    except RasrError as error:
        return Outcome(job.name, seconds, memory, str(error))
    return Outcome(job.name, seconds, memory)
