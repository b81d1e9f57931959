"""Routes of jobs and batches."""

import io
import re
import zipfile
from asyncio import gather, wrap_future
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Header, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from rasr.generator import PRESETS
from rasr.images.picture import Metadata
from rasr.service.config import METADATA, MOST_REFERENCES
from rasr.service.core import Order, Service
from rasr.service.jobs import Job
from rasr.service.models import BatchOut, EvidenceOut, JobList, JobOut, pictures
from rasr.service.refusal import Refused, faults
from rasr.service.uploads import staging, store

BATCH = r"^[A-Za-z0-9_-]{1,64}$"
PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The picture"}}
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)
"""The report is one file with its script in it, which must not speak to the service."""
EVENT = {"type": "object", "properties": {name: {"type": "string"} for name in ("event", "id", "data")}}
"""One server-sent event."""
FIELDS = {
    "file", "reference", "gallery", "photo", "references", "batch", "scale", "preset", "strength", "detail",
    "reduce", "seed", "k", "format", "metadata",
}  # fmt: skip


def job_routes(service: Service) -> APIRouter:  # noqa: PLR0915  (a route is a function in it)
    """The routes, bound to a service."""
    router = APIRouter(tags=["jobs"])

    @router.post(
        "/jobs",
        status_code=202,
        response_model=JobOut,
        responses=faults(404, 409, 413, 415, 422, 429, 503),
        openapi_extra=pictures("file", "reference"),
    )
    async def submit(
        request: Request,
        file: Annotated[UploadFile, File(description="The picture to restore")],
        reference: Annotated[list[UploadFile], File(max_length=MOST_REFERENCES)] = [],  # noqa: B006  (FastAPI copies it)
        gallery: Annotated[str, Form(max_length=200, examples=["Family"])] = "",
        photo: Annotated[list[str], Form(max_length=MOST_REFERENCES)] = [],  # noqa: B006
        references: Annotated[Literal["auto", "none"], Form()] = "auto",
        batch: Annotated[str | None, Form(pattern=BATCH)] = None,
        scale: Annotated[float, Form(gt=0, le=64, allow_inf_nan=False)] = 4.0,
        preset: Annotated[str, Form(json_schema_extra={"enum": list(PRESETS)})] = service.config.preset,
        strength: Annotated[float, Form(ge=0, le=1)] = 1.0,
        detail: Annotated[float, Form(ge=0, le=1)] = 0.5,
        reduce: Annotated[bool, Form()] = True,
        seed: Annotated[int, Form(ge=0, lt=2**63)] = 0,
        k: Annotated[int, Form(ge=1, le=MOST_REFERENCES)] = 1,
        format: Annotated[Literal["png", "jpg", "webp", "tiff"] | None, Form()] = None,
        metadata: Annotated[Metadata, Form()] = METADATA,
        idempotency_key: Annotated[str, Header(max_length=200)] = "",
    ) -> Response:
        """Restore a picture: it waits in the queue, and the answer says where to look."""
        form = await request.form()
        if unknown := sorted(set(form) - FIELDS):
            raise Refused(422, "invalid", f"Unknown field '{unknown[0][:40]}'. Known are: {', '.join(sorted(FIELDS))}.")
        for name in FIELDS - {"reference", "photo"}:
            if len(form.getlist(name)) > 1:
                raise Refused(422, "invalid", f"The field '{name}' was sent more than once. Send one picture a job.")
            if name != "gallery" and form.get(name) == "":  # the framework would take it for the default
                raise Refused(422, "invalid", f"The field '{name}' is empty. Leave it out.")
        if preset not in PRESETS:
            raise Refused(422, "invalid", f"Unknown preset. Choose one of: {', '.join(PRESETS)}.")
        order = Order(
            scale=scale, preset=preset, strength=strength, detail=detail, reduce=reduce, seed=seed, k=k,
            format=format, metadata=metadata, gallery=gallery, photos=tuple(photo), references=references,
            batch=batch, key=idempotency_key or None,
        )  # fmt: skip
        with staging(service.data / "tmp") as folder:
            picture = await run_in_threadpool(store, file.file, file.filename, folder / "input")
            others = [
                await run_in_threadpool(store, one.file, one.filename, folder / "references" / str(number))
                for number, one in enumerate(reference)
            ]
            waiting = [service.decoders.submit(one.path, one.name) for one in (picture, *others)]
            facts = await gather(*map(wrap_future, waiting), return_exceptions=True)
            first = facts[0]
            for one in facts:
                if isinstance(one, BaseException):
                    raise one
            assert not isinstance(first, BaseException)  # noqa: S101  (narrowing: it would have been raised)
            job = await run_in_threadpool(service.accept, order, folder, picture, first, others)
        shown = await run_in_threadpool(_shown, service, job)
        return JSONResponse(shown, 202, {"Location": f"/jobs/{job.id}"})

    @router.get("/jobs", response_model=JobList, responses=faults(422))
    def jobs(
        batch: Annotated[str | None, Query(pattern=BATCH)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Any:
        """List jobs, newest first; ``before`` is the ``next`` of the list before."""
        number = None if before is None else int(before) if re.fullmatch(r"[0-9]{1,15}", before) else 0
        found = service.jobs.newest(batch=batch, limit=limit + 1, before=number)
        following = str(found[limit - 1].number) if len(found) > limit else None
        return {"jobs": [_shown(service, job) for job in found[:limit]], "next": following}

    @router.get("/jobs/{job}", response_model=JobOut, responses=faults(404))
    def get(job: str) -> Any:
        """Look at a job."""
        return _shown(service, service.get(job))

    @router.delete("/jobs/{job}", status_code=204, responses=faults(403, 404))
    def delete(job: str) -> None:
        """Cancel a job that waits or runs; remove one that has ended, with its files."""
        service.delete(job)

    @router.get(
        "/jobs/{job}/events",
        responses={200: {"content": {"text/event-stream": {"schema": EVENT}}}, **faults(404)},
        response_class=StreamingResponse,
    )
    async def events(job: str, last_event_id: Annotated[str | None, Header(max_length=40)] = None) -> Response:
        """Follow a job as server-sent events until it ends: ``event: job``, with the job as data."""
        await run_in_threadpool(service.get, job)
        seen = int(last_event_id) if last_event_id and re.fullmatch(r"[0-9]{1,18}", last_event_id) else None
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        stream = service.feed.follow(job, lambda: service.look(job), seen)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @router.get("/jobs/{job}/input", responses={**PNG, **faults(404, 413, 422)}, response_class=FileResponse)
    async def input_(job: str) -> Response:
        """See the picture that was sent, upright, as PNG of its own size."""
        found = await run_in_threadpool(service.get, job)
        path = service.folder(found) / found.request["input"]
        return _file(*await service.shown(path, found.name, "png", f"job-{job}-input"))

    @router.get(
        "/jobs/{job}/result",
        responses={200: {"content": {"application/octet-stream": {}, "image/*": {}}}, **faults(404, 409)},
        response_class=FileResponse,
    )
    def result(job: str) -> Response:
        """Download the result, byte for byte as ``rasr restore`` writes it."""
        found = service.finished(job)
        shown = service.show(found)["result"]
        return FileResponse(
            service.folder(found) / found.request["output"], media_type=shown["type"],
            headers={"Content-Disposition": f"attachment; filename*=UTF-8''{quote(shown['name'], safe='')}"},
        )  # fmt: skip

    @router.get("/jobs/{job}/view", responses={**PNG, **faults(404, 409)}, response_class=FileResponse)
    def view(job: str) -> Response:
        """See the result as PNG: sRGB, 8 bits."""
        return _file(service.folder(service.finished(job)) / "view.png", "image/png")

    @router.get("/jobs/{job}/evidence.png", responses={**PNG, **faults(404, 409)}, response_class=FileResponse)
    def evidence_picture(job: str) -> Response:
        """See which photo gave detail where: its colour, as opaque as its share; clear where it is drawn."""
        return _file(service.folder(service.finished(job)) / "evidence.png", "image/png")

    @router.get("/jobs/{job}/evidence", response_model=EvidenceOut, responses=faults(404, 409))
    def evidence(job: str) -> Response:
        """Look up where cells of the result lie in the photos."""
        return _file(service.folder(service.finished(job)) / "evidence.json", "application/json")

    @router.get(
        "/jobs/{job}/references/{index}",
        responses={200: {"content": {"image/jpeg": {}, "image/png": {}}}, **faults(404, 409, 413, 415, 422)},
        response_class=FileResponse,
    )
    async def reference_picture(job: str, index: int) -> Response:
        """See a photo that was considered, upright."""
        found = await run_in_threadpool(service.finished, job)
        path, name = service.reference_path(found, index)
        return _file(*await service.shown(path, name, "photo", f"job-{job}-reference-{index}"))

    @router.get(
        "/jobs/{job}/report",
        responses={200: {"content": {"text/html": {}}}, **faults(404, 409, 503)},
        response_class=FileResponse,
    )
    async def report(job: str) -> Response:
        """See the page that ``rasr restore --report`` writes."""
        found = await run_in_threadpool(service.finished, job)
        page = service.folder(found) / "report.html"
        if not page.is_file():
            said = service.prepare(found)
            facts = {name: said[name] for name in ("folder", "input", "output")}
            await wrap_future(service.dispatcher.ask("report", outcome=found.outcome, **facts))
        return FileResponse(page, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    @router.get("/batches/{batch}", response_model=BatchOut, responses=faults(404))
    def batch_(batch: str) -> Any:
        """Count what became of a batch."""
        return {"batch": batch, **_counted(service, batch)}

    @router.get(
        "/batches/{batch}/zip",
        responses={200: {"content": {"application/zip": {}}}, **faults(404)},
        response_class=StreamingResponse,
    )
    def zip_(batch: str) -> Response:
        """Download the finished results of a batch, as they stream into one archive."""
        _counted(service, batch)
        done = [job for job in service.jobs.newest(batch=batch, limit=10**6) if job.state == "done"]
        named = f"attachment; filename*=UTF-8''{quote(batch, safe='')}.zip"
        return StreamingResponse(
            _zipped([(service.folder(job) / job.request["output"]) for job in reversed(done)]),
            media_type="application/zip", headers={"Content-Disposition": named},
        )  # fmt: skip

    return router


def _shown(service: Service, job: Job) -> dict[str, Any]:
    shown = service.show(job)
    del shown["revision"]
    return shown


def _file(path: Path, kind: str) -> Response:
    if not path.is_file():
        raise Refused(404, "gone", "This file is not there any more.")
    return FileResponse(path, media_type=kind)


def _counted(service: Service, batch: str) -> dict[str, int]:
    counts = service.jobs.counts(batch)
    total = sum(counts.values())
    if not total:
        raise Refused(404, "no_batch", "There is no such batch, or its jobs were removed.")
    return {"total": total, **counts}


class _Stream(io.RawIOBase):
    """Takes what an archive writes, and gives it on in pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.pieces.append(bytes(piece))
        return len(piece)

    def take(self) -> bytes:
        pieces, self.pieces = self.pieces, []
        return b"".join(pieces)


def _zipped(files: list[Path]) -> Iterator[bytes]:
    """An archive of files, each under a name of its own; pictures do not get smaller, so they are only stored."""
    stream, taken = _Stream(), set[str]()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            name, number = path.name, 2
            while name.casefold() in taken:
                name, number = f"{path.stem} ({number}){path.suffix}", number + 1
            taken.add(name.casefold())
            try:
                file = path.open("rb")
            except OSError:  # removed meanwhile
                continue
            with file, archive.open(name, "w", force_zip64=True) as entry:
                while block := file.read(1 << 20):
                    entry.write(block)
                    yield stream.take()
    yield stream.take()
