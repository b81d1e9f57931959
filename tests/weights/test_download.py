"""The one download rule, against servers on this machine that behave and that do not."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.weights import CATALOGUE, ModelWeights, find, plan_download
from rasr.weights.locate import first_download, hub_folder

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
GIT = hashlib.sha1(b"blob 2\0{}").hexdigest()


class Server(BaseHTTPRequestHandler):
    """One file, with ranges; ``fault`` says how it misbehaves."""

    fault = ""
    content = CONTENT
    asked: list[tuple[str, str | None, str | None]]

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        self.asked.append((self.path, span, self.headers.get("Authorization")))
        if self.fault == "redirects outside":
            return self._head(302, Location="http://example.org/weights.pth")
        if self.fault == "redirects here" and "moved" not in self.path:
            return self._head(302, Location="/moved/weights.pth")
        if self.path.endswith("config.json"):
            return self._send(b"{}", 200)
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and self.fault != "ignores ranges" else 0
        if start >= len(self.content):
            return self._head(416)
        body = self.content[start:]
        if self.fault == "cuts" and not span:
            return self._send(body[:300_000], 200, length=len(body))
        if self.fault == "endless":
            return self._send(body * 4, 200, length=None)
        if self.fault == "too large":
            return self._send(body, 200, length=10**12)
        if span and self.fault != "ignores ranges":
            shift = 7 if self.fault == "wrong part" else 0
            total = len(self.content)
            return self._send(body, 206, ContentRange=f"bytes {start + shift}-{total - 1}/{total}")
        return self._send(body, 200)

    def _send(self, body: bytes, code: int, length: int | None = -1, **headers: str) -> None:
        self._head(
            code,
            **headers,
            **({} if length is None else {"ContentLength": str(length % 2**60 if length >= 0 else len(body))}),
        )
        self.wfile.write(body)

    def _head(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header({"ContentLength": "Content-Length", "ContentRange": "Content-Range"}.get(key, key), value)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address on this machine; the network is on."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(Server, "asked", [], raising=False)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RASR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home" / "models"


@pytest.fixture
def mine(server: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> ModelWeights:
    """Weights at an address."""
    return declare(monkeypatch, url=f"{server}/weights.pth", sha256={"weights.pth": DIGEST[:8]})


def declare(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> ModelWeights:
    fields = {"purpose": "a test", "megabytes": 1, "licence": "MIT", "terms": "ours", "files": ("weights.pth",)}
    weights = ModelWeights(name="mine", **(fields | changes))
    monkeypatch.setitem(CATALOGUE, "mine", weights)
    return weights


def test_a_file_at_an_address_is_fetched_checked_and_recorded(mine: ModelWeights, home: Path) -> None:
    plan = plan_download("mine")
    assert (plan.source, plan.commit, len(plan.files)) == (mine.url, "", 1)
    assert Server.asked == [], "a plan fetches nothing"
    said: list[tuple[str, float, float]] = []
    path = plan.run(lambda *report: said.append(report))
    assert path == home / "weights.pth" == find("mine")
    assert path.read_bytes() == CONTENT
    assert first_download(mine.url) == {"sha256": {"weights.pth": DIGEST}}
    assert said[-1] == ("weights.pth", len(CONTENT), len(CONTENT))
    assert {file.name for file in home.iterdir()} <= {"weights.pth", "pins.json", ".download.lock"}
    assert plan_download("mine").run() == path
    assert len(Server.asked) == 1, "what is here and good is not fetched again"


@pytest.mark.parametrize("fault", ["cuts", "ignores ranges"])
def test_an_interrupted_download_goes_on(
    mine: ModelWeights, home: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(Server, "fault", "cuts")
    with pytest.raises(WeightsMissing, match=r"ended after 300,000 of 1,048,576 bytes.*it goes on from there"):
        plan_download("mine").run()
    assert find("mine") is None, "half a file is not there"
    monkeypatch.setattr(Server, "fault", fault)
    assert plan_download("mine").run().read_bytes() == CONTENT
    assert [span for _, span, _ in Server.asked] == [None, "bytes=300000-"]


def test_a_part_that_is_whole_already_or_too_long_is_fetched_anew(mine: ModelWeights, home: Path) -> None:
    home.mkdir(parents=True)
    (home / ".weights.pth.part").write_bytes(CONTENT)
    with pytest.raises(WeightsMissing, match="416"):
        plan_download("mine").run()
    assert plan_download("mine").run().read_bytes() == CONTENT


def test_another_part_than_was_asked_for_is_refused(
    mine: ModelWeights, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(parents=True)
    (home / ".weights.pth.part").write_bytes(CONTENT[:1000])
    monkeypatch.setattr(Server, "fault", "wrong part")
    with pytest.raises(WeightsMissing, match="another part"):
        plan_download("mine").run()
    assert plan_download("mine").run().read_bytes() == CONTENT, "from the beginning"


@pytest.mark.parametrize("fault", ["endless", "too large"])
def test_never_more_bytes_than_stated(
    mine: ModelWeights, home: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(Server, "fault", fault)
    with pytest.raises(WeightsMissing, match=r"larger than the 1\.3 MB"):
        plan_download("mine").run()
    assert not list(home.glob(".weights*"))


def test_only_https_also_after_a_redirect(mine: ModelWeights, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "fault", "redirects outside")
    with pytest.raises(WeightsMissing, match=r"http://example\.org/weights\.pth is not https"):
        plan_download("mine").run()
    monkeypatch.setattr(Server, "fault", "redirects here")
    assert plan_download("mine").run().read_bytes() == CONTENT
    declare(monkeypatch, url="http://example.org/weights.pth", own="other.pth")
    with pytest.raises(WeightsMissing, match="is not https"):
        plan_download("mine").run()
    declare(monkeypatch, url="ftp://127.0.0.1/weights.pth", own="other.pth")
    with pytest.raises(WeightsMissing, match="is not https"):
        plan_download("mine").run()


def test_an_outside_server_cannot_redirect_to_this_machine() -> None:
    from rasr.weights.download import _Redirects

    asked = SimpleNamespace(full_url="https://example.org/weights.pth")
    with pytest.raises(WeightsMissing, match="is not https"):
        _Redirects().redirect_request(asked, None, 302, "", {}, "http://127.0.0.1/weights.pth")


def test_a_file_with_another_hash_is_not_kept(mine: ModelWeights, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, url=mine.url, sha256={"weights.pth": "0badc0de"})
    with pytest.raises(WeightsCorrupt, match=r"the catalogue states 0badc0de…; it was not kept"):
        plan_download("mine").run()
    assert not list(home.glob("*weights*"))
    assert first_download(mine.url) == {}


def test_what_was_downloaded_first_is_held_to(mine: ModelWeights, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, url=mine.url)
    plan_download("mine").run().unlink()
    monkeypatch.setattr(Server, "content", CONTENT[:-1] + b"!")
    with pytest.raises(WeightsCorrupt, match="but the first download had"):
        plan_download("mine").run()
    (home / "pins.json").unlink()
    assert plan_download("mine").run().read_bytes()[-1:] == b"!"


def test_offline_nothing_is_asked(mine: ModelWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_download("mine")
    for variable in ("RASR_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            for attempt in (plan.run, lambda: plan_download("mine")):
                with pytest.raises(WeightsMissing, match="Downloading is off"):
                    attempt()
    assert Server.asked == []


@pytest.fixture
def hub(server: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A hub that announces two files, one large and one small; the announcement may be changed."""
    large = SimpleNamespace(
        rfilename="model.safetensors", size=len(CONTENT), lfs=SimpleNamespace(sha256=DIGEST), blob_id=None
    )
    small = SimpleNamespace(rfilename="config.json", size=2, lfs=None, blob_id=GIT)
    told = SimpleNamespace(sha=COMMIT, siblings=[large, small], revisions=[])

    def model_info(_api: object, _repository: str, *, revision: str | None, files_metadata: bool) -> SimpleNamespace:
        told.revisions.append(revision)
        return told

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_url", lambda repo, name, revision: f"{server}/{repo}/resolve/{revision}/{name}"
    )
    declare(monkeypatch, repositories=("org/model",), files=("config.json", "model.safetensors"))
    return told


def test_a_hubs_files_go_into_its_cache_as_its_own_library_puts_them(
    hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    folder = plan_download("mine").run()
    assert folder == find("mine") == hub_folder("org/model") / "snapshots" / COMMIT
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert (folder / "model.safetensors").resolve().name == DIGEST
    assert (folder / "config.json").resolve().name == GIT
    assert {token for _, _, token in Server.asked} == {"Bearer secret"}
    assert snapshot_download("org/model", revision=COMMIT, local_files_only=True) == str(folder)
    assert try_to_load_from_cache("org/model", "config.json", revision=COMMIT) == str(folder / "config.json")
    record = first_download("org/model")
    assert record["commit"] == COMMIT
    assert record["sha256"]["model.safetensors"] == DIGEST
    plan_download("mine")
    assert hub.revisions == [None, COMMIT], "the same commit is asked for from then on"


def test_the_hubs_token_is_not_passed_on(hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    monkeypatch.setattr(Server, "fault", "redirects here")
    monkeypatch.setattr(Server, "content", b"{}")
    hub.siblings[0].size, hub.siblings[0].lfs.sha256 = 2, hashlib.sha256(b"{}").hexdigest()
    plan_download("mine").run()
    assert {token for path, _, token in Server.asked if "moved" in path} == {None}


def test_records_of_earlier_versions_are_held_to(hub: SimpleNamespace, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "pins.json").write_text(
        json.dumps({"org/model": {"commit": COMMIT, "sha256": {"model.safetensors": "0" * 64}}})
    )
    with pytest.raises(WeightsCorrupt, match="the first download had 0000"):
        plan_download("mine").run()
    (home / "pins.json").write_text("{")
    with pytest.raises(WeightsCorrupt, match="Delete it to pin the models anew"):
        plan_download("mine")


@pytest.mark.parametrize("number", [0, 1])
def test_what_the_hub_announces_is_checked(hub: SimpleNamespace, number: int) -> None:
    if number:
        hub.siblings[1].blob_id = "0" * 40
    else:
        hub.siblings[0].lfs.sha256 = "0" * 64
    with pytest.raises(WeightsCorrupt, match="the hub announced"):
        plan_download("mine").run()
    assert find("mine") is None


def test_a_hub_that_announces_far_more_than_is_stated_is_refused(hub: SimpleNamespace) -> None:
    hub.siblings[0].size = 10**9
    with pytest.raises(WeightsMissing, match=r"announces 1,000 MB where 1 are stated"):
        plan_download("mine")


@pytest.mark.parametrize("place", ["commit", "large", "small"])
def test_a_hash_that_is_a_path_is_refused(hub: SimpleNamespace, place: str) -> None:
    if place == "commit":
        hub.sha = "../../../etc"
    elif place == "large":
        hub.siblings[0].lfs.sha256 = "../x"
    else:
        hub.siblings[1].blob_id = "/tmp/x"
    with pytest.raises(WeightsMissing, match="a hash that is none"):
        plan_download("mine")


def test_a_part_that_is_whole_is_not_fetched_again(hub: SimpleNamespace) -> None:
    part = hub_folder("org/model") / "blobs" / f".{DIGEST}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert plan_download("mine").run().name == COMMIT
    assert [path.rpartition("/")[2] for path, _, _ in Server.asked] == ["config.json"]


def test_a_stated_commit_is_asked_for_and_a_missing_file_named(
    hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, repositories=("org/model",), files=("config.json", "other.bin"), revision="f" * 40)
    with pytest.raises(WeightsMissing, match=r"org/model \(has no other\.bin\)"):
        plan_download("mine")
    assert hub.revisions == ["f" * 40]


def test_a_hub_that_is_not_https_is_not_asked(hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.example.org")
    with pytest.raises(WeightsMissing, match="is not https"):
        plan_download("mine")
    assert hub.revisions == []
