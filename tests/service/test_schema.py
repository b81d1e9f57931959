"""The OpenAPI description holds: nothing that is sent gives a fault, or an answer that is not described."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.conftest import Served, picture

HOOKS = """
import io, random
import schemathesis
from hypothesis import strategies as st
from PIL import Image

def picture(seed):
    stream = io.BytesIO()
    Image.frombytes("RGB", (8, 8), random.Random(seed).randbytes(192)).save(stream, "PNG")
    return stream.getvalue()

PICTURES = [picture(seed) for seed in range(8)]
schemathesis.openapi.media_type("image/png", st.sampled_from(PICTURES))

KNOWN = {known!r}
SPARE = {spare!r}

@schemathesis.hook
def before_generate_path_parameters(context, strategy):
    spare = SPARE.get(context.operation.path) if context.operation.method == "delete" else None

    def known(drawn):
        parameters, wanted = drawn
        if not (wanted and isinstance(parameters, dict)):  # what is made to be wrong is no dict yet, and stays so
            return parameters
        if context.operation.method == "delete":  # what is there to be removed, one by one
            return {{**parameters, **spare.pop()}} if spare else parameters
        return {{name: KNOWN.get(name, value) for name, value in parameters.items()}}

    return st.tuples(strategy, st.booleans()).map(known)

@schemathesis.hook
def before_generate_body(context, strategy):
    def known(drawn):
        body, family = drawn
        fields = getattr(body, "body", None)  # of a valid form with a picture; an invalid one is not touched
        if family and isinstance(fields, dict) and (context.operation.path == "/search" or "gallery" in fields):
            fields["gallery"] = "Family"
        return body

    return st.tuples(strategy, st.booleans()).map(known)
"""

CONFIG = """
[checks.positive_data_acceptance]
# What is no description's affair: whether there is such a job, and whether it is done.
expected-statuses = ["2xx", 404, 409]

[[operations]]
include-path-regex = "^/(jobs|search|galleries/.*/photos)$"
include-method = "POST"
# Whether bytes are a picture, and fields suit one another, cannot be described either.
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 403, 404, 409, 413, 415, 422]

[[operations]]
include-path = "/galleries"
include-method = "POST"
# Which names can be folders.
checks.positive_data_acceptance.expected-statuses = ["2xx", 409, 422]

[[operations]]
include-path = "/galleries/{name}/known"
# Which texts are SHA-256 digests is said by a pattern; a gallery is there or not.
checks.positive_data_acceptance.expected-statuses = ["2xx", 404]
"""
SPARES = 30


def answered(served: Served) -> Counter[tuple[str, str]]:
    """Operation and status → number of answers so far, as the service counts them."""
    counted: Counter[tuple[str, str]] = Counter()
    for line in served.client.get("/metrics").text.splitlines():
        if line.startswith("rasr_requests_total{"):
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line))
            counted[f"{labels['method']} {labels['route']}", labels["status"]] += int(float(line.rpartition(" ")[2]))
    return counted


@pytest.mark.large
@pytest.mark.timeout(3600)
def test_schemathesis_finds_nothing(start: Callable[..., Served], tmp_path: Path) -> None:
    served = start("--queue", 1000)
    client = served.client
    spare: dict[str, list[dict[str, str]]] = {"/jobs/{job}": [], "/galleries/{name}": []}
    for number in range(SPARES):
        client.post("/galleries", json={"name": f"Spare {number}"}).raise_for_status()
        spare["/galleries/{name}"].append({"name": f"Spare {number}"})
        job = served.submit(picture(8, 8, seed=number), scale="1").raise_for_status().json()["id"]
        spare["/jobs/{job}"].append({"job": job})
    client.post("/galleries", json={"name": "Family"}).raise_for_status()
    photos = [
        client.post("/galleries/Family/photos", files={"file": ("a.png", picture(64, 64, seed=number))}).json()["id"]
        for number in range(6)
    ]
    spare["/galleries/{name}/photos/{photo}"] = [{"name": "Family", "photo": one} for one in photos[1:]]
    job = served.submit(picture(), batch="known", gallery="Family", photo=photos[0]).json()["id"]
    assert served.ended(job)["references"]
    known = {"name": "Family", "photo": photos[0], "job": job, "batch": "known", "index": 0}
    (tmp_path / "hooks.py").write_text(HOOKS.format(known=known, spare=spare))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    before = answered(served)
    for which in ("--exclude-method", "--include-method"):  # what would be deleted is needed by the others
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "schemathesis"), "run", f"{served.url}/openapi.json",
                "--url", served.url, "--phases", "examples,coverage,fuzzing", "--max-examples", "150",
                "--request-timeout", "60", "--suppress-health-check", "all", "--continue-on-failure", which, "DELETE",
            ],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=3000,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        (tmp_path / f"said{which}.txt").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout[-20000:]
    counted = answered(served) - before
    assert {one: number for one, number in counted.items() if one[1][0] == "5"} == {}
    assert counted.total() >= 2000
    described = client.get("/openapi.json").json()["paths"]
    operations = {f"{verb.upper()} {path}" for path, verbs in described.items() for verb in verbs}
    assert operations - {one for one, status in counted if status[0] == "2"} == set()
    assert served.stop() == 0
