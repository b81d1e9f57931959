"""The guard: token before the body, hosts, origins, sizes, headers, and what the web process does not load."""

from __future__ import annotations

import asyncio
import http.client
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rasr.errors import UsageError
from rasr.service.config import ServiceConfig, read_token
from rasr.service.guard import Lasting
from tests.service.conftest import SOURCE, Begin, Served, picture

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def locked(begin: Begin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("locked")
    (folder / "token").write_text(TOKEN + "\n")
    service = begin(folder / "data", "--token-file", folder / "token", "--allow-host", "photos.example")
    yield service
    assert service.stop() == 0


@pytest.mark.parametrize("shown", [None, "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer"])
def test_without_the_token_nothing_is_told(locked: Served, shown: str | None) -> None:
    headers = {"Authorization": shown} if shown else {}
    answer = locked.client.get("/jobs", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.client.get("/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert locked.client.get("/about").json()["auth"] is True
    assert locked.client.get("/health/live").status_code == 200


def test_a_body_without_the_token_is_not_read(locked: Served) -> None:
    """The answer comes while the body is still to be sent."""
    url = httpx2.URL(locked.url)
    with socket.create_connection((url.host, url.port), timeout=10) as line:
        line.sendall(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n"
                     b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x")  # fmt: skip
        assert b" 401 " in line.recv(200)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(served: Served) -> None:
    url = httpx2.URL(served.url)
    with socket.create_connection((url.host, url.port), timeout=10) as line:
        line.sendall(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n"
                     b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")  # fmt: skip
        assert b" 413 " in line.recv(200)


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:80", 200), ("[::1]:80", 200), ("photos.example", 200), ("PHOTOS.example:80", 200),
     ("evil.example", 421), ("", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.example", 421)],
)  # fmt: skip
def test_only_names_of_this_service_are_answered(locked: Served, host: str, status: int) -> None:
    assert locked.client.get("/about", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "self"}, 409),
    ],
)
def test_pages_of_other_sites_change_nothing(served: Served, headers: dict[str, str], status: int) -> None:
    sent = {name: served.url if value == "self" else value for name, value in headers.items()}
    assert served.client.post("/galleries", json={"name": "Mine"}, headers=sent).status_code == status


def test_every_answer_has_its_headers(served: Served) -> None:
    for path in ("/", "/about", "/jobs/none", "/nowhere"):
        headers = served.client.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert served.client.post("/about").json()["error"]["code"] == "method"


@pytest.mark.parametrize(("path", "allowed"), [("/jobs", "GET, POST"), ("/jobs/x", "DELETE, GET"), ("/about", "GET")])
def test_another_method_is_told_which_there_are(served: Served, path: str, allowed: str) -> None:
    answer = served.client.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_too_many_fields_or_files_are_refused(served: Served) -> None:
    many = {f"f{number}": "x" for number in range(2000)}
    assert served.client.post("/jobs", files={"file": ("a.png", picture())}, data=many).status_code == 400
    files = [("reference", (f"{n}.png", picture())) for n in range(30)]
    assert served.client.post("/jobs", files=[("file", ("a.png", picture())), *files]).status_code == 400
    long = served.client.post("/jobs", files={"file": ("a.png", picture())}, data={"batch": "x" * 200_000})
    assert long.status_code == 400
    assert long.json()["error"]["message"]


def test_a_body_that_is_no_form_is_refused(served: Served) -> None:
    connection = http.client.HTTPConnection(*served.url.removeprefix("http://").split(":"))
    connection.request("POST", "/jobs", b"not a form", {"Content-Type": "multipart/form-data"})
    assert connection.getresponse().status in {400, 422}
    connection.close()


def test_the_web_process_never_loads_torch(served: Served) -> None:
    served.ended(served.submit(picture()).json()["id"])
    served.client.get("/metrics")
    maps = Path(f"/proc/{served.web}/maps").read_text()
    assert "libtorch" not in maps
    assert "/numpy/" in maps  # what is looked at is what is loaded
    script = "import sys, rasr.service.server; assert not {'torch', 'ncnn', 'cv2'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(SOURCE)})


def test_without_the_extra_it_is_named(
    run_rasr: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError(\"No module named 'fastapi'\", name='fastapi')")
    done = run_rasr("serve", "--port", "0", PYTHONPATH=f"{tmp_path}:{SOURCE}")
    assert done.returncode == 1
    assert "[service]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASR_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    for text in ("short", "", "with a space in the middle", "ünïcödé-ünïcödé-ünïcödé"):
        (tmp_path / "token").write_text(text)
        with pytest.raises(UsageError, match="token"):
            read_token(tmp_path / "token")


@pytest.mark.parametrize("wrong", [{"queue": 0}, {"port": 70000}, {"preset": "none"}, {"grace": -1.0}])
def test_a_configuration_out_of_range_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        ServiceConfig(data=tmp_path, **wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_metrics_count_by_route(served: Served) -> None:
    served.client.get("/jobs/nobody")
    text = served.client.get("/metrics").text
    assert 'rasr_requests_total{method="GET",route="/jobs/{job}",status="404"}' in text
    assert "nobody" not in text
    assert "rasr_worker_ready 1.0" in text


class Client:
    """A client that sends nothing."""

    def __init__(self) -> None:
        self.got: list[str] = []

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Any) -> None:
        self.got.append(message["type"])


def test_a_client_that_leaves_does_not_cut_off_what_is_done_for_it() -> None:
    client, told = Client(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start"})
        told.append((await receive())["type"])
        await send({"type": "http.response.body"})
        await asyncio.sleep(0)
        told.append("done")

    async def leave() -> None:
        lasting = Lasting(app)
        request = asyncio.create_task(lasting({"type": "http"}, client.receive, client.send))
        while not client.got:
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        while lasting._left:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(leave(), 30))
    assert told == ["http.disconnect", "done"]
    assert client.got == ["http.response.start"]


def test_what_is_sent_is_received_and_errors_are_raised() -> None:
    sent = iter([{"type": "http.request", "body": b"x"}])
    got: list[Any] = []

    async def receive() -> Any:
        return next(sent)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.append(await receive())
        raise ValueError(scope["path"])

    with pytest.raises(ValueError, match="/here"):
        asyncio.run(Lasting(app)({"type": "http", "path": "/here"}, receive, Client().send))
    assert got == [{"type": "http.request", "body": b"x"}]


def test_what_is_no_request_is_passed_on() -> None:
    client, seen = Client(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope["type"], receive, send])

    asyncio.run(Lasting(app)({"type": "lifespan"}, client.receive, client.send))
    assert seen == ["lifespan", client.receive, client.send]
