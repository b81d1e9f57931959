"""Same scene over HTTP, with the default preset: result, verdicts, shares and evidence are the command line's."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import skimage
from numpy.typing import NDArray
from PIL import Image

from rasr.restoration.evidence import STRONGEST
from rasr.restoration.result import EVIDENCE
from tests.service.conftest import Served

SAMPLES = Path(skimage.__file__).parent / "data"
PHOTOS = ("motorcycle_right.png", "chelsea.png", "coffee.png", "brick.png")
"""The right view of scikit-image's stereo pair, and photos of other things."""
pytestmark = [pytest.mark.large, pytest.mark.timeout(1800)]


def drawn(result: NDArray[np.uint8], overlay: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The evidence map as the command line draws it, from a result and its overlay."""
    share = np.rint(overlay[..., 3:].astype(np.float32) * STRONGEST) / 255
    gray = result.mean(axis=2, keepdims=True)
    mapped: NDArray[np.float32] = np.rint(gray * (1 - share) + overlay[..., :3] * share)
    return mapped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in PHOTOS:
        shutil.copy(SAMPLES / name, tmp_path / "photos" / name)
    with Image.open(SAMPLES / "motorcycle_left.png") as image:
        image.convert("RGB").resize((185, 125)).save(tmp_path / "blurry.jpg", quality=60)
    return tmp_path


def test_evidence_over_http_is_the_command_lines(
    folder: Path, start: Callable[..., Served], run_rasr: Callable[..., CompletedProcess[str]]
) -> None:
    served = start("--preset", "mini", "-g", folder / "photos")
    client, content = served.client, (folder / "blurry.jpg").read_bytes()

    found = client.post("/search", files={"file": ("q.jpg", content)}, data={"gallery": "photos"}).json()["results"]
    assert found[0]["name"] == "motorcycle_right.png"
    assert {one["verdict"] for one in found} == {"not compared"}

    def get(where: str) -> bytes:
        answer = client.get(where)
        assert answer.status_code == 200, answer.text
        return answer.content

    job = served.ended(served.submit(content, "blurry.jpg", gallery="photos").json()["id"], 600)
    assert job["state"] == "done", job
    result, links = get(job["links"]["result"]), job["links"]

    words = shlex.split(job["command"])[1:]
    done = run_rasr(*words, "--evidence", "map.png", "--json", timeout=900)
    assert done.returncode == 0, done.stderr
    assert (folder / job["result"]["name"]).read_bytes() == result
    told: dict[str, Any] = json.loads(done.stdout)
    told = told["results"][0] if "results" in told else told
    assert [(Path(one["path"]).name, one["verdict"], one["accepted"], one["share"]) for one in told["references"]] == [
        (one["name"], one["verdict"] if one["verdict"] != "not compared" else None, one["accepted"],
         one["share"] if one["share"] or one["verdict"] == "same scene" else None) for one in job["references"]
    ]  # fmt: skip

    first = job["references"][0]
    assert (first["name"], first["verdict"], first["accepted"]) == ("motorcycle_right.png", "same scene", True)
    assert 0.05 < first["share"] < 1
    assert first["share"] + job["drawn"] == pytest.approx(1, abs=0.002)
    overlay = np.asarray(Image.open(io.BytesIO(get(links["evidence_picture"]))))
    view = np.asarray(Image.open(io.BytesIO(get(links["view"]))).convert("RGB"))
    assert overlay[..., 3].mean() / 255 == pytest.approx(first["share"], abs=0.002)
    mapped = np.asarray(Image.open(folder / "map.png")).astype(int)
    assert np.abs(drawn(view, overlay) - mapped).max() <= 1  # the view has 8 bits, the map was drawn from more

    evidence = json.loads(get(links["evidence"]))
    places = evidence["references"][0]["places"]
    assert len(places) == evidence["columns"] * evidence["rows"]
    cell = evidence["cell"]
    for number, place in enumerate(places):
        row, column = divmod(number, evidence["columns"])
        given = overlay[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell, 3].max() / 255 >= 0.02
        assert (place is not None) == given, "a place is told where the photo gave something, and nowhere else"
    assert all(one["places"] is None for one in evidence["references"][1:])
    report = get(links["report"]).decode()
    assert f"{EVIDENCE} motorcycle_right.png" in report

    # The same photos, sent by a client: the same result.
    assert client.post("/galleries", json={"name": "sent"}).status_code == 201
    for name in PHOTOS:
        sent = client.post("/galleries/sent/photos", files={"file": (name, (SAMPLES / name).read_bytes())})
        assert sent.status_code == 201, sent.text
    other = served.ended(served.submit(content, "blurry.jpg", gallery="sent").json()["id"], 600)
    assert get(other["links"]["result"]) == result
    assert served.stop() == 0
