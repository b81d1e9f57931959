"""Page to look at results: an overview, then slider, zoom, references, settings and timings of each.

One file where there are few; with many, their pictures lie in a folder beside it and are loaded when they are scrolled
to.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import OutputError, RasrError, shown
from rasr.files import check_writable, os_errors_as_output, write_bytes
from rasr.gallery import Reference
from rasr.images import Picture, read_picture, resize
from rasr.object_path import place as path_of
from rasr.restoration.batch import Outcome
from rasr.restoration.result import CHANGED, EVIDENCE, Result

if TYPE_CHECKING:
    from rasr.registration import Evidence

MOST_PIXELS = 16_000_000
"""Largest picture shown at its full size."""
PAGE_PIXELS = 120_000_000
"""Shared by all pictures inside a page, which a browser must hold in memory: about half a gigabyte."""
LEAST_PIXELS = 250_000
"""Below this a comparison shows nothing; a page of very many pictures shows the later ones without."""
LOSSLESS_PIXELS = 1_000_000
"""Pictures up to this size are shown as PNG, so that the page adds no artefacts to the input's own."""
INSIDE = 8
"""Pictures whose page is one file; those of more lie beside it."""
EVIDENCE_PIXELS = 500_000
"""Largest evidence layer: it is soft, and a browser stretches it."""
MOST_CELLS = 48
"""Cells a side, at most, for which the page knows the place in a reference; between them it is interpolated."""
REFERENCE, THUMBNAIL = 640, 176
"""Sides, squared, of references and of the overview's pictures."""
_SEAL = re.compile(rb'content="RASR report ([0-9a-f]{32})"')
_FILE = re.compile(r"[0-9a-f]{32}\.(png|jpg)")


def write_report(results: Sequence[Result], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the page for ``results``. Raises OutputExists and OutputError."""
    report = Report(path, overwrite=overwrite, expected=len(results))
    for result in results:
        report.add(result)
    return report.write()


class Report:
    """Collects pictures as they are finished; holds their encoded copies, or writes them, not the pictures.

    ``expected`` is how many will come: more than :data:`INSIDE` are shown from files in the folder ``NAME_files``
    beside the page. A page that RASR wrote is replaced, so that the same command can be run again; one that was
    changed, or another file, only if ``overwrite`` says so, and never a file that is no page. Raises OutputExists or
    OutputError at once when the page could not be written.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False, expected: int = 1) -> None:
        self._path = path_of(path)
        self._overwrite = overwrite or _is_own(self._path)
        check_writable(path, overwrite=self._overwrite)
        if self._path.is_file() and not _is_page(self._path):
            raise OutputError(f"{path}: this is no page, and a report does not take its place. Choose another name.")
        self._beside = self._path.with_name(f"{self._path.stem}_files") if expected > INSIDE else None
        self._limit = min(MOST_PIXELS, max(LEAST_PIXELS, PAGE_PIXELS // max(1, 2 * expected)))
        self._room = PAGE_PIXELS
        if self._beside is not None:
            self._limit = MOST_PIXELS
        self._used: set[str] = set()
        self._pictures: list[tuple[int, dict[str, Any]]] = []
        self._failed = 0

    def add(self, finished: Result | Outcome, place: int | None = None) -> None:
        """Add a result, or what became of a picture in a batch: also in an earlier run, as its journal tells it.

        ``place`` orders the page's pictures; without it they come as they were added.
        """
        place = len(self._pictures) if place is None else place
        result = finished if isinstance(finished, Result) else finished.result
        if result is not None:
            name = "picture" if result.source.path is None else result.source.path.name
            facts = self._facts(name, result.to_json(), result.source, result.picture)
            if result.evidence is not None and facts["view"] is not None:
                facts["view"] |= {"evidence": self._evidence(result)}
            self._pictures.append((place, facts))
        elif isinstance(finished, Outcome):
            self._pictures.append((place, self._told(finished)))

    def _told(self, outcome: Outcome) -> dict[str, Any]:
        """What the page says of a picture that was not restored now."""
        name, error = outcome.job.input.name, outcome.error
        self._failed += error is not None
        if error is None and outcome.read is not None:
            told = outcome.to_json()
            try:
                source, picture = read_picture(outcome.job.input), read_picture(outcome.job.output)
                facts = self._facts(name, told, source, picture)
            except RasrError as fault:
                error = fault
            else:
                if outcome.evidence and facts["view"] is not None:
                    facts["view"] |= {"evidence": self._evidence(_unpacked(told, outcome.evidence, source, picture))}
                elif any(one["about"]["shared"] for one in facts["references"]):
                    facts["notes"].append("Restore it again to see the evidence over it.")
                return facts
        message = shown(error or "Finished in an earlier run; restore it again to see it here.")
        kind = "bad" if error else "soft"
        verdict = "Failed" if outcome.error else "Finished earlier"
        return {"name": shown(name), "kind": kind, "message": message, "verdict": verdict, "why": message}

    def write(self) -> Path:
        """Write the page. Raises OutputExists and OutputError."""
        import jinja2

        pictures = [facts for _, facts in sorted(self._pictures, key=lambda one: one[0])]
        count = len(pictures)
        title = f"Restored: {pictures[0]['name']}" if count == 1 else f"{count} pictures restored"
        made = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M %Z")
        failed = f" {self._failed} of {count} failed." if self._failed else ""
        template = files("rasr.restoration").joinpath("report.html").read_text(encoding="utf-8")
        environment = jinja2.Environment(autoescape=True, keep_trailing_newline=True)
        page = environment.from_string(template).render(
            title=title, summary=f"Made with RASR, {made}.{failed}", pictures=pictures, seal="0" * 32
        )
        path = write_bytes(_sealed(page.encode("utf-8", "backslashreplace")), self._path, overwrite=self._overwrite)
        if self._beside is not None and self._beside.is_dir():
            for old in self._beside.iterdir():  # of an earlier page of this name
                if _FILE.fullmatch(old.name) and old.name not in self._used:
                    with suppress(OSError):
                        old.unlink()
        return path

    def _facts(self, name: str, facts: Mapping[str, Any], source: Picture, picture: Picture) -> dict[str, Any]:
        """All that the page says of a result, by its name in the template; ``facts`` as ``--json`` prints them."""
        sizes = f"{source.width}×{source.height} → {picture.width}×{picture.height} pixels"
        output = f", saved as {shown(facts['output'])}" if facts["output"] else ""
        timings = {stage: seconds for stage, seconds in facts["timings"].items() if isinstance(seconds, int | float)}
        timings["total"] = sum(timings.values())
        references = [self._reference(one, facts["settings"]) for one in facts["references"] if isinstance(one, dict)]
        guides = [one for one in references if one["used"]]
        best = guides[0] if guides else references[0] if references else None
        return {
            "name": shown(name),
            "sizes": sizes + output,
            "notes": [shown(note) for note in facts["notes"]],
            "view": self._view(source, picture),
            "references": references,
            "settings": dict(facts["settings"]),
            "timings": {stage: f"{seconds:.2f} s" for stage, seconds in timings.items()},
            "thumbnail": self._show(picture, THUMBNAIL**2, lossless_to=0)[0],
            "verdict": "Restored with a reference" if guides else "Restored without a reference",
            "kind": "good" if guides else "soft",
            "why": sizes,
            "best": best,
        }

    def _view(self, source: Picture, picture: Picture) -> dict[str, Any] | None:
        """Both pictures for the slider; None when the page is full."""
        if self._beside is None and self._room < LEAST_PIXELS:
            return None
        after, width, height = self._show(picture, self._limit, LOSSLESS_PIXELS)
        before, before_width, before_height = self._show(source, self._limit, LOSSLESS_PIXELS)
        self._room -= width * height + before_width * before_height
        share = None if (width, height) == (picture.width, picture.height) else width / picture.width
        views = {"before": before, "after": after, "width": width, "height": height}
        return views | {"alpha": picture.alpha is not None, "share": share}

    def _evidence(self, result: Result) -> dict[str, Any] | None:
        """Layer, legend, and for each photo that gave detail its rank and where its cells lie in it."""
        from rasr.restoration.evidence import layer, legend

        if result.evidence is None:
            return None
        drawn = Image.fromarray(layer(result))
        shrink = min(1.0, math.sqrt(EVIDENCE_PIXELS / (drawn.width * drawn.height)))
        size = max(1, round(drawn.width * shrink)), max(1, round(drawn.height * shrink))
        buffer = io.BytesIO()
        drawn.resize(size, Image.Resampling.BOX).save(buffer, "PNG")
        photos = [
            {"rank": one.rank, "words": f"{EVIDENCE} {shown(one.path.name)}", "cells": cells}
            for one, cells in zip(result.evidence_references, _cells(result.evidence), strict=True)
        ]
        entries = [
            {"colour": one.colour, "words": shown(one.words), "share": f"{one.share:.0%}"} for one in legend(result)
        ]
        return {"layer": self._keep(buffer.getvalue(), "png"), "legend": entries, "photos": photos}

    def _reference(self, facts: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        generator = settings.get("generator")
        reads = generator.get("uses_reference", True) if isinstance(generator, dict) else True
        same, share, changed = facts.get("verdict") == "same scene", facts.get("share"), facts.get("changed")
        guided = facts.get("accepted") and settings.get("strength", 1.0)
        used = bool(guided and (share or changed if same else reads))
        path, score = path_of(str(facts.get("path"))), facts.get("score")
        thumbnail = fault = None
        try:
            thumbnail, _, _ = self._show(read_picture(path), REFERENCE**2, lossless_to=0)
        except RasrError as error:
            fault = shown(error)
        about: dict[str, Any] = {key: shown(facts.get(key) or "") for key in ("rank", "category", "why")}
        about |= {"name": shown(path.name), "path": shown(path), "accepted": facts.get("accepted")}
        detail = f"{EVIDENCE} {shown(path.name)}" if same and (share or not changed) else ""
        drew = f"{CHANGED} {shown(path.name)}" if changed or not detail else ""
        about["words"] = f"Used: {'; elsewhere '.join(filter(None, (detail, drew)))}."
        about["shared"] = bool(share)
        about["score"] = f"{score:.3f}" if isinstance(score, int | float) else ""
        return {"about": about, "used": used, "thumbnail": thumbnail, "fault": fault}

    def _show(self, picture: Picture, limit: int, lossless_to: int) -> tuple[str, int, int]:
        """Address of a picture reduced to at most ``limit`` pixels, with its width and height there."""
        content, kind, width, height = _encode(picture, limit, lossless_to)
        return self._keep(content, kind), width, height

    def _keep(self, content: bytes, kind: str) -> str:
        """Address of a picture's bytes: in the page, or in a file beside it."""
        if self._beside is None:
            return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
        name = f"{xxhash.xxh3_128_hexdigest(content)}.{'jpg' if kind == 'jpeg' else kind}"
        if name not in self._used:
            with os_errors_as_output(self._beside):
                self._beside.mkdir(exist_ok=True)
            write_bytes(content, self._beside / name, overwrite=True)
            self._used.add(name)
        return f"{quote(self._beside.name.encode('utf-8', 'surrogateescape'))}/{name}"


def _unpacked(facts: Mapping[str, Any], packed: bytes, source: Picture, picture: Picture) -> Result:
    """A result that another process made, as far as its evidence goes."""
    from rasr.registration import Evidence

    with np.load(io.BytesIO(packed)) as kept:
        evidence = Evidence(kept["maps"], kept["places"])
    references = [
        Reference(path_of(one["path"]), one["score"], one["rank"], share=one["share"]) for one in facts["references"]
    ]
    return Result(picture, source, references, dict(facts["settings"]), {}, evidence=evidence)


def _is_page(path: Path) -> bool:
    with os_errors_as_output(path), path.open("rb") as file:
        return b"<html" in file.read(4096).lower()


def _is_own(path: Path) -> bool:
    """True for a page as RASR wrote it."""
    try:
        return path.is_file() and _is_page(path) and _sealed(content := path.read_bytes()) == content
    except (OSError, RasrError):
        return False


def _sealed(page: bytes) -> bytes:
    """The page with the hash of everything else in it, by which it is known as it was written; as it is without one."""
    found = _SEAL.search(page[:4096])
    if found is None:
        return b""
    begin, end = found.span(1)
    digest = xxhash.xxh3_128_hexdigest(page[:begin] + b"0" * 32 + page[end:])
    return page[:begin] + digest.encode() + page[end:]


def _encode(picture: Picture, limit: int, lossless_to: int) -> tuple[bytes, str, int, int]:
    """Bytes of the picture, reduced to at most ``limit`` pixels, their kind, and its width and height there."""
    pixels, alpha = picture.pixels, picture.alpha
    shrink = math.sqrt(limit / (picture.width * picture.height))
    width, height = picture.width, picture.height
    if shrink < 1:
        width, height = max(1, int(width * shrink)), max(1, int(height * shrink))
        pixels = resize(pixels, (width, height))
        alpha = None if alpha is None else resize(alpha, (width, height))
    planes = _to_8bit(pixels)
    lossless = alpha is not None or width * height <= lossless_to
    if alpha is not None:
        planes = np.dstack([planes, _to_8bit(alpha)])
    buffer = io.BytesIO()
    if lossless:
        Image.fromarray(planes).save(buffer, "PNG")
    else:
        Image.fromarray(planes).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue(), "png" if lossless else "jpeg", width, height


def _cells(evidence: Evidence) -> list[dict[str, Any]]:
    """For each photo a grid of cells in base64, three bytes each: x and y in the photo, and the photo's share."""
    height, width = evidence.maps.shape[1:]
    rows, columns = (min(count, MOST_CELLS) for count in evidence.places.shape[1:3])
    y, x = (((np.arange(count) + 0.5) * side / count).astype(int) for count, side in ((rows, height), (columns, width)))
    found = []
    for places, shares in zip(evidence.find(x, y), evidence.maps, strict=True):
        content = np.dstack([_to_8bit(places), shares[np.ix_(y, x)]]).tobytes()
        found.append({"rows": rows, "columns": columns, "content": base64.b64encode(content).decode("ascii")})
    return found


def _to_8bit(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.rint(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)
    return levels
