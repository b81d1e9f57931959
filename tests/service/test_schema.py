"""The OpenAPI description holds: nothing that is sent gives a fault, or an answer that is not described."""

from __future__ import annotations

import os
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

@schemathesis.hook
def map_path_parameters(context, path_parameters):
    for name, value in (path_parameters or {{}}).items():
        if name in KNOWN and random.random() < 0.5:
            path_parameters[name] = KNOWN[name]
    return path_parameters

@schemathesis.hook
def before_call(context, case, kwargs):
    mode = getattr(getattr(case.meta, "generation", None), "mode", None)
    if getattr(mode, "is_positive", False) and isinstance(case.body, dict) and "file" in case.body:
        fields = {{"file": random.choice(PICTURES)}}
        if "gallery" in str(case.path) or "search" in str(case.path):
            fields["gallery"] = "Known"
        if case.path == "/galleries/{{name}}/photos":
            fields.pop("gallery", None)
        case.body = fields
"""


@pytest.mark.large
@pytest.mark.timeout(3600)
def test_schemathesis_finds_nothing(start: Callable[..., Served], tmp_path: Path) -> None:
    served = start("--queue", 1000)
    served.client.post("/galleries", json={"name": "Known"})
    photo = served.client.post("/galleries/Known/photos", files={"file": ("a.png", picture(64, 64))}).json()["id"]
    job = served.ended(served.submit(picture(), batch="known", gallery="Known", preset="bicubic").json()["id"])["id"]
    known = {"name": "Known", "photo": photo, "job": job, "batch": "known", "index": 0}
    (tmp_path / "hooks.py").write_text(HOOKS.format(known=known))
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"), "run", f"{served.url}/openapi.json", "--url", served.url,
            "--phases", "examples,coverage,fuzzing", "--max-examples", "150", "--request-timeout", "60",
            "--exclude-path-regex", "^/(jobs/[^/]+|galleries/[^/]+(/photos/[^/]+)?)$", "--suppress-health-check", "all",
            "--continue-on-failure", "--exclude-checks", "unsupported_method,positive_data_acceptance",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=3000,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    counted: Counter[str] = Counter()
    good: Counter[str] = Counter()
    for line in served.client.get("/metrics").text.splitlines():
        if line.startswith("rasr_requests_total{"):
            labels = dict(part.split("=") for part in line[line.index("{") + 1 : line.index("}")].split(","))
            count, status = int(float(line.rpartition(" ")[2])), labels["status"].strip('"')
            counted[status[0]] += count
            if status[0] == "2":
                good[f"{labels['method']} {labels['route']}".replace('"', "")] += count
    assert counted["5"] == 0
    assert sum(counted.values()) >= 2000
    assert done.returncode == 0, done.stdout[-6000:]
    described = served.client.get("/openapi.json").json()["paths"]
    operations = {f"{verb.upper()} {path}" for path, verbs in described.items() for verb in verbs}
    lacking = {one for one in operations if one not in good and not one.startswith("DELETE")}
    assert not lacking
    assert served.stop() == 0
