"""Official code of a method, run from its checkout as a profile says, within a time limit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np

from rasr.errors import MethodError
from rasr.evaluation.method import EvalJob, EvalOutcome, MethodInfo, State
from rasr.evaluation.methods.profile import Profile
from rasr.images import FloatImage, Picture, read_picture, resize, write_picture

STRIKES = 3
"""Failed runs without a picture, one after the other, after which the command is given up."""


class CommandMethod:
    """A profile with the checkout to run it in.

    The checkout is given, or named by the environment variable ``RASR_CHECKOUT_NAME``; its Python is
    ``RASR_PYTHON_NAME``, else ``.venv/bin/python`` inside it, else ``python3``.
    """

    def __init__(self, profile: Profile, checkout: Path | None = None, seconds: float | None = None) -> None:
        self._profile = profile
        self.name = profile.name
        named = checkout or os.environ.get(self._variable("CHECKOUT"))
        self._checkout = Path(named).resolve() if named else None
        self._seconds = seconds or profile.seconds

    def _variable(self, kind: str) -> str:
        return f"RASR_{kind}_{self._profile.name.upper().replace('-', '_')}"

    @cached_property
    def info(self) -> MethodInfo:
        """The profile's facts, and whether its checkout and weights are there."""
        state, todo = self._state()
        profile = self._profile
        return MethodInfo(
            profile.name,
            profile.family,
            f"{profile.title}: {profile.summary}",
            profile.uses_reference,
            needs_reference=profile.needs_reference,
            state=state,
            todo=todo,
            licence=profile.licence,
            settings={"profile": profile.model_dump(mode="json"), "commit": _commit(self._checkout)},
        )

    def _state(self) -> tuple[State, str]:
        profile = self._profile
        clone = f"git clone{f' -b {profile.branch}' if profile.branch else ''} {profile.repository}"
        how = (
            f"{profile.setup} Then name its folder: --checkout {profile.name}=DIR, or {self._variable('CHECKOUT')}=DIR."
        )
        if self._checkout is None:
            return "needs checkout", f"{clone} and set it up. {how}"
        entry = self._checkout / profile.entry
        if not entry.is_file():
            return "needs checkout", f"{self._checkout} has no {profile.entry}. {clone}. {how}"
        missing = [name for name in profile.weights if not _holds_data(self._checkout / name)]
        if missing:
            return "needs weights", f"{self._checkout / missing[0]} is missing or empty. {profile.setup}"
        if profile.edit and profile.edit in entry.read_text(encoding="utf-8", errors="replace"):
            return "needs weights", f"{entry} still looks for {profile.edit}. {profile.setup}"
        return "ready", ""

    def run(self, jobs: Sequence[EvalJob], folder: Path) -> Iterator[EvalOutcome]:
        """Write inputs and files, run the command for all pictures, and take its outputs.

        Codes end with the first picture that they cannot do. That one is left out then and the command run again for
        the rest. Raises MethodError when the checkout or its weights are missing, and when the command fails without
        any output, at the first picture and at others.
        """
        if self.info.state != "ready" or self._checkout is None:
            raise MethodError(f"{self._profile.title} cannot run: {self.info.todo}")
        own = self._checkout / ".venv" / "bin" / "python"
        python = os.environ.get(self._variable("PYTHON")) or (str(own) if own.exists() else "python3")
        shutil.rmtree(folder, ignore_errors=True)
        work = _Work(self._profile, self._checkout, folder.resolve(), python, self._seconds)
        pending = {}
        for number, job in enumerate(jobs):
            try:
                pending[f"{number:06d}"] = _Task(job, *self._canvas(job))
            except ValueError as error:
                yield EvalOutcome(job.name, error=f"{self._profile.title}: {error}")
        scales = sorted({task.job.scale for task in pending.values()}) if self._profile.told_scale else [None]
        for scale in scales:
            chosen = {number: task for number, task in pending.items() if scale in (None, task.job.scale)}
            yield from self._run(work, chosen)

    def _canvas(self, job: EvalJob) -> tuple[int, int]:
        """Width and height of the output as the command writes it."""
        canvas = self._profile.canvas
        if canvas is None:
            return job.width, job.height
        return canvas.fit(job.width, job.height, job.scale if self._profile.input == "low" else 1)

    def _run(self, work: _Work, pending: dict[str, _Task]) -> Iterator[EvalOutcome]:
        """Run again without the first picture that is missing, until nothing fails or nothing is left."""
        strikes, blamed = 0, []
        while pending:
            failure, seconds, memory = work.run(pending)
            finished = {number: path for number, task in pending.items() if (path := work.output(number, task))}
            for number, path in finished.items():
                yield pending.pop(number).collect(path, seconds / len(finished), memory)
            if not failure:
                for task in pending.values():
                    yield EvalOutcome(task.job.name, error="no output picture was written")
                break
            failure = f"{self._profile.title} {failure}"
            strikes = 0 if finished else strikes + 1
            if not work.successes and (strikes == STRIKES or len(pending) == 1):
                raise MethodError(failure)
            while pending:
                blamed.append((pending.pop(next(iter(pending))).job.name, failure))
                if strikes < STRIKES:
                    break
        for name, failure in blamed:
            yield EvalOutcome(name, error=failure)


@dataclass(frozen=True, slots=True)
class _Task:
    """A job with the size of its canvas."""

    job: EvalJob
    width: int
    height: int

    def collect(self, path: Path, seconds: float, memory: int) -> EvalOutcome:
        return self.job.collect(path, seconds, memory, canvas=(self.width, self.height))


class _Work:
    """The folders and files that the runs of a command see."""

    def __init__(self, profile: Profile, checkout: Path, folder: Path, python: str, seconds: float) -> None:
        self._profile, self._checkout, self._seconds = profile, checkout, seconds
        self._folder = folder
        self._runs = count(1)
        self.successes = False
        """Whether any picture came out of any run."""
        self._places = {
            "python": python,
            "checkout": str(checkout),
            "work": str(folder),
            "inputs": str(folder / profile.inputs),
            "references": str(folder / profile.references),
            "outputs": str(folder / profile.outputs),
            "seed": "0",
        }

    def run(self, tasks: Mapping[str, _Task]) -> tuple[str, float, int]:
        """Run the command for these pictures; returns as :func:`_execute`."""
        self._prepare(tasks)
        command = [self._fill(part) for part in self._profile.command]
        environment = {**os.environ, **{name: self._fill(text) for name, text in self._profile.environment.items()}}
        run = next(self._runs)
        log = self._folder / ("log.txt" if run == 1 else f"log-{run}.txt")
        limit = self._profile.start_seconds + self._seconds * len(tasks)
        result = _execute(command, self._checkout, environment, log, limit)
        self.successes |= any(self.output(number, task) is not None for number, task in tasks.items())
        return result

    def output(self, number: str, task: _Task) -> Path | None:
        """The output picture that is there, if any."""
        places = [Path(self._fill(pattern, number, task)) for pattern in self._profile.output]
        return next((place for place in places if place.is_file()), None)

    def _prepare(self, tasks: Mapping[str, _Task]) -> None:
        """Empty the folder but for logs, so that no output of an earlier run is taken, and fill it."""
        for place in self._folder.iterdir() if self._folder.is_dir() else ():
            if place.is_dir():
                shutil.rmtree(place)
            elif not place.name.startswith("log"):
                place.unlink()
        for name in ("inputs", "references", "outputs"):
            Path(self._places[name]).mkdir(parents=True)
        for number, task in tasks.items():
            stale = self.output(number, task)
            if stale is not None:
                stale.unlink()
            self._write(task, number)
        self._places["scale"] = str(next(iter(tasks.values())).job.scale)
        for file in self._profile.file:
            lines = [self._fill(file.line, number, task) for number, task in tasks.items()]
            text = self._fill(file.text) if file.text else "\n".join(lines) + "\n"
            _with_folder(self._folder / file.path).write_text(text, encoding="utf-8")
        names = {number: task.job.name for number, task in tasks.items()}
        (self._folder / "names.json").write_text(json.dumps(names, indent=1), encoding="utf-8")

    def _write(self, task: _Task, number: str) -> None:
        job, profile = task.job, self._profile
        pixels = read_picture(job.low).pixels
        if profile.input == "upsampled":
            pixels = _pad(np.clip(resize(pixels, (job.width, job.height)), 0.0, 1.0), task.width, task.height)
        elif profile.canvas is not None:
            pixels = _pad(pixels, task.width // job.scale, task.height // job.scale)
        place = Path(self._places["inputs"]) / self._fill(profile.input_name, number, task)
        write_picture(Picture(pixels), _with_folder(place), format="PNG", bits=8, overwrite=True)
        for rank, choice in enumerate(job.references if profile.uses_reference else (), 1):
            reference = read_picture(choice.path).opaque()
            if profile.reference_fit:
                reference = _fit(reference, task.width, task.height)
            place = Path(self._places["references"]) / self._fill(profile.reference_name, number, task, rank)
            write_picture(Picture(reference), _with_folder(place), format="PNG", bits=8, overwrite=True)

    def _fill(self, text: str, number: str = "", task: _Task | None = None, rank: int = 1) -> str:
        values = self._places | {"name": number, "rank": str(rank)}
        if task is not None:
            values |= {"width": str(task.width), "height": str(task.height), "scale": str(task.job.scale)}
        for name, value in values.items():
            text = text.replace("{" + name + "}", value)
        return text


def _with_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _holds_data(path: Path) -> bool:
    """True for a file with content and for a folder that holds one."""
    if path.is_dir():
        return any(part.is_file() and part.stat().st_size > 0 for part in path.rglob("*"))
    return path.is_file() and path.stat().st_size > 0


def _pad(pixels: FloatImage, width: int, height: int) -> FloatImage:
    """The picture with its mirror image beyond the right and the lower edge."""
    have_height, have_width = pixels.shape[:2]
    return np.pad(pixels, ((0, height - have_height), (0, width - have_width), (0, 0)), mode="symmetric")


def _fit(pixels: FloatImage, width: int, height: int) -> FloatImage:
    """The largest centred part with the output's aspect, resized to the output's size."""
    have_height, have_width = pixels.shape[:2]
    factor = min(have_width / width, have_height / height)
    part_width, part_height = width * factor, height * factor
    left, top = (have_width - part_width) / 2, (have_height - part_height) / 2
    resized = resize(pixels, (width, height), box=(left, top, left + part_width, top + part_height))
    return np.clip(resized, 0.0, 1.0)


def _execute(
    command: list[str], checkout: Path, environment: Mapping[str, str], log: Path, limit: float
) -> tuple[str, float, int]:
    """Run to the end or the limit; then kill the whole process group, workers and all.

    Returns what went wrong, if anything, the seconds it took, and the peak of resident bytes.
    """
    begun, late = time.monotonic(), False
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=checkout,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise MethodError(f"{command[0]} cannot be started: {error.strerror}.") from error
        try:
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                if not late and time.monotonic() - begun > limit:
                    late = True
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(0.05)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen must not wait for it again
    failure = ""
    if late:
        failure = f"was stopped after its time limit of {limit:.0f} s; raise it with --time-limit."
    elif process.returncode:
        tail = " | ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:])
        failure = f"ended with exit code {process.returncode}. Its last words ({log}): {tail or 'none'}"
    return failure, time.monotonic() - begun, usage.ru_maxrss * 1024


def _commit(checkout: Path | None) -> str:
    """Commit of the checkout, by which results of versions differ; empty outside git."""
    if checkout is None:
        return ""
    try:
        answer = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()
