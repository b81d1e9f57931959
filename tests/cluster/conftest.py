"""One cluster a session, of three nodes on this machine, with all of them there when a test begins."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from benchmarks.three_nodes import Nodes

TIMEOUT = 500


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The cluster, in a process of its own: Ray is never loaded here."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: make test-cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        module = importlib.import_module("three_nodes")
        with module.Nodes(tmp_path_factory.mktemp("cluster") / "log.txt") as nodes:
            yield nodes


@pytest.fixture
def nodes(started: Nodes) -> Nodes:
    started.grow()
    return started


@pytest.fixture
def start(nodes: Nodes) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command on the cluster: ``start("gallery", "add", gallery, photos)``; ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "rasr", *map(str, words), "--cluster", nodes.address]
        # stdout and stderr together in a file: nobody has to read while it is watched.
        running.append(
            subprocess.Popen(
                command, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """What a command said, once it has ended."""
    return process.communicate(timeout=TIMEOUT)[0]
