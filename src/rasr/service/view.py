"""A job as its clients see it: state, times, references in words, links, and the command line that does the same."""

from __future__ import annotations

import importlib.metadata
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rasr.errors import shown
from rasr.generator import DEFAULT_DETAIL
from rasr.images.encode import FORMATS
from rasr.restoration.evidence import hex_colour
from rasr.service.config import FORMATS as ANSWERED
from rasr.service.jobs import Job
from rasr.service.running import Progress

COSTS = {"load": 0.1, "clean": 6.0, "restore": 1.0, "save": 0.2}
"""Shares of the time that the stages of a picture take, roughly."""
TYPES = {extension: f"image/{one.name.lower()}" for one in FORMATS.values() for extension in one.extensions}


def show(job: Job, progress: Progress | None, position: int | None, left: float | None) -> dict[str, Any]:
    """A job as its clients see it, and its revision; ``left`` are the seconds until it is done."""
    request, outcome = job.request, job.outcome or {}
    link = f"/jobs/{job.id}"
    links = {"self": link, "events": f"{link}/events", "input": f"{link}/input"}
    result = None
    if job.state == "done":
        name = Path(request["output"]).name
        links |= {one: f"{link}/{one}" for one in ("result", "view", "evidence", "report")}
        links["evidence_picture"] = f"{link}/evidence.png"
        kind = TYPES.get(Path(name).suffix.lower(), "application/octet-stream")
        size = {"width": outcome["width"], "height": outcome["height"]}
        result = {**size, "type": kind, "bytes": outcome["bytes"], "name": name}
    begun, over = job.started, job.finished
    return {
        "id": job.id,
        "name": job.name,
        "batch": job.batch,
        "state": job.state,
        "position": position,
        "progress": None
        if progress is None
        else {name: getattr(progress, name) for name in ("stage", "done", "total")},
        "eta_seconds": None if left is None else round(left, 1),
        "created": _iso(job.created),
        "started": _iso(begun),
        "finished": _iso(over),
        "error": job.error,
        "input": {"width": request["size"][0], "height": request["size"][1]},
        "result": result,
        "references": [
            show_reference(one, index, request["gallery"] if one["id"] else None, f"{link}/references/{index}")
            for index, one in enumerate(outcome.get("references", ()))
        ],
        "drawn": outcome.get("drawn"),
        "settings": {"preset": request["preset"], "scale": request["scale"], **request["settings"]}
        | {"gallery": request["gallery"], "references": request["reference"], **request["save"]},
        "notes": outcome.get("notes", []),
        "command": command(job),
        "links": links,
        "seconds": None if begun is None or over is None else round(over - begun, 3),
        "revision": job.revision + (0 if progress is None else progress.changes),
    }


def show_reference(facts: Mapping[str, Any], index: int, gallery: str | None, picture: str) -> dict[str, Any]:
    """A photo that was considered, as clients see it."""
    return {
        "index": index,
        "id": facts["id"] or None,
        "name": shown(Path(facts["path"]).name),
        "gallery": gallery,
        "verdict": facts["verdict"] or "not compared",
        "accepted": facts["accepted"],
        "score": round(facts["score"], 6) if gallery else None,
        "why": shown(facts["why"].replace(facts["path"], Path(facts["path"]).name)),
        "share": round(facts["share"] or 0.0, 4),
        "changed": facts.get("changed") or 0.0,
        "width": facts["width"],
        "height": facts["height"],
        "colour": hex_colour(index),
        "picture": picture,
    }


def version() -> str:
    """Version of this package."""
    return importlib.metadata.version("rasr")


def command(job: Job) -> str:
    """The command line that makes the same result."""
    request, settings = job.request, job.request["settings"]
    words = ["rasr", "restore", job.name, "-o", Path(request["output"]).name, "--preset", request["preset"]]
    picked = [*(Path(one).name for one in request["references"])]
    if job.outcome is not None and request["photos"]:
        picked += [Path(one["path"]).name for one in job.outcome["references"] if one["id"] in request["photos"]]
    if request["gallery"]:
        words += ["-g", request["gallery"]]
    for one in picked:
        words += ["--reference", one]
    if not picked and request["reference"] != "auto":
        words += ["--reference", request["reference"]]
    words += ["--scale", f"{request['scale']:g}", "--strength", f"{settings['strength']:g}"]
    if (place := settings.get("detail", DEFAULT_DETAIL)) != DEFAULT_DETAIL:
        words += ["--detail", f"{place:g}"]
    if not settings.get("reduce", True):
        words.append("--no-reduce")
    words += ["--seed", str(settings["seed"]), "-k", str(settings["k"])]
    if request["save"]["format"] in ANSWERED:
        words += ["--format", request["save"]["format"]]
    return shlex.join([*words, "--metadata", request["save"]["metadata"]])


def part_of(stage: str, done: float, total: float) -> float:
    """Share of a picture's work that is done, 0 to 1."""
    before = 0.0
    for name, cost in COSTS.items():
        if name == stage:
            return (before + cost * done / max(total, 1e-9)) / sum(COSTS.values())
        before += cost
    return 0.0


def _iso(seconds: float | None) -> Any:
    return (
        None
        if seconds is None
        else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
