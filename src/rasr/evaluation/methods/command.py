"""Official code of a method, run from its checkout as a profile says, within a time limit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from rasr.config import Table, check_table, read_toml
from rasr.errors import ConfigError, MethodError
from rasr.evaluation.method import EvalJob, EvalOutcome, MethodInfo, State
from rasr.images import FloatImage, Picture, read_picture, resize, write_picture

_PACKAGED = Path(__file__).with_name("profiles")


class _ExtraFile(Table):
    """A file written for the command: a configuration, or a list of the pictures."""

    path: str
    """Below the working folder, ``{work}``."""
    text: str = ""
    """Whole content; placeholders are filled in."""
    line: str = ""
    """One line for each picture."""

    @model_validator(mode="after")
    def _one_of(self) -> _ExtraFile:
        if bool(self.text) == bool(self.line):
            raise ValueError("a file has either text or line")
        return self


class Profile(Table):
    """One method's official code.

    Placeholders: ``{python}``, ``{checkout}``, ``{work}``, ``{inputs}``, ``{references}``, ``{outputs}``, ``{scale}``,
    ``{seed}``; and, for each picture, ``{name}`` (its number, six digits: some codes cut names at underscores or pair
    files by sort order), ``{rank}`` (1 for the best reference), ``{width}``, ``{height}`` of the output.
    """

    name: str
    title: str
    family: str
    summary: str
    repository: str
    licence: str
    entry: str
    """The script that is run, relative to the checkout; its absence means that the checkout is missing or another."""
    command: tuple[str, ...]
    """Run inside the checkout, without a shell."""
    weights: tuple[str, ...] = ()
    """Files the command needs, relative to the checkout."""
    setup: str
    """Steps a user has to do once, in words."""
    note: str = ""
    """Reasons why these figures differ from the authors' own, if there are any."""
    input: Literal["low", "upsampled"] = "low"
    """``upsampled``: bicubic to the output size, for codes that take an HR picture and shrink it themselves."""
    inputs: str = "inputs"
    input_name: str = "{name}.png"
    outputs: str = "outputs"
    output: tuple[str, ...] = ("{outputs}/{name}.png",)
    """Places where a picture may come out; the first that exists is taken."""
    uses_reference: bool = False
    needs_reference: bool = False
    """True when it cannot run without one; the policy ``none`` then has no row."""
    references: str = "references"
    reference_name: str = "{name}.png"
    reference_fit: bool = False
    """True when references are cropped and resized to the output's size first."""
    file: tuple[_ExtraFile, ...] = ()
    seconds: float = Field(default=120.0, gt=0)
    """Time limit for one picture."""
    start_seconds: float = Field(default=600.0, gt=0)
    """Time limit for starting up, added once."""

    @classmethod
    def names(cls, folder: Path | None = None) -> list[str]:
        """Names of all profiles: the packaged ones and those in ``folder``, which win."""
        return sorted(
            {path.stem for place in (_PACKAGED, folder) if place is not None for path in place.glob("*.toml")}
        )

    @classmethod
    def read(cls, name: str, folder: Path | None = None) -> Profile:
        """Read a profile. Raises ConfigError naming the file and what is wrong with it."""
        own = folder / f"{name}.toml" if folder is not None else None
        path = own if own is not None and own.is_file() else _PACKAGED / f"{name}.toml"
        table = read_toml(path, "method profile")
        if "name" in table:
            raise ConfigError(f"{path}: unknown key 'name'. A profile is called as its file is.")
        return check_table(cls, {"name": name, **table}, path)


class CommandMethod:
    """A profile with the checkout to run it in.

    The checkout is given, or named by the environment variable ``RASR_CHECKOUT_NAME``; its Python is
    ``RASR_PYTHON_NAME``, else ``.venv/bin/python`` inside it, else ``python3``.
    """

    def __init__(self, profile: Profile, checkout: Path | None = None, seconds: float | None = None) -> None:
        self._profile = profile
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
        how = (
            f"{profile.setup} Then name its folder: --checkout {profile.name}=DIR, or {self._variable('CHECKOUT')}=DIR."
        )
        if self._checkout is None:
            return "needs checkout", f"git clone {profile.repository} and set it up. {how}"
        if not (self._checkout / profile.entry).is_file():
            return "needs checkout", f"{self._checkout} has no {profile.entry}. git clone {profile.repository}. {how}"
        missing = [name for name in profile.weights if not (self._checkout / name).exists()]
        if missing:
            return "needs weights", f"{self._checkout / missing[0]} is missing. {profile.setup}"
        return "ready", ""

    def run(self, jobs: Sequence[EvalJob], folder: Path) -> Iterator[EvalOutcome]:
        """Write inputs and files, run the command once for all pictures, and take its outputs.

        Raises MethodError when the checkout or its weights are missing, when the command fails without any output, and
        when the time limit passes; what the command had finished by then is kept.
        """
        if self.info.state != "ready" or self._checkout is None:
            raise MethodError(f"{self._profile.title} cannot run: {self.info.todo}")
        own = self._checkout / ".venv" / "bin" / "python"
        python = os.environ.get(self._variable("PYTHON")) or (str(own) if own.exists() else "python3")
        numbered = {f"{number:06d}": job for number, job in enumerate(jobs)}
        run = _Run(self._profile, self._checkout, folder.resolve(), python)
        run.prepare(numbered)
        log, limit = folder / "log.txt", self._profile.start_seconds + self._seconds * len(jobs)
        failure, seconds, memory = _execute(run.command(), self._checkout, log, limit)
        finished = {number: run.output(number, job) for number, job in numbered.items()}
        if failure:
            failure = f"{self._profile.title} {failure}"
            if not any(finished.values()):
                raise MethodError(failure)
        each = seconds / max(1, sum(path is not None for path in finished.values()))
        for number, job in numbered.items():
            path = finished[number]
            if path is None and failure:
                yield EvalOutcome(job.name, error=failure)
            else:
                yield job.collect(path, each, memory)


class _Run:
    """The folders and files that one run of a command sees."""

    def __init__(self, profile: Profile, checkout: Path, folder: Path, python: str) -> None:
        self._profile = profile
        self._places = {
            "python": python,
            "checkout": str(checkout),
            "work": str(folder),
            "inputs": str(folder / profile.inputs),
            "references": str(folder / profile.references),
            "outputs": str(folder / profile.outputs),
            "seed": "0",
        }

    def prepare(self, jobs: Mapping[str, EvalJob]) -> None:
        """Empty the folder, so that no output of an earlier run is taken, and fill it."""
        shutil.rmtree(self._places["work"], ignore_errors=True)
        for name in ("inputs", "references", "outputs"):
            Path(self._places[name]).mkdir(parents=True)
        for number, job in jobs.items():
            stale = self.output(number, job)
            if stale is not None:
                stale.unlink()
            self._write(job, number)
        self._places["scale"] = str(next(iter(jobs.values())).scale)
        for file in self._profile.file:
            lines = [self._fill(file.line, number, job) for number, job in jobs.items()]
            text = self._fill(file.text) if file.text else "\n".join(lines) + "\n"
            path = Path(self._places["work"]) / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        names = {number: job.name for number, job in jobs.items()}
        (Path(self._places["work"]) / "names.json").write_text(json.dumps(names, indent=1), encoding="utf-8")

    def command(self) -> list[str]:
        """The command with its placeholders filled in."""
        return [self._fill(part) for part in self._profile.command]

    def output(self, number: str, job: EvalJob) -> Path | None:
        """The output picture that is there, if any."""
        places = [Path(self._fill(pattern, number, job)) for pattern in self._profile.output]
        return next((place for place in places if place.is_file()), None)

    def _write(self, job: EvalJob, number: str) -> None:
        picture = read_picture(job.low)
        pixels = picture.pixels
        if self._profile.input == "upsampled":
            pixels = np.clip(resize(pixels, (job.width, job.height)), 0.0, 1.0)
        place = Path(self._places["inputs"]) / self._fill(self._profile.input_name, number, job)
        write_picture(Picture(pixels), _with_folder(place), format="PNG", bits=8, overwrite=True)
        for rank, choice in enumerate(job.references if self._profile.uses_reference else (), 1):
            reference = read_picture(choice.path).opaque()
            if self._profile.reference_fit:
                reference = _fit(reference, job.width, job.height)
            place = Path(self._places["references"]) / self._fill(self._profile.reference_name, number, job, rank)
            write_picture(Picture(reference), _with_folder(place), format="PNG", bits=8, overwrite=True)

    def _fill(self, text: str, number: str = "", job: EvalJob | None = None, rank: int = 1) -> str:
        values = self._places | {"name": number, "rank": str(rank)}
        if job is not None:
            values |= {"width": str(job.width), "height": str(job.height), "scale": str(job.scale)}
        for name, value in values.items():
            text = text.replace("{" + name + "}", value)
        return text


def _with_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _fit(pixels: FloatImage, width: int, height: int) -> FloatImage:
    """The largest centred part with the output's aspect, resized to the output's size."""
    have_height, have_width = pixels.shape[:2]
    factor = min(have_width / width, have_height / height)
    part_width, part_height = width * factor, height * factor
    left, top = (have_width - part_width) / 2, (have_height - part_height) / 2
    resized = resize(pixels, (width, height), box=(left, top, left + part_width, top + part_height))
    return np.clip(resized, 0.0, 1.0)


def _execute(command: list[str], checkout: Path, log: Path, limit: float) -> tuple[str, float, int]:
    """Run to the end or the limit; then kill the whole process group, workers and all.

    Returns what went wrong, if anything, the seconds it took, and the peak of resident bytes.
    """
    begun, late = time.monotonic(), False
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command, cwd=checkout, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
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
