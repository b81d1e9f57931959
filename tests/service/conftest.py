"""A real service on a free port of this machine, with bicubic interpolation, and small pictures.

The tests of its contract run twice: with the worker of one machine, and on Ray Serve (``make test-cluster``).
"""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from benchmarks.three_nodes import Nodes

SOURCE = Path(__file__).resolve().parents[2] / "src"
CONTRACT = ("job_routes", "gallery_routes", "guard", "supervisor", "schema", "same_scene")
"""Tests of what any service promises, wherever it restores."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "where" in metafunc.fixturenames and metafunc.module.__name__.rpartition("test_")[2] in CONTRACT:
        rayserve = pytest.param("rayserve", marks=[pytest.mark.large, pytest.mark.timeout(1800)])
        metafunc.parametrize("where", ["local", rayserve], scope="session")


class Served:
    """A service in a process of its own."""

    def __init__(self, data: Path, *arguments: object, **environment: str) -> None:
        self.data, self.arguments, self.environment = data, arguments, environment
        self.log = data.parent / f"{data.name}.log"
        self.start()

    def start(self) -> None:
        path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
        command: list[object] = [
            sys.executable,
            "-m",
            "rasr",
            "serve",
            "--port",
            "0",
            "--data",
            self.data,
            "--preset",
            "bicubic",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in (*command, *self.arguments, *self.place())],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **self.environment},
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://"), self.log.read_text()
        self.client = httpx2.Client(base_url=self.url, timeout=60)
        self.until(lambda: self.client.get("/health/ready").status_code == 200, 120)

    def place(self) -> list[object]:
        """Words that say where it restores."""
        return []

    @property
    def web(self) -> int:
        """Number of the process that answers."""
        return self.process.pid

    def crash(self) -> list[int]:
        """SIGKILL the process that answers, and start it again; gives what must not outlive it."""
        children = [*self.children("rasr.service.worker"), *self.children("rasr.service.decode")]
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL
        self.start()
        return children

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

    def parents(self, module: str) -> list[int]:
        """Processes whose children run a module."""
        return [self.process.pid]

    def children(self, module: str) -> list[int]:
        found, parents = [], self.parents(module)
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent in parents and module.encode() in words:
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


class OnCluster(Served):
    """A service on the session's cluster, which has one at a time: its ingress, and one restorer unless told."""

    current: list[OnCluster] = []  # noqa: RUF012  (shared on purpose)

    def __init__(self, nodes: Nodes, data: Path, *arguments: object, **environment: str) -> None:
        self.nodes = nodes
        if "--replicas" not in arguments:
            arguments = (*arguments, "--replicas", 1)
        super().__init__(data, *arguments, **{**nodes.environment, **environment})

    def place(self) -> list[object]:
        return ["--cluster", self.nodes.address]

    def start(self) -> None:
        for other in self.current:
            other.stop()
        self.current[:] = [self]
        super().start()

    def be_up(self) -> None:
        """Start it again if another one took its place."""
        if self.current != [self]:
            self.start()

    @property
    def web(self) -> int:
        ((number, _),) = self.nodes.processes("ray::ServeReplica:rasr:Ingress")
        return number

    def crash(self) -> list[int]:
        children, before = self.children("rasr.service.decode"), self.web
        os.kill(before, signal.SIGKILL)
        self.until(lambda: not Path(f"/proc/{before}").exists())
        self.until(lambda: self.client.get("/health/ready").status_code == 200, 120)
        return children

    def parents(self, module: str) -> list[int]:
        name = "Restorer" if module == "rasr.service.worker" else "Ingress"
        return [number for number, _ in self.nodes.processes(f"ray::ServeReplica:rasr:{name}")]

    def stop(self, how: int = signal.SIGTERM, seconds: float = 120) -> int:
        if self in self.current:
            self.current.remove(self)
        return super().stop(how, seconds)


def picture(width: int = 48, height: int = 32, seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def where() -> str:
    """Where a service restores: here, unless the tests are its contract's."""
    return "local"


Begin = Callable[..., Served]


@pytest.fixture(scope="session")
def begin(where: str, request: pytest.FixtureRequest) -> Begin:
    """Begin a service with a data folder, and further arguments."""
    if where == "local":
        return Served
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("aiohttp") is None:
        pytest.skip("Ray Serve is not installed: make test-cluster")
    nodes = request.getfixturevalue("started")
    nodes.grow()
    return partial(OnCluster, nodes)


@pytest.fixture(scope="module")
def served(begin: Begin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    service = begin(folder / "data", RASR_HOME=str(folder / "home"))
    yield service
    assert service.stop() == 0, service.log.read_text()


@pytest.fixture(autouse=True)
def _up(request: pytest.FixtureRequest) -> None:
    """A cluster has one service at a time: that of the test's is started again where another one took its place."""
    for name in {"served", "locked"} & set(request.fixturenames):
        service = request.getfixturevalue(name)
        if isinstance(service, OnCluster):
            service.be_up()


@pytest.fixture
def start(begin: Begin, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start services of one's own; they are gone after the test."""
    running: list[Served] = []

    def start(*arguments: object, data: str = "data", **environment: str) -> Served:
        running.append(begin(tmp_path / data, *arguments, **environment))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None and isinstance(one, OnCluster):
            one.stop()  # what was killed would go on, on the cluster
        elif one.process.poll() is None:
            one.process.kill()
            one.stop()
