"""Jobs over HTTP: what comes back is what the command line makes, and everything that is said of it is so."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import Served, picture


def pixels(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize(("name", "kind", "format"), [("a cat.jpg", "JPEG", None), ("b.png", "PNG", "webp")])
def test_the_result_is_the_command_lines_byte_for_byte(
    served: Served,
    run_rasr: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
    name: str,
    kind: str,
    format: str | None,
) -> None:
    content = picture(kind=kind, seed=3)
    job = served.submit(content, name, scale="2.5", **({"format": format} if format else {})).json()
    ended = served.ended(job["id"])
    assert ended["state"] == "done", ended
    answer = served.client.get(ended["links"]["result"])
    assert (ended["result"]["width"], ended["result"]["height"]) == (120, 80)
    assert answer.headers["content-type"] == ended["result"]["type"]
    assert "attachment" in answer.headers["content-disposition"]
    (tmp_path / name).write_bytes(content)
    import shlex

    done = run_rasr(*shlex.split(ended["command"])[1:])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ended["result"]["name"]).read_bytes() == answer.content


@pytest.mark.parametrize(
    ("asked", "camera", "place"), [(None, True, False), ("no-location", True, False), ("keep", True, True),
                                   ("strip", False, False)],
)  # fmt: skip
def test_where_a_photo_was_taken_is_not_in_results_unless_asked_for(
    served: Served, asked: str | None, camera: bool, place: bool
) -> None:
    image, stream = Image.open(io.BytesIO(picture())), io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 1.0, 2.0)})
    image.save(stream, "JPEG", exif=exif)
    job = served.submit(stream.getvalue(), "where.jpg", **({"metadata": asked} if asked else {})).json()
    assert job["settings"]["metadata"] == (asked or "no-location")
    assert f"--metadata {asked or 'no-location'}" in job["command"]
    served.ended(job["id"])
    result = Image.open(io.BytesIO(served.client.get(f"/jobs/{job['id']}/result").content)).getexif()
    assert (bool(result.get_ifd(0x8825)), result.get(0x010F) == "Maker") == (place, camera)
    for shown in ("view", "input"):
        assert not Image.open(io.BytesIO(served.client.get(f"/jobs/{job['id']}/{shown}").content)).getexif()


def test_the_input_is_shown_upright_and_the_view_is_the_result(served: Served) -> None:
    image, stream = Image.open(io.BytesIO(picture(48, 32))), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(stream, "PNG", exif=exif)
    job = served.ended(served.submit(stream.getvalue(), "turned.png", scale="2").json()["id"])
    assert job["input"] == {"width": 32, "height": 48}
    shown = pixels(served.client.get(f"/jobs/{job['id']}/input").content)
    assert np.array_equal(shown, np.rot90(np.asarray(image), -1))
    view = pixels(served.client.get(f"/jobs/{job['id']}/view").content)
    assert np.array_equal(view, pixels(served.client.get(f"/jobs/{job['id']}/result").content))
    overlay = pixels(served.client.get(f"/jobs/{job['id']}/evidence.png").content)
    assert overlay.shape == (*view.shape[:2], 4)
    assert not overlay.any()  # nothing was a photo's
    assert served.client.get(f"/jobs/{job['id']}/evidence").json() == {
        "cell": 16, "columns": 4, "rows": 6, "references": [], "shares": [],
    }  # fmt: skip
    page = served.client.get(f"/jobs/{job['id']}/report")
    assert "turned.png" in page.text
    assert page.headers["content-security-policy"].startswith("sandbox")


def test_events_tell_the_job_until_it_ends(served: Served) -> None:
    job = served.submit(picture(), scale="3").json()["id"]
    with served.client.stream("GET", f"/jobs/{job}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = list(stream.iter_lines())
    states = [json.loads(line[6:])["state"] for line in lines if line.startswith("data: ")]
    numbers = [int(line[4:]) for line in lines if line.startswith("id: ")]
    assert states[-1] == "done"
    assert numbers == sorted(set(numbers))
    with served.client.stream("GET", f"/jobs/{job}/events", headers={"Last-Event-ID": str(numbers[-1])}) as stream:
        assert '"state": "done"' in "".join(stream.iter_lines())


def test_a_key_stands_for_one_request(served: Served) -> None:
    first = served.submit(picture(seed=5), headers={"Idempotency-Key": "k1"}, scale="2")
    again = served.submit(picture(seed=5), headers={"Idempotency-Key": "k1"}, scale="2")
    other = served.submit(picture(seed=5), headers={"Idempotency-Key": "k1"}, scale="3")
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 409)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == f"/jobs/{first.json()['id']}"
    assert other.json()["error"]["code"] == "key"


def test_a_batch_is_counted_and_comes_as_one_archive(served: Served) -> None:
    jobs = [served.submit(picture(seed=n), "same.png", batch="b-1", scale="1").json()["id"] for n in range(3)]
    for job in jobs:
        served.ended(job)
    counted = served.client.get("/batches/b-1").json()
    assert counted == {"batch": "b-1", "total": 3, "queued": 0, "running": 0, "done": 3, "failed": 0, "cancelled": 0}
    archive = zipfile.ZipFile(io.BytesIO(served.client.get("/batches/b-1/zip").content))
    assert archive.testzip() is None
    assert archive.namelist() == ["same_rasr.png", "same_rasr (2).png", "same_rasr (3).png"]
    assert archive.read("same_rasr (2).png") == served.client.get(f"/jobs/{jobs[1]}/result").content
    listed = served.client.get("/jobs", params={"batch": "b-1", "limit": 2}).json()
    assert [job["id"] for job in listed["jobs"]] == jobs[:0:-1]
    rest = served.client.get("/jobs", params={"batch": "b-1", "before": listed["next"]}).json()
    assert [job["id"] for job in rest["jobs"]] == jobs[:1]


def test_an_ended_job_is_removed_with_its_files(served: Served) -> None:
    job = served.ended(served.submit(picture()).json()["id"])["id"]
    served.client.get(f"/jobs/{job}/input")
    assert served.client.delete(f"/jobs/{job}").status_code == 204
    assert served.client.get(f"/jobs/{job}").status_code == 404
    assert served.client.delete(f"/jobs/{job}").status_code == 404
    assert not [path for path in served.data.rglob("*") if job in str(path)]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"detail": "1.1"}, 422), ({"detail": "nan"}, 422), ({"reduce": "perhaps"}, 422),
        ({"scale": "0"}, 422), ({"scale": "nan"}, 422), ({"strength": "2"}, 422), ({"preset": "none"}, 422),
        ({"seed": "-1"}, 422), ({"format": "gif"}, 422), ({"batch": "a/b"}, 422), ({"surprise": "1"}, 422),
        ({"preset": ""}, 422), ({"format": ""}, 422),
        ({"gallery": "missing"}, 404), ({"gallery": "../../etc"}, 404), ({"photo": "0" * 32}, 422),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_form(served: Served, fields: dict[str, str], status: int) -> None:
    answer = served.submit(picture(), **fields)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"].keys() == {"code", "message"}


def test_detail_and_reduction_reach_the_restoration_and_the_command(served: Served) -> None:
    asked = {one["name"]: one for one in served.client.get("/about").json()["settings"]}
    assert (asked["detail"]["default"], asked["reduce"]["default"]) == (0.5, True)
    job = served.ended(served.submit(picture(), scale="1", reduce="false").json()["id"])
    assert job["state"] == "done"
    assert job["settings"]["reduce"] is False
    assert "--no-reduce" in job["command"]
    assert "--detail" not in job["command"]
    refused = served.ended(served.submit(picture(), scale="1", detail="0.8").json()["id"])
    assert "--detail 0.8" in refused["command"]
    assert refused["state"] == ("done" if refused["settings"]["preset"] == "mini" else "failed")


def test_a_result_beyond_the_limit_is_refused(served: Served) -> None:
    answer = served.submit(picture(800, 800), scale="64")
    assert answer.status_code == 422
    assert "megapixels" in answer.json()["error"]["message"]


def test_two_pictures_in_one_job_are_refused(served: Served) -> None:
    both = [("file", ("a.png", picture())), ("file", ("b.png", picture()))]
    assert served.client.post("/jobs", files=both).status_code == 422


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "..\\..\\boot.ini", "/etc/passwd", ".hidden", "a\0b.png", "", "x" * 400 + ".png"]
)
def test_names_lead_nowhere(served: Served, name: str) -> None:
    before = set(served.data.parent.iterdir())
    answer = served.client.post("/jobs", files={"file": (name or "x", picture())})
    assert answer.status_code == 202, answer.text
    job = served.ended(answer.json()["id"])
    assert job["state"] == "done", job
    files = [path for path in (served.data / "jobs" / job["id"]).rglob("*") if path.is_file()]
    assert all(path.resolve().is_relative_to(served.data / "jobs" / job["id"]) for path in files)
    assert set(served.data.parent.iterdir()) == before
