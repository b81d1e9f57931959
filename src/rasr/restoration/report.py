"""One self-contained page to look at results: slider, zoom, references, settings and timings."""

import base64
import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
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
        self._articles: list[str] = []
        self._names: list[str] = []
        self._failed = 0

    def add(self, finished: Result | Outcome) -> None:
        """Add a result, or what became of a picture in a batch."""
        result = finished if isinstance(finished, Result) else finished.result
        if result is not None:
            name = "picture" if result.source.path is None else result.source.path.name
            self._append(name, self._article(result))
        elif isinstance(finished, Outcome):
            self._failed += finished.error is not None
            message = _text(finished.error or "Finished in an earlier run; restore it again to see it here.")
            kind = "bad" if finished.error else "soft"
            self._append(finished.job.input.name, f'<p class="{kind}">{message}</p>')

    def write(self) -> Path:
        """Write the page. Raises OutputExists and OutputError."""
        count = len(self._names)
        title = f"Restored: {self._names[0]}" if count == 1 else f"{count} pictures restored"
        made = datetime.now(UTC).astimezone().strftime("%Y-%m-%d %H:%M %Z")
        failed = f" {self._failed} of {count} failed." if self._failed else ""
        contents = "".join(f'<li><a href="#p{i}">{_text(name)}</a></li>' for i, name in enumerate(self._names))
        nav = f'<nav aria-label="Pictures"><ol>{contents}</ol></nav>' if count > 1 else ""
        template = files("rasr.restoration").joinpath("report.html").read_text(encoding="utf-8")
        page = (
            template.replace("{{title}}", _text(title))
            .replace("{{summary}}", _text(f"Made with RASR, {made}.{failed}"))
            .replace("{{pictures}}", nav + "\n".join(self._articles))
        )
        return write_bytes(page.encode("utf-8", "replace"), self._path, overwrite=self._overwrite)

    def _append(self, name: str, body: str) -> None:
        number = len(self._names)
        self._articles.append(f'<article id="p{number}"><h2>{_text(name)}</h2>{body}</article>')
        self._names.append(name)

    def _article(self, result: Result) -> str:
        source, picture = result.source, result.picture
        sizes = f"{source.width}×{source.height} → {picture.width}×{picture.height} pixels"
        saved = f", saved as {result.output}" if result.output else ""
        parts = [f'<p class="soft">{_text(sizes + saved)}</p>']
        parts += [f"<p>{_text(note)}</p>" for note in result.notes]
        parts.append(self._viewer(source, picture))
        if result.references:
            items = "".join(_reference(reference, result) for reference in result.references)
            parts.append(f'<h3>References</h3><ul class="references">{items}</ul>')
        else:
            parts.append('<h3>References</h3><p class="soft">None was looked for, or none was found.</p>')
        parts.append("<h3>Settings and timings</h3>")
        total = sum(result.timings.values())
        timings = {stage: f"{seconds:.2f} s" for stage, seconds in result.timings.items()} | {"total": f"{total:.2f} s"}
        parts += [_details("Settings", result.settings), _details("Timings", timings)]
        return "".join(parts)

    def _viewer(self, source: Picture, picture: Picture) -> str:
        if self._room < LEAST_PIXELS:
            return '<p class="soft">Not shown: this page holds too many pictures. Open the file itself.</p>'
        after, width, height = _embed(picture, self._limit, LOSSLESS_PIXELS)
        before, before_width, before_height = _embed(source, self._limit, LOSSLESS_PIXELS)
        self._room -= width * height + before_width * before_height
        scaled = ""
        if (width, height) != (picture.width, picture.height):
            share = 100 * width / picture.width
            scaled = (
                f'<p class="soft">Shown at {share:.0f} % of its size to keep this page small; the file is whole.</p>'
            )
        return (
            f'<div class="viewer{" alpha" if picture.alpha is not None else ""}" style="--shape: {width} / {height}" '
            f'tabindex="0" role="group" data-width="{width}" data-height="{height}" '
            'aria-label="Input and result; keys: plus and minus zoom, 0 fits, 1 shows real pixels, arrows move, '
            'square brackets move the divider">'
            f'<img src="{after}" alt="Result" draggable="false"><img src="{before}" alt="Input" draggable="false">'
            '<div class="divider"></div><span class="label before">Input</span><span class="label after">Result</span>'
            '</div><div class="controls"><label>Input <input type="range" min="0" max="100" step="0.1" value="50" '
            'aria-label="Divider between input and result"> Result</label>'
            '<button type="button" data-do="out" aria-label="Zoom out">−</button>'
            '<button type="button" data-do="in" aria-label="Zoom in">+</button>'
            '<button type="button" data-do="fit">Fit</button><button type="button" data-do="real">1:1</button>'
            f'<output class="zoom soft"></output></div>{scaled}'
        )


def _reference(reference: Reference, result: Result) -> str:
    guided = reference.accepted and result.settings.get("strength", 1.0) > 0
    used = guided and result.settings.get("generator", {}).get("uses_reference", True)
    try:
        thumbnail, _, _ = _embed(read_picture(reference.path), THUMBNAIL**2, lossless_to=0)
        image = f'<button type="button"><img src="{thumbnail}" alt="{_text(reference.path)}"></button>'
    except RasrError as error:
        image = f'<p class="bad">{_text(error)}</p>'
    verdict = "Used." if used else "Would do, but was not used." if reference.accepted else ""
    category = f'<br><span class="soft">{_text(reference.category)}</span>' if reference.category else ""
    return (
        f'<li class="{"used" if used else ""}">{image}<strong>{reference.rank}. {_text(reference.path.name)}</strong>'
        f"{category}<br>score {reference.score:.3f}<br>"
        f'<span class="{"good" if used else "soft"}">{verdict}</span> {_text(reference.why)}</li>'
    )


def _details(title: str, facts: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{_text(name)}</th><td>{_value(value)}</td></tr>" for name, value in facts.items()
    )
    return f"<details><summary>{_text(title)}</summary><table>{rows}</table></details>"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "<br>".join(f"{_text(name)}: {_text(inner)}" for name, inner in value.items())
    return _text("none" if value is None else value)


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


def _text(value: object) -> str:
    return escape(str(value), quote=True)
