"""A real service on a free port of this machine, with bicubic interpolation, and small pictures."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Served:
    """A service in a process of its own."""

    def __init__(self, data: Path, *arguments: object, **environment: str) -> None:
        self.data, self.arguments, self.environment = data, arguments, environment
        self.log = data.parent / f"{data.name}.log"
        self.start()

    def start(self) -> None:
        path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
        command = [sys.executable, "-m", "rasr", "serve", "--port", "0", "--data", self.data, "--preset", "bicubic"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in (*command, *self.arguments)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **self.environment},
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://"), self.log.read_text()
        self.client = httpx2.Client(base_url=self.url, timeout=60)
        self.until(lambda: self.client.get("/health/ready").status_code == 200)

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def submit(
        self, content: bytes, name: str = "cat.png", headers: dict[str, str] | None = None, **fields: Any
    ) -> Any:
        return self.client.post("/jobs", files={"file": (name, content)}, data=fields, headers=headers)

    def ended(self, job: str, seconds: float = 180) -> dict[str, Any]:
        self.until(lambda: self.client.get(f"/jobs/{job}").json()["state"] in {"done", "failed", "cancelled"}, seconds)
        answer: dict[str, Any] = self.client.get(f"/jobs/{job}").json()
        return answer

    def children(self, module: str) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == self.process.pid and module.encode() in words:
                found.append(int(folder.name))
        return found

    def stop(self, how: int = signal.SIGTERM, seconds: float = 60) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(seconds)
        self.client.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def picture(width: int = 48, height: int = 32, seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    service = Served(folder / "data", RASR_HOME=str(folder / "home"))
    yield service
    assert service.stop() == 0, service.log.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start services of one's own; they are gone after the test."""
    running: list[Served] = []

    def begin(*arguments: object, data: str = "data", **environment: str) -> Served:
        running.append(Served(tmp_path / data, *arguments, **environment))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.stop()
