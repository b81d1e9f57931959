"""The application: pages, health and what the service can do; every error in one form."""

import logging
from asyncio import get_running_loop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from rasr.errors import RasrError, shown
from rasr.generator import PRESETS
from rasr.images.picture import Metadata
from rasr.options import options_of
from rasr.restoration.settings import SaveOptions, Settings
from rasr.service.config import FORMATS, METADATA, MOST_REFERENCES
from rasr.service.core import Service
from rasr.service.gallery_routes import gallery_routes
from rasr.service.guard import Guard
from rasr.service.job_routes import job_routes
from rasr.service.models import About, Health
from rasr.service.refusal import Refused, faults
from rasr.service.view import version
from rasr.weights import find, serving

PAGE = Path(str(files("rasr.service"))) / "page"
NO_PAGE = "The page is not part of this installation; the service answers programs. See /openapi.json."
CODES = {400: "invalid", 404: "not_found", 405: "method", 413: "too_large", 422: "invalid"}
_log = logging.getLogger("rasr.service")


def create_app(service: Service) -> Guard:
    """The whole application, behind its guard."""

    @asynccontextmanager
    async def living(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.start, get_running_loop())
        try:
            yield
        finally:
            await run_in_threadpool(service.stop)

    config = service.config
    app = FastAPI(
        title="RASR", version=version(), lifespan=living, docs_url=None, redoc_url=None, openapi_url=None,
        description="Restores photos with your own photos as evidence.",
        max_body_size=config.max_bytes,
        form_limits={"max_fields": 64, "max_files": MOST_REFERENCES + 2, "max_part_size": 64 * 1024},
    )  # fmt: skip
    _errors(app)
    _pages(app, service)
    app.include_router(job_routes(service))
    app.include_router(gallery_routes(service))
    app.mount("/static", StaticFiles(directory=PAGE, check_dir=False), name="static")
    return Guard(app, config, service.metrics, service.admit)


def _pages(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> Response:
        index = PAGE / "index.html"
        return FileResponse(index, media_type="text/html") if index.is_file() else PlainTextResponse(NO_PAGE)

    @app.get("/openapi.json", include_in_schema=False)
    def description() -> Response:
        return JSONResponse(app.openapi())

    @app.get("/about", response_model=About, responses=faults())
    def about() -> Any:
        """Ask what this service is, accepts and can do."""
        config = service.config
        limits = {"max_bytes": config.max_bytes, "max_pixels": config.max_pixels, "queue": config.queue}
        presets = [{"name": name, "summary": one.summary, **_available(name)} for name, one in PRESETS.items()]
        return {
            "version": version(), "presets": presets, "default_preset": config.preset, "limits": limits,
            "settings": _settings(config.preset), "auth": bool(config.token), "ready": service.dispatcher.ready,
        }  # fmt: skip

    @app.get("/health/live", response_model=Health, responses=faults())
    async def live() -> Any:
        """Ask whether the service answers."""
        return {"status": "ok"}

    @app.get("/health/ready", response_model=Health, responses=faults(503))
    def ready() -> Any:
        """Ask whether a picture could be restored now."""
        service.check_ready()
        return {"status": "ok"}

    @app.get(
        "/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **faults()},
        response_class=PlainTextResponse,
    )  # fmt: skip
    def metrics() -> Response:
        """Read the metrics, as Prometheus does."""
        service.measure()
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _available(preset: str) -> dict[str, Any]:
    missing = [weights.name for weights in serving(preset) if find(weights.name) is None]
    why = f"Its weights are not on this machine: rasr models download {missing[0]}" if missing else ""
    return {"available": not missing, "why": why}


def _settings(preset: str) -> list[dict[str, Any]]:
    """What can be sent with a job, from where each option is declared."""
    told = {**options_of(Settings), **options_of(type(Settings().size)), **options_of(SaveOptions)}
    number = {"choices": None, "minimum": None, "maximum": None}
    facts: dict[str, dict[str, Any]] = {
        "scale": {"type": "number", "default": 4.0, **number, "minimum": 0.0, "maximum": 64.0},
        "preset": {"type": "choice", "default": preset, **number, "choices": list(PRESETS)},
        "strength": {"type": "number", "default": 1.0, **number, "minimum": 0.0, "maximum": 1.0},
        "detail": {"type": "number", "default": 0.5, **number, "minimum": 0.0, "maximum": 1.0},
        "reduce": {"type": "boolean", "default": True, **number},
        "seed": {"type": "integer", "default": 0, **number, "minimum": 0},
        "k": {"type": "integer", "default": 1, **number, "minimum": 1, "maximum": MOST_REFERENCES},
        "format": {"type": "choice", "default": None, **number, "choices": list(FORMATS)},
        "metadata": {"type": "choice", "default": METADATA, **number, "choices": list(get_args(Metadata))},
    }
    words = {"preset": "How it is restored: see the presets."}
    return [{"name": name, "help": words.get(name) or told[name].help, **fact} for name, fact in facts.items()]


def _errors(app: FastAPI) -> None:
    """Every error in one form, whoever found it."""

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(RasrError)
    async def of_rasr(_request: Request, error: RasrError) -> Response:
        return Refused.of(error).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in {"body", "query", "header", "path"})
        return Refused(422, "invalid", shown(f"{where or 'The request'}: {first['msg']}.")[:500]).response()

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "refused")
        refusal = Refused(error.status_code, code, shown(f"{error.detail}.".replace("..", "."))[:500])
        headers = {**refusal.headers, **(error.headers or {})}
        if error.status_code == 405:  # a path may have several routes, and the framework names the first one's methods
            path = getattr(request.scope.get("route"), "path", None)
            if verbs := app.openapi()["paths"].get(path):
                headers["Allow"] = ", ".join(sorted(verb.upper() for verb in verbs))
        return JSONResponse(refusal.body(), refusal.status, headers)

    @app.exception_handler(Exception)
    async def fault(_request: Request, _error: Exception) -> Response:
        return Refused(500, "fault", "An unexpected fault of the service: its log says more.").response()
