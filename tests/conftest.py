"""What every room's tests share: a private cache folder, no network, and the real command line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from benchmarks.three_nodes import Nodes

SOURCE = Path(__file__).resolve().parent.parent / "src"


def pytest_configure() -> None:
    """Hear SIGINT again where a shell started the tests behind itself: what they start would be deaf to it, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's cache or a model hub."""
    monkeypatch.setenv("RASR_HOME", str(tmp_path_factory.mktemp("rasr-home")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The one cluster of a session: three nodes here, in a process of its own, so that Ray is never loaded here."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: make test-cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        module = importlib.import_module("three_nodes")
        with module.Nodes(tmp_path_factory.mktemp("cluster") / "log.txt") as nodes:
            yield nodes


@pytest.fixture
def run_rasr(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real command line in a fresh process: ``run_rasr("search", gallery, picture)``."""

    def run(
        *arguments: object, cwd: Path = tmp_path, timeout: float = 240, **env: str
    ) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
        return subprocess.run(
            [sys.executable, "-m", "rasr", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
