"""The session's cluster with all three nodes there when a test begins, and commands on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from benchmarks.three_nodes import Nodes

TIMEOUT = 500


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
