"""Galleries at addresses, offered by the service: loaded before it is ready, searched, shown, and only read."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rasr.cli import main as cli
from rasr.errors import GalleryError, UsageError
from rasr.files import write_bytes
from rasr.gallery import Gallery
from rasr.object_path import place
from rasr.service import worker
from rasr.service.config import ServiceConfig
from rasr.service.core import named
from rasr.service.events import Feed
from rasr.service.metrics import Metrics
from rasr.service.running import Parts
from rasr.service.supervisor import Supervisor
from rasr.service.worker import Worker
from tests.objects.proxy import Proxy
from tests.objects.servers import s3, s3_server
from tests.service.conftest import Served, picture

__all__ = ["s3", "s3_server"]


def filled(address: str, far: str) -> str:
    """A gallery at ``address`` with three photos, which lie at ``far``."""
    for seed in (1, 2, 3):
        path = place(far) / "zoo" / f"photo {seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(picture(320, 240, seed), path)
    assert Gallery(address).add(far).added == 3
    return address


@pytest.mark.parametrize("kind", ["lance", "s3"])
def test_a_gallery_at_an_address_is_offered(kind: str, s3: str, start: Callable[..., Served], tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    address = f"{s3}/galleries/museum" if kind == "s3" else f"lance://{tmp_path}/museum"
    far = f"{s3}/photos" if kind == "s3" else f"{tmp_path}/photos"
    served = start("-g", filled(address, far))
    client = served.client
    assert "Gallery museum: 3 photos, searched exactly, in memory; loaded in" in served.log.read_text()
    (listed,) = client.get("/galleries").json()["galleries"]
    assert listed == {"name": "museum", "photos": 3, "encoder": "effnet-lite0-robust", "writable": False}
    assert client.get("/galleries/museum").json()["problems"] == []
    photos = client.get("/galleries/museum/photos").json()["photos"]
    assert [(one["name"], one["width"], one["problem"]) for one in photos] == [
        (f"photo {seed}.png", 320, None) for seed in (1, 2, 3)
    ]

    small = Image.open(io.BytesIO(picture(320, 240, 2))).resize((80, 60))
    stream = io.BytesIO()
    small.save(stream, "PNG")
    found = client.post("/search", files={"file": ("q.png", stream.getvalue())}, data={"gallery": "museum", "k": 2})
    first = found.json()["results"][0]
    assert (first["name"], first["width"], first["height"]) == ("photo 2.png", 320, 240)
    for link, size in ((first["picture"], (320, 240)), (first["picture"].replace("picture", "thumbnail"), (256, 192))):
        assert Image.open(io.BytesIO(client.get(link).content)).size == size

    job = served.submit(stream.getvalue(), gallery="museum", photo=first["id"], scale="2").json()
    ended = served.ended(job["id"])
    assert (ended["state"], ended["error"]) == ("done", None)
    (reference,) = ended["references"]
    assert (reference["id"], reference["name"], reference["gallery"]) == (first["id"], "photo 2.png", "museum")
    assert Image.open(io.BytesIO(client.get(reference["picture"]).content)).size == (320, 240)
    assert client.get(ended["links"]["report"]).status_code == 200

    assert client.post("/galleries/museum/photos", files={"file": ("b.png", picture())}).status_code == 403
    assert client.delete(f"/galleries/museum/photos/{first['id']}").status_code == 403
    assert client.get("/galleries/museum/photos/nothing/picture").status_code == 404
    place(f"{far}/zoo/photo 2.png").unlink()
    assert client.get("/galleries/museum").json()["problems"] == [
        {"name": "photo 2.png", "message": "The photo's file is missing."}
    ]
    Gallery(address).remove([first["id"]])
    assert client.get("/galleries").json()["galleries"][0]["photos"] == 2
    assert len(client.get("/galleries/museum/photos").json()["photos"]) == 2


def test_a_storage_that_refuses_costs_its_gallery_alone(
    s3: str, s3_server: str, start: Callable[..., Served], tmp_path: Path
) -> None:
    pytest.importorskip("lancedb")
    filled(f"{s3}/galleries/museum", f"{s3}/photos")
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "one.png").write_bytes(picture(64, 64))

    def forbidden(method: str, path: str, headers: dict[str, str]) -> str:
        return "403"

    with Proxy(s3_server, forbidden) as proxy:
        served = start("-g", f"{s3}/galleries/museum", "-g", tmp_path / "house", AWS_ENDPOINT_URL=proxy.address)
        listed = served.client.get("/galleries").json()["galleries"]
        assert [(one["name"], one["photos"]) for one in listed] == [("house", 1), ("museum", 0)]
        (problem,) = served.client.get("/galleries/museum").json()["problems"]
        assert "cannot be read" in problem["message"]
        asked = served.client.post("/search", files={"file": ("q.png", picture())}, data={"gallery": "museum"})
        assert 400 <= asked.status_code < 500
        assert "Gallery museum could not be loaded: " in served.log.read_text()


class Standin:
    """Stands for a gallery, and for the pipe to the parent: notes what is done in which order."""

    address = "s3://museum/galleries/zoo"

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.said: list[Any] = []

    def __len__(self) -> int:
        return 1_000_000

    def prewarm(self) -> str:
        self.said.append("prewarmed")
        if self.fault:
            raise GalleryError(self.fault)
        return "searched by an index"

    def send(self, said: dict[str, Any]) -> None:
        self.said.append(said)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        if self.said:
            raise EOFError
        told = {"device": "cpu", "max_pixels": 1, "processes": 2, "preset": "bicubic"}
        return {**told, "galleries": {"zoo": self.address}}, b""


@pytest.mark.parametrize("fault", ["", "The storage does not answer."])
def test_the_worker_is_ready_when_its_galleries_are_loaded(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    standin, divided = Standin(fault), list[int]()
    monkeypatch.setattr(worker, "open_gallery_or_folder", lambda path, **_: standin)
    monkeypatch.setattr(worker, "divide_memory", divided.append)
    with pytest.raises(EOFError):
        Worker(standin).run()  # type: ignore[arg-type]
    assert divided == [2]
    told = [one if isinstance(one, str) else next(iter(one)) for one in standin.said]
    assert told == ["loading", "prewarmed", *(["loaded"] if not fault else []), "ready"]
    ready = standin.said[-1]
    assert ready["galleries"] == {"zoo": Standin.address}
    assert ready["faults"] == ({"zoo": fault} if fault else {})


def test_until_then_the_service_says_what_it_waits_for(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    config = ServiceConfig(data=tmp_path, galleries=[Standin.address])
    unused: Any = None
    parts = Parts(config, unused, Feed(Metrics().streams), Metrics(), named(config.galleries), unused, unused)
    supervisor = Supervisor(parts)
    with caplog.at_level(logging.INFO, "rasr.service"):
        supervisor._hear({"loading": "zoo"})
        assert (supervisor.ready, supervisor.why) == (False, "The worker is starting: gallery zoo is being loaded.")
        supervisor._hear({"loaded": "zoo", "photos": 1_000_000, "how": "searched by an index", "seconds": 2.5})
        assert not supervisor.ready
        supervisor._hear({"ready": True, "galleries": {"zoo": Standin.address}, "faults": {}})
    assert supervisor.ready
    assert supervisor.galleries == {"zoo": Standin.address}
    assert caplog.messages == ["Gallery zoo: 1000000 photos, searched by an index; loaded in 2.5 s."]


def test_galleries_are_named_by_the_end_of_their_addresses() -> None:
    addresses = ["s3://museum/galleries/zoo", "lance:///data/zoo", "s3://museum", Path("/data/Été 2020")]
    assert list(named(addresses)) == ["zoo", "zoo 2", "museum", "Été 2020"]


def test_an_address_with_a_secret_is_refused_without_repeating_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError):
        ServiceConfig(data=tmp_path, galleries=["ftp://museum/zoo"])
    with pytest.raises(SystemExit) as stopped:
        cli.main(["serve", "--data", str(tmp_path), "-g", "s3://key:hidden-word@museum/zoo"])
    assert stopped.value.code == 2
    told = "".join(capsys.readouterr())
    assert "without user" in told
    assert "hidden-word" not in told
