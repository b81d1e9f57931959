"""The review page's server: what it serves, to whom, and what a decision changes."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from rasr.dataset import Record, ReviewServer, read_manifest
from rasr.dataset.manifest import write_manifest
from rasr.dataset.review import read_decisions
from rasr.errors import DatasetError
from rasr.images import Picture, write_picture


def _record(number: int, deviation: float = 0.0) -> Record:
    words = dict.fromkeys(("scientific_name", "source", "page_url", "url", "title", "author", "author_id"), "x")
    return Record(
        id=f"owl_{number}", category="owl", split="test", file=f"owl/test/owl_{number}.png", source_id=str(number),
        licence="CC0-1.0", licence_url="", sha256="", bytes=1, width=40, height=30, phash="0" * 16, group="",
        deviation=deviation, **words,
    )  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "owl/test").mkdir(parents=True)
    records = [_record(0), _record(1), _record(2, deviation=5.5)]
    for number, record in enumerate(records):
        write_picture(Picture(np.full((30, 40, 3), 0.2 * number, np.float32)), tmp_path / record.file)
    write_manifest(tmp_path, records)
    return tmp_path


@contextmanager
def _serving(dataset: Path) -> Iterator[ReviewServer]:
    server = ReviewServer(dataset)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def _ask(
    server: ReviewServer,
    path: str,
    body: object = None,
    host: str | None = None,
    prefix: str | None = None,
    **more: str,
) -> tuple[int, bytes]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port or 0, timeout=10)
    headers = ({"Host": host} if host else {}) | {name.replace("_", "-"): value for name, value in more.items()}
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    where = (parts.path if prefix is None else prefix) + path
    connection.request("GET" if data is None else "POST", where, data, headers)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def test_the_page_lists_the_strange_photos_first_and_shows_them(dataset: Path) -> None:
    with _serving(dataset) as server:
        status, page = _ask(server, "")
        assert status == 200
        assert b"<title>Review</title>" in page
        listing = json.loads(_ask(server, "photos")[1])
        assert [photo["id"] for photo in listing] == ["owl_2", "owl_0", "owl_1"]
        status, jpeg = _ask(server, f"picture/{listing[0]['number']}")
        assert (status, jpeg[:3]) == (200, b"\xff\xd8\xff")


def test_decisions_are_in_the_manifest_at_once(dataset: Path) -> None:
    with _serving(dataset) as server:
        for number, decision in ((0, "drop"), (1, "keep"), (2, "drop"), (2, "undo")):
            status, counts = _ask(server, "decide", {"number": number, "decision": decision})
            assert status == 200
        assert json.loads(counts) == {"keep": 1, "drop": 1, "open": 1}
        assert [record.review for record in read_manifest(dataset)] == ["drop", "keep", ""]
    assert read_decisions(dataset) == {"owl_0": "drop", "owl_1": "keep"}
    assert _counts_of_a_new_server(dataset) == {"keep": 1, "drop": 1, "open": 1}


def _counts_of_a_new_server(dataset: Path) -> dict[str, int]:
    """The counts that a server started anew finds."""
    with _serving(dataset) as server:
        return server.summary()


@pytest.mark.parametrize(
    "path",
    ["picture/99", "picture/-1", "picture/../manifest.jsonl", "picture/%2e%2e", "manifest.jsonl", "../manifest.jsonl",
     "picture/0/x", "picture/owl_0", "//etc/passwd", "picture/0\x00"],
)  # fmt: skip
def test_only_numbers_of_photos_are_served(dataset: Path, path: str) -> None:
    with _serving(dataset) as server:
        if "\x00" in path:
            path = path.replace("\x00", "%00")
        assert _ask(server, path)[0] == 404


@pytest.mark.parametrize("prefix", ["/", "//", "/wrong-token/", ""])
def test_without_the_token_there_is_nothing(dataset: Path, prefix: str) -> None:
    with _serving(dataset) as server:
        assert _ask(server, "photos", prefix=prefix or "/x")[0] == 404
        assert _ask(server, "decide", {"number": 0, "decision": "drop"}, prefix=prefix or "/x")[0] == 400
    assert not read_decisions(dataset)


def test_another_name_for_this_machine_is_refused(dataset: Path) -> None:
    with _serving(dataset) as server:
        assert _ask(server, "photos", host="evil.example")[0] == 404


@pytest.mark.parametrize(
    "body",
    [b"not json", [], {"number": 0}, {"number": "0", "decision": "drop"}, {"number": 0, "decision": "delete"},
     {"number": 7, "decision": "drop"}, {"number": -1, "decision": "drop"}, {"number": 0, "decision": "x" * 5000}],
)  # fmt: skip
def test_other_bodies_change_nothing(dataset: Path, body: object) -> None:
    with _serving(dataset) as server:
        assert _ask(server, "decide", body)[0] == 400
    assert not read_decisions(dataset)
    assert all(not record.review for record in read_manifest(dataset))


def test_a_damaged_photo_is_a_404_with_its_name(dataset: Path) -> None:
    (dataset / "owl/test/owl_0.png").write_bytes(b"gone")
    with _serving(dataset) as server:
        status, said = _ask(server, "picture/0")
    assert status == 404
    assert b"owl_0.png" in said


def test_a_folder_without_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"manifest\.jsonl"):
        ReviewServer(tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_only_its_own_page_may_decide(dataset: Path) -> None:
    body = {"number": 0, "decision": "drop"}
    with _serving(dataset) as server:
        own = server.url.split("/")[2]
        for origin in (
            "http://evil.example",
            "null",
            "https://" + own,
            f"http://{own}.evil.example",
            "http://127.0.0.1:1",
        ):
            assert _ask(server, "decide", body, Origin=origin)[0] in (400, 404)
            assert _ask(server, "photos", Origin=origin)[0] == 404
        assert _ask(server, "decide", body, Sec_Fetch_Site="cross-site")[0] == 400
        assert all(not record.review for record in read_manifest(dataset))
        assert _ask(server, "decide", body, Origin=f"http://{own}", Sec_Fetch_Site="same-origin")[0] == 200
        assert [record.review for record in read_manifest(dataset)] == ["drop", "", ""]


@pytest.mark.parametrize("way", ["absolute", "dots", "link", "folder-link"])
def test_a_foreign_manifest_shows_nothing_outside_its_folder(
    dataset: Path, tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    write_picture(Picture(np.full((30, 40, 3), 0.5, np.float32)), secret)
    records = read_manifest(dataset)
    first = dataset / records[0].file
    named = {"absolute": str(secret), "dots": f"../../{'../' * 20}{secret}", "folder-link": "out/secret.png"}
    if way == "link":
        first.unlink()
        first.symlink_to(secret)
    (dataset / "out").symlink_to(secret.parent)
    write_manifest(dataset, [replace(records[0], file=named.get(way, records[0].file)), *records[1:]])
    with _serving(dataset) as server:
        status, said = _ask(server, "picture/0")
        assert (status, b"leads out of the folder" in said) == (404, True)
        assert _ask(server, "picture/1")[0] == 200


def test_a_stalled_client_does_not_hold_the_others(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasr.dataset.review.SECONDS", 0.5)
    with _serving(dataset) as server:
        port = urlsplit(server.url).port or 0
        stalled = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(20)]
        for number, client in enumerate(stalled):
            client.sendall([b"", b"GET /", b"POST /x HTTP/1.0\r\nContent-Length: 9\r\n"][number % 3])
        assert _ask(server, "picture/0")[0] == 200
        for client in stalled:  # closed when their time is up, without an answer
            with client, suppress(ConnectionError):
                while client.recv(4096):
                    pass
        assert _ask(server, "photos")[0] == 200


def test_dropped_connections_leave_no_traceback(dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with _serving(dataset) as server:
        parts = urlsplit(server.url)
        token = parts.path.encode()
        for request in (
            b"",
            b"GET",
            b"GET " + token + b"picture/0 HTTP/1.0\r\nHost: " + parts.netloc.encode() + b"\r\n\r\n",
        ):
            for _ in range(5):
                client = socket.create_connection(("127.0.0.1", parts.port or 0))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by reset
                client.sendall(request)
                client.close()
        assert _ask(server, "photos")[0] == 200
        time.sleep(0.3)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", ["9" * 5000, "²", "-1", "1_0", "", "4097"])
def test_strange_lengths_and_numbers(dataset: Path, size: str) -> None:
    with _serving(dataset) as server:
        parts = urlsplit(server.url)
        with socket.create_connection(("127.0.0.1", parts.port or 0), timeout=10) as client:
            head = f"POST {parts.path}decide HTTP/1.0\r\nHost: {parts.netloc}\r\nContent-Length: {size}\r\n\r\n"
            client.sendall(head.encode("latin-1"))
            assert b" 400 " in client.recv(100)
        assert _ask(server, "picture/" + "9" * 5000)[0] == 404
        assert _ask(server, "decide", b"[" * 4000)[0] == 400
        assert _ask(server, "decide", {"number": True, "decision": "drop"})[0] == 400
