"""One self-contained page to look at results: slider, zoom, references, settings and timings."""

import base64
import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import RasrError
from rasr.files import check_writable, write_bytes
from rasr.gallery import Reference
from rasr.images import Picture, read_picture, resize
from rasr.restoration.batch import Outcome
from rasr.restoration.restorer import Result

MOST_PIXELS = 16_000_000
"""Largest picture embedded at its full size."""
PAGE_PIXELS = 120_000_000
"""Shared by all pictures of a page, which a browser must hold in memory: about half a gigabyte."""
LEAST_PIXELS = 250_000
"""Below this a comparison shows nothing; a page of very many pictures shows the later ones without."""
LOSSLESS_PIXELS = 1_000_000
"""Pictures up to this size are embedded as PNG, so that the page adds no artefacts to the input's own."""
THUMBNAIL = 640


def write_report(results: Sequence[Result], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the page for ``results``. Raises OutputExists and OutputError."""
    report = Report(path, overwrite=overwrite, expected=len(results))
    for result in results:
        report.add(result)
    return report.write()


class Report:
    """Collects pictures as they are finished; holds their encoded copies, not the pictures.

    ``expected`` is how many will come: with many, each is embedded smaller. Raises OutputExists or OutputError at once
    when the page could not be written.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False, expected: int = 1) -> None:
        check_writable(path, overwrite=overwrite)
        self._path = Path(path)
        self._overwrite = overwrite
        self._limit = min(MOST_PIXELS, max(LEAST_PIXELS, PAGE_PIXELS // max(1, 2 * expected)))
        self._room = PAGE_PIXELS
        self._pictures: list[dict[str, Any]] = []
        self._failed = 0

    def add(self, finished: Result | Outcome) -> None:
        """Add a result, or what became of a picture in a batch."""
        result = finished if isinstance(finished, Result) else finished.result
        if result is not None:
            self._pictures.append(self._facts(result))
        elif isinstance(finished, Outcome):
            self._failed += finished.error is not None
            message = finished.error or "Finished in an earlier run; restore it again to see it here."
            kind = "bad" if finished.error else "soft"
            self._pictures.append({"name": finished.job.input.name, "kind": kind, "message": str(message)})

    def write(self) -> Path:
        """Write the page. Raises OutputExists and OutputError."""
        import jinja2

        count = len(self._pictures)
        title = f"Restored: {self._pictures[0]['name']}" if count == 1 else f"{count} pictures restored"
        made = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M %Z")
        failed = f" {self._failed} of {count} failed." if self._failed else ""
        template = files("rasr.restoration").joinpath("report.html").read_text(encoding="utf-8")
        environment = jinja2.Environment(autoescape=True, keep_trailing_newline=True)
        page = environment.from_string(template).render(
            title=title, summary=f"Made with RASR, {made}.{failed}", pictures=self._pictures
        )
        return write_bytes(page.encode("utf-8", "replace"), self._path, overwrite=self._overwrite)

    def _facts(self, result: Result) -> dict[str, Any]:
        """All that the page says of a result, by its name in the template."""
        source, picture = result.source, result.picture
        sizes = f"{source.width}×{source.height} → {picture.width}×{picture.height} pixels"
        timings = result.timings | {"total": sum(result.timings.values())}
        return {
            "name": "picture" if source.path is None else source.path.name,
            "sizes": sizes + (f", saved as {result.output}" if result.output else ""),
            "notes": result.notes,
            "view": self._view(source, picture),
            "references": [_reference(reference, result) for reference in result.references],
            "settings": dict(result.settings),
            "timings": {stage: f"{seconds:.2f} s" for stage, seconds in timings.items()},
        }

    def _view(self, source: Picture, picture: Picture) -> dict[str, Any] | None:
        """Both pictures for the slider; None when the page is full."""
        if self._room < LEAST_PIXELS:
            return None
        after, width, height = _embed(picture, self._limit, LOSSLESS_PIXELS)
        before, before_width, before_height = _embed(source, self._limit, LOSSLESS_PIXELS)
        self._room -= width * height + before_width * before_height
        share = None if (width, height) == (picture.width, picture.height) else width / picture.width
        shown = {"before": before, "after": after, "width": width, "height": height}
        return shown | {"alpha": picture.alpha is not None, "share": share}


def _reference(reference: Reference, result: Result) -> dict[str, Any]:
    guided = reference.accepted and result.settings.get("strength", 1.0) > 0
    used = guided and result.settings.get("generator", {}).get("uses_reference", True)
    thumbnail = fault = None
    try:
        thumbnail, _, _ = _embed(read_picture(reference.path), THUMBNAIL**2, lossless_to=0)
    except RasrError as error:
        fault = str(error)
    return {"about": reference, "used": used, "thumbnail": thumbnail, "fault": fault}


def _embed(picture: Picture, limit: int, lossless_to: int) -> tuple[str, int, int]:
    """The picture as a data: address, reduced to at most ``limit`` pixels, with its width and height there."""
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
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}", width, height


def _to_8bit(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.rint(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)
    return levels
