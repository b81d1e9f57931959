"""Three nodes of a Ray cluster on this machine, in a process of their own, for tests and benchmarks that kill them.

``python benchmarks/three_nodes.py`` starts them and does what it is told on stdin: ``kill NUMBER`` ends the node with
that raylet, ``grow`` adds nodes until there are three. After each it prints what there is, as JSON.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

NODES = 3
ATTEMPTS = 4
"""Starts of a node: Ray gives it 30 seconds, on a machine however busy."""
SOURCE = Path(__file__).resolve().parent.parent / "src"
MEMORY = 200 << 20
"""Bytes of shared memory for each node's objects."""


class Nodes:
    """A cluster of three nodes of one core and one GPU in name each; gone at the end of the block."""

    def __init__(self, log: Path) -> None:
        self.address = ""
        self._log = log
        self._told: dict[str, Any] = {}
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        # Ray kills processes where other programs have filled the machine's memory: a test would see a death more.
        own |= {"RAY_memory_monitor_refresh_ms": "0", "OMP_NUM_THREADS": "1"}
        path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
        self.environment = {**os.environ, **own, "PYTHONPATH": path}
        """For this cluster's processes and for the command that uses it: both hold the token."""

    def __enter__(self) -> Nodes:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve())],
                env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.stdout.close()

    @property
    def raylets(self) -> list[int]:
        """Process numbers of the nodes' raylets, the head's first."""
        return list(self._told["raylets"])

    def kill(self, raylet: int) -> None:
        """End a node, but for the head, without a warning."""
        self._tell(f"kill {raylet}")

    def grow(self) -> None:
        """Add nodes until there are three."""
        self._tell("grow")

    def processes(self, title: str) -> list[tuple[int, int]]:
        """Processes that Ray calls so, and the raylet of each."""
        listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
        words = [line.split(None, 2) for line in listed.splitlines() if title in line]
        return [(int(own), int(parent)) for own, parent, _ in words if int(parent) in self.raylets]

    def working(self, run: subprocess.Popen[Any] | None = None, seconds: float = 300.0) -> list[tuple[int, int]]:
        """Processes that are at work on the cluster, and the raylet of each, once there are any.

        Raises RuntimeError when ``run``, the command, ends before.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (run is None or run.poll() is None):
            if found := self.processes("ray::Remote.do"):
                return found
            time.sleep(0.02)
        raise RuntimeError("nothing is at work on the cluster")

    def kill_process(self, run: subprocess.Popen[Any]) -> int:
        """End a process that is at work, as if its memory had run out; gives its number."""
        number, _ = self.working(run)[0]
        os.kill(number, signal.SIGKILL)
        return number

    def kill_node(self, run: subprocess.Popen[Any]) -> int:
        """End a node, but for the head, on which a process is at work; gives its raylet's number."""
        while True:
            raylets = [raylet for _, raylet in self.working(run) if raylet != self.raylets[0]]
            if raylets:
                self.kill(raylets[0])
                return raylets[0]
            time.sleep(0.02)

    def memory(self) -> int:
        """Bytes that the cluster's processes have to themselves (private pages); not what they share."""
        listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
        parents = {int(own): int(parent) for own, parent in (line.split() for line in listed.splitlines()[1:])}
        ours = {self._process.pid}
        while more := {own for own, parent in parents.items() if parent in ours} - ours:
            ours |= more
        total = 0
        for number in ours - {self._process.pid}:
            with suppress(OSError):  # it has just ended
                text = Path(f"/proc/{number}/smaps_rollup").read_text(encoding="ascii")
                total += sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Private_"))
        return total

    def _tell(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        self._listen()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith("{"):
            if not line:
                raise RuntimeError(f"The cluster could not be started:\n{self._log.read_text()[-3000:]}")
        self._told = json.loads(line)
        self.address = self._told["address"]


def _repeated(start: Callable[[], Any]) -> Any:
    for left in reversed(range(ATTEMPTS)):
        try:
            return start()
        except Exception:
            if not left:
                raise
            time.sleep(2)
    return None


def main() -> None:
    """Run the three nodes until stdin ends."""
    from ray.cluster_utils import Cluster

    facts = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": MEMORY}  # Ray takes our word for the GPU
    cluster = _repeated(lambda: Cluster(initialize_head=True, head_node_args={**facts, "include_dashboard": False}))
    raylets: dict[int, Any] = {}

    def grow() -> None:
        while len(raylets) < NODES - 1:
            node = _repeated(lambda: cluster.add_node(**facts))
            raylets[node.all_processes["raylet"][0].process.pid] = node

    def tell() -> None:
        head = cluster.head_node.all_processes["raylet"][0].process.pid
        print(json.dumps({"address": cluster.address, "raylets": [head, *raylets]}), flush=True)

    try:
        grow()
        tell()
        for line in sys.stdin:
            verb, *rest = line.split()
            if verb == "kill":
                cluster.remove_node(raylets.pop(int(rest[0])), allow_graceful=False)
            else:
                grow()
            tell()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
