"""Refusals: the one form in which the service says no."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

from rasr.errors import (
    EncoderMismatch,
    GalleryBusy,
    GalleryNotFound,
    OutOfMemory,
    PictureError,
    PictureTooLarge,
    RasrError,
    UnsupportedFormat,
    UsageError,
    WeightsError,
    shown,
)
from rasr.service.models import ErrorBody

STATUSES: tuple[tuple[type[RasrError], int, str], ...] = (
    (PictureTooLarge, 413, "too_large"),
    (UnsupportedFormat, 415, "unsupported"),
    (PictureError, 422, "unreadable"),
    (UsageError, 422, "invalid"),
    (GalleryNotFound, 404, "no_gallery"),
    (GalleryBusy, 503, "busy"),
    (EncoderMismatch, 409, "encoder"),
    (WeightsError, 503, "weights"),
    (OutOfMemory, 422, "too_large"),
)
"""Errors of the package → status and word; what is not listed is 500's affair only where it is a fault of ours."""


def faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The description of answers with these statuses, and of those that any request may get."""
    every = sorted({400, 401, 403, 413, 421, 422, *statuses})
    return {status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in every}


class Refused(Exception):
    """A request that is not done, and why."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    @classmethod
    def of(cls, error: RasrError) -> "Refused":
        """The refusal that an error of the package is for a client."""
        for kind, status, code in STATUSES:
            if isinstance(error, kind):
                return cls(status, code, shown(error))
        return cls(409, "failed", shown(error))

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that go with it."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def body(self) -> dict[str, Any]:
        """The JSON that is answered."""
        return {"error": {"code": self.code, "message": self.message}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), self.status, dict(self.headers))
