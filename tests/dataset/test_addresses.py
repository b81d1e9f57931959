"""Addresses of strangers: only public ones are connected to, and to the very address that was checked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rasr.dataset.addresses import AddressRefused, check_address, check_proxied, host_of
from rasr.dataset.web import Download, FetchError, Web

REFUSED = {
    "loopback": ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::127.0.0.1"],
    "private": ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12::9", "fec0::1", "240.0.0.1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"],
    "multicast": ["224.0.0.1", "239.1.1.1", "ff02::1", "::ffff:224.0.0.1"],
    "unspecified": ["0.0.0.0", "::", "::ffff:0.0.0.0", "64:ff9b::"],
    "private or": ["2002:7f00:1::", "2002:c0a8:101::1", "2001:db8::1", "64:ff9b:1::808:808", "2001:0::1", "192.0.2.1"],
}
PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]


@pytest.mark.parametrize(("kind", "address"), [(kind, one) for kind, some in REFUSED.items() for one in some])
def test_what_is_not_public_is_refused(kind: str, address: str) -> None:
    with pytest.raises(AddressRefused, match=kind if not address.startswith("2002") else "is a"):
        check_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_passes(address: str) -> None:
    check_address(address)
    check_address(address, loopback=True)


def test_the_switch_allows_this_machine_and_nothing_else() -> None:
    for address in ("127.0.0.1", "::1"):
        check_address(address, loopback=True)
    for address in ("10.0.0.1", "169.254.169.254", "0.0.0.0", "::ffff:10.0.0.1"):
        with pytest.raises(AddressRefused):
            check_address(address, loopback=True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "//a/b",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://a:b/",
        "http://a:99999/",
        "http://a\ud800/",
    ],
)
def test_no_addresses(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        host_of(url)


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "::1", "10.0.0.1"])
def test_behind_a_proxy_the_name_alone_is_judged(host: str) -> None:
    with pytest.raises(AddressRefused):
        check_proxied(host)
    check_proxied("example.org")


class _Photos(BaseHTTPRequestHandler):
    """A picture; under /to/ADDRESS a redirect there."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers['Host']}{self.path}")
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        self.wfile.write(b"picture")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    handler = type("Photos", (_Photos,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _asked(server: ThreadingHTTPServer) -> list[str]:
    return server.RequestHandlerClass.asked  # type: ignore[attr-defined,no-any-return]


def _web(resolver: object, *, loopback: bool = True) -> Web:
    settings = {"rate": 1000.0, "back_off": 0.0, "attempts": 2, "timeout": 5.0, "loopback": loopback}
    return Web(Download.model_validate(settings), "tests", resolver=resolver)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def test_a_name_that_leads_to_this_machine_is_not_asked(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    url = f"http://photos.example:{server.server_port}/a.png"
    with _web(lambda _host, _port: ["127.0.0.1"], loopback=False) as web, pytest.raises(FetchError, match="loopback"):
        web.download(url, tmp_path / "a")
    assert _asked(server) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f.0.0.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "localhost"]
)
def test_every_spelling_of_this_machine_is_refused(server: ThreadingHTTPServer, tmp_path: Path, host: str) -> None:
    with Web(Download(rate=1000.0, attempts=1), "tests") as web, pytest.raises(FetchError):
        web.download(f"http://{host}:{server.server_port}/a.png", tmp_path / "a")
    assert _asked(server) == []


def test_the_connection_goes_to_the_address_that_was_checked(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    """DNS rebinding: the second answer for the same name is another address."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"], ["10.0.0.1"]])
    questions = []

    def resolver(host: str, _port: int) -> list[str]:
        questions.append(host)
        return next(answers)

    with _web(resolver) as web:
        web.download(f"http://photos.example:{server.server_port}/a.png", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"picture"
    assert questions == ["photos.example"], "asked once: what was checked is what was connected to"
    assert _asked(server) == [f"photos.example:{server.server_port}/a.png"]


def test_one_private_address_among_public_ones_is_enough(tmp_path: Path) -> None:
    with _web(lambda *_: ["8.8.8.8", "192.168.0.1"], loopback=False) as web, pytest.raises(FetchError, match="private"):
        web.download("http://photos.example/a.png", tmp_path / "a")


@pytest.mark.parametrize("target", ["http://meta.example/latest", "http://10.0.0.7/a.png", "http://[fe80::1]/a.png"])
def test_a_redirect_is_checked_like_the_first_address(server: ThreadingHTTPServer, tmp_path: Path, target: str) -> None:
    def resolver(host: str, _port: int) -> list[str]:
        return {"photos.example": ["127.0.0.1"], "meta.example": ["169.254.169.254"]}.get(host, [host])

    url = f"http://photos.example:{server.server_port}/to/{target}"
    with _web(resolver) as web, pytest.raises(FetchError, match=r"link-local|private") as caught:
        web.download(url, tmp_path / "a")
    assert caught.value.kind == "dead link"


def test_https_does_not_become_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2

    with _web(lambda *_: []) as web:

        def send(request: httpx2.Request) -> httpx2.Response:
            answer = httpx2.Response(302, headers={"Location": "http://photos.example/a.png"}, request=request)
            answer.next_request = httpx2.Request("GET", "http://photos.example/a.png")
            return answer

        monkeypatch.setattr(web, "_send", send)
        with pytest.raises(FetchError, match="from https to http"):
            web.download("https://photos.example/a.png", tmp_path / "a")


def test_an_unknown_host_is_no_connection(tmp_path: Path) -> None:
    def nobody(*_: object) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with _web(nobody) as web, pytest.raises(FetchError, match="not known") as caught:
        web.download("http://nobody.example/a.png", tmp_path / "a")
    assert caught.value.kind == "no connection"


@pytest.mark.parametrize(
    "url", ["http://[::1/a.png", "http://a:b/a", "http://a\ud800.example/", "http://" + "a" * 300 + "/"]
)
def test_a_malformed_address_fails_for_itself(url: str, tmp_path: Path) -> None:
    with _web(lambda *_: []) as web, pytest.raises(FetchError):
        web.download(url, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
