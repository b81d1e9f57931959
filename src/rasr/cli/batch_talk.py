"""Talk of a batch on stderr: a line a picture, what becomes of it, a bar or lines of progress, and a summary."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rasr.cli.console import Lines, detail, progress_bar, resumable, say, warn
from rasr.errors import shown

if TYPE_CHECKING:
    from rasr.errors import RasrError
    from rasr.progress import Progress
    from rasr.restoration import Job, Outcome
    from rasr.restoration.batch import Run

COSTS = {"clean": 6.0, "restore": 1.0}
"""Shares of the time that the stages of a picture take, until the first picture has told its own."""


class Telling:
    """Follows a run and tells it; ``stages`` are those of a picture that progress is told of."""

    def __init__(self, run: Run, stages: Sequence[str]) -> None:
        self.run = run
        self.failed: list[RasrError] = []
        """What failed, pictures and evidence maps."""
        self._counts = {"done": 0, "skipped": 0, "failed": 0}
        self._costs = {stage: COSTS[stage] for stage in stages}
        self._count = len(run.jobs)
        self._beside = (2 if run.cluster else min(run.options.workers, len(run.left))) > 1
        self._total = float(sum(_pixels(job) for job in run.left))
        self._done = 0.0
        self._places: dict[Path, str] = {}
        self._parts: dict[Path, float] = {}
        self._lines = Lines(whole=True)

    def follow(
        self, finished: Sequence[Outcome], *, maps: Mapping[Path, Path], keep_evidence: bool
    ) -> Iterator[Outcome]:
        """Pass on what was ``finished`` before, then what becomes of what is left, and tell it."""
        with resumable(self._standing), progress_bar() as bar:
            task = bar.add_task("", total=self._total or None)

            def announce(job: Job, target: tuple[int, int]) -> Progress:
                width, height = job.size or (0, 0)
                place = self._place(job)
                say(f"{place}{job.input}: {width}×{height} → {target[0]}×{target[1]} pixels")
                bar.update(task, description=shown(f"{place}{job.input.name}"), refresh=True)

                def progress(stage: str, part: float, total: float) -> None:
                    self._parts[job.output] = self._share(stage, part / total) * _pixels(job)
                    done = self._done + sum(self._parts.values())
                    bar.update(task, completed=done, description=shown(f"{place}{job.input.name}: {stage}"))
                    if bar.disable:
                        self._lines.show("restore" if self._beside else f"{place}{stage}", done, self._total)

                return progress

            for outcome in finished:
                yield self._told(outcome, maps)
            if self.run.left:
                for outcome in self.run.go(announce, maps=maps, keep_evidence=keep_evidence):
                    yield self._told(outcome, maps)
                    bar.update(task, completed=self._done, total=self._total or None)

    def conclude(self, where: str, listed: Path | None, *, drawn: bool, several: bool) -> None:
        """Tell the end: of a batch what failed, and where that is ``listed``; and one line that sums up.

        ``drawn`` is true where a network drew the results.
        """
        if drawn and self._counts["done"] + self._counts["skipped"]:
            say("Restored detail is plausible, not evidence, but for what is said to be detail from your photos.")
        if not several:
            return
        if self.failed:
            warn(f"{len(self.failed)} of {self._count} failed{f', listed in {listed}' if listed else ''}:")
        for error in self.failed:
            warn(f"  {error}")
        counts = ", ".join(f"{count} {name}" for name, count in self._counts.items())
        part = "" if self.run.options.shard is None else f", part {self.run.options.shard}"
        say(f"{counts} in {time.monotonic() - self.run.begun:.0f} s: {where}{part}")

    def _standing(self) -> str:
        """How far an interrupted run was."""
        if self._count == 1:
            return "nothing was written."
        return f"{self._counts['done'] + self._counts['skipped']} of {self._count} done; the same command goes on."

    def _place(self, job: Job) -> str:
        """Which picture it is of how many, where there are several."""
        if self._count == 1:
            return ""
        number = sum(self._counts.values()) + len(self._places) + 1
        return self._places.setdefault(job.output, f"[{number}/{self._count}] ")

    def _told(self, outcome: Outcome, maps: Mapping[Path, Path]) -> Outcome:
        """Tell what became of a picture, and count it."""
        job, place = outcome.job, self._place(outcome.job)
        self._places.pop(job.output, None)
        self._parts.pop(job.output, None)
        for line in _lines(outcome, place, place if self._beside else "  "):
            (warn if outcome.error else say)(line)
        if outcome.earlier and job.output in maps and not maps[job.output].exists():
            say(f"  No evidence map: {job.output.name} was finished earlier. --overwrite restores it again.")
        self.failed += [error for error in (outcome.error, outcome.map_error) if error is not None]
        if outcome.error is not None or outcome.earlier:
            # No work: it tells nothing of the time that the others take.
            self._total -= 0 if outcome.earlier else _pixels(job)
        else:
            self._done += _pixels(job)
            timings = outcome.to_json()["timings"]
            detail(f"  Seconds: {', '.join(f'{name} {took:.2f}' for name, took in timings.items())}")
            took = {stage: timings.get(stage, 0.0) for stage in self._costs}
            if all(took.values()):
                self._costs = took
        self._counts["failed" if outcome.error else "skipped" if outcome.earlier else "done"] += 1
        return outcome

    def _share(self, stage: str, part: float) -> float:
        """The share of a picture's work that is done, when ``part`` of a stage is."""
        before = 0.0
        for name, cost in self._costs.items():
            if name == stage:
                return (before + part * cost) / sum(self._costs.values())
            before += cost
        return 0.0


def _pixels(job: Job) -> int:
    return job.size[0] * job.size[1] if job.size else 0


def _lines(outcome: Outcome, place: str, indent: str) -> Iterator[str]:
    """Say what became of a picture; of one that failed alone, its error says all."""
    if outcome.error is not None:
        if place:
            yield f"{place}failed: {outcome.error}"
        return
    if outcome.earlier:
        yield f"{place}{outcome.job.input}: finished in an earlier run"
        return
    facts = outcome.to_json()
    references = facts["references"]
    for reference in [found for found in references if found["accepted"]] or references[:1]:
        yield f"{indent}Reference {reference['rank']}: {reference['path']}. {reference['why']}"
    yield from (f"{indent}{note}" for note in facts["notes"])
