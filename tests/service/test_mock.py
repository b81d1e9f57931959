"""The stand-in of the page's tests answers as the service does: each answer fits the model that the service fills."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from rasr.service.models import (
    About,
    BatchOut,
    ErrorBody,
    EvidenceOut,
    Found,
    GalleryDetails,
    GalleryList,
    GalleryOut,
    JobList,
    JobOut,
    PhotoList,
    PhotoOut,
    Unknown,
)
from tests.service.mock import SIZE, Mock, encode, marked

LEFT_OUT = {"settings", "links", "notes"}
"""Of a job: what its settings are named, which links the page does not follow, and notes, which it does not show."""


def fits(model: type[BaseModel], told: Any) -> Any:
    """Check that an answer has the fields of a model, at every depth, and no other."""
    read = model.model_validate_json(json.dumps(told), strict=True)

    def compare(ours: Any, theirs: Any, where: str) -> None:
        if isinstance(ours, dict) and where.rpartition(".")[2] not in LEFT_OUT:
            assert set(theirs) - LEFT_OUT == set(ours) - LEFT_OUT, where
            for name in set(ours) - LEFT_OUT:
                compare(ours[name], theirs[name], f"{where}.{name}")
        elif isinstance(ours, list):
            for one, other in zip(ours, theirs, strict=True):
                compare(one, other, where)

    compare(read.model_dump(mode="json"), told, model.__name__)
    return told


def test_the_stand_in_answers_as_the_service() -> None:
    with Mock() as mock, httpx2.Client(base_url=mock.address.rstrip("/"), timeout=30) as client:
        content = encode(marked(*SIZE, 1))

        def submit(name: str, **fields: Any) -> Any:
            sent = client.post("/jobs", files={"file": (name, content)}, data={"batch": "b", **fields})
            assert sent.status_code == 202
            job = fits(JobOut, sent.json())
            for _ in range(400):
                told = client.get(f"/jobs/{job['id']}").json()
                fits(JobOut, told)
                if told["state"] not in {"queued", "running"}:
                    return told
                time.sleep(0.02)
            raise AssertionError(told)

        done = submit("harbour.png", gallery="harbour", photo="p1")
        assert done["state"] == "done"
        assert submit("fails.png", references="none")["state"] == "failed"
        get: Callable[[str], Any] = lambda path: client.get(path).json()  # noqa: E731
        fits(JobList, get("/jobs"))
        fits(BatchOut, get("/batches/b"))
        fits(EvidenceOut, get(f"/jobs/{done['id']}/evidence"))
        fits(About, get("/about"))
        fits(GalleryList, get("/galleries"))
        fits(GalleryDetails, get("/galleries/harbour"))
        fits(PhotoList, get("/galleries/harbour/photos"))
        found = client.post("/search", files={"file": ("q.png", content)}, data={"gallery": "harbour"}).json()
        assert {one["verdict"] for one in fits(Found, found)["results"]} == {"not compared"}
        fits(GalleryOut, client.post("/galleries", json={"name": "new"}).json())
        fits(Unknown, client.post("/galleries/new/known", json={"hashes": ["0" * 64]}).json())
        fits(PhotoOut, client.post("/galleries/new/photos", files={"file": ("a.png", content)}).json())
        refused = client.post("/jobs", files={"file": ("broken.png", content)})
        assert refused.status_code == 422
        fits(ErrorBody, refused.json())


def test_an_answer_that_does_not_fit_is_seen() -> None:
    batch = {"batch": "b", "total": 1, "queued": 0, "running": 0, "done": 1, "failed": 0, "cancelled": 0}
    fits(BatchOut, batch)
    for wrong in (batch | {"more": 1}, batch | {"total": "1"}, {name: batch[name] for name in list(batch)[1:]}):
        with pytest.raises((AssertionError, ValueError)):
            fits(BatchOut, wrong)
