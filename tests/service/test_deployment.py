"""The service on Ray Serve, beyond the contract that the other tests hold it to: several restorers, and what dies.

Without Ray: what is refused before anything is started, and what is told of Ray's tracebacks.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from rasr.cluster import ReplicaOptions
from rasr.errors import UsageError
from rasr.gallery import open_gallery_or_folder
from rasr.service import deployment
from rasr.service.config import ServiceConfig
from tests.service.conftest import Begin, OnCluster, Served, picture
from tests.service.test_supervisor import restoring, slow

WORKER = "rasr.service.worker"
cluster = [pytest.mark.large, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("text", "bounds"), [("1-4", (1, 4)), ("2", (2, 2)), ("0-1", (0, 1)), ("3-3", (3, 3)), ("0-1000", (0, 1000))]
)
def test_numbers_of_restorers(text: str, bounds: tuple[int, int]) -> None:
    assert ReplicaOptions(text).bounds == bounds


@pytest.mark.parametrize("text", ["", "0", "0-0", "4-1", "-1", "1-", "a", "1-2-3", "1.5", " 1", "٣"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--replicas"):
        ReplicaOptions(text)


def test_restorers_need_a_cluster(run_rasr: Callable[..., CompletedProcess[str]]) -> None:
    for words in (("--replicas", 2), ("--actor-gpus", 1)):
        done = run_rasr("serve", *words)
        assert (done.returncode, "--cluster" in done.stderr) == (2, True), done.stderr


def test_a_folder_that_another_command_has_is_refused(tmp_path: Path) -> None:
    config = ServiceConfig(data=tmp_path)
    refused = pytest.raises(UsageError, match="another service uses this folder")
    with deployment._alone(config), refused, deployment._alone(config):
        pass
    with deployment._alone(config):
        deployment._check_free(config)
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="cannot be used"),
        deployment._alone(ServiceConfig(data=tmp_path / "file" / "a")),
    ):
        pass


def nodes(*names: str) -> Any:
    return SimpleNamespace(nodes=lambda: [{"Alive": True, "NodeManagerHostname": name} for name in names])


def test_a_folder_of_photos_is_refused_where_there_are_other_machines(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(picture(64, 64))
    config = ServiceConfig(data=tmp_path / "data", galleries=[tmp_path / "photos", tmp_path / "none"])
    deployment._check_galleries(nodes("a", "a"), config)
    with pytest.raises(UsageError, match="rasr gallery add GALLERY FOLDER"):
        deployment._check_galleries(nodes("a", "b"), config)
    open_gallery_or_folder(tmp_path / "photos")  # indexed by now
    with pytest.raises(UsageError, match="rasr gallery add GALLERY FOLDER"):
        deployment._check_galleries(nodes("a", "b"), config)


class Standin:
    """Ray Serve with these applications."""

    def __init__(self, *names: str, place: str | Exception = "") -> None:
        self._names, self._place = names, place

    def status(self) -> Any:
        return SimpleNamespace(applications=dict.fromkeys(self._names))

    def get_app_handle(self, name: str) -> Any:
        def result(timeout_s: float) -> str:
            if isinstance(self._place, Exception):
                raise self._place
            return self._place

        return SimpleNamespace(place=SimpleNamespace(remote=lambda: SimpleNamespace(result=result)))


def test_others_on_the_cluster_keep_their_place(tmp_path: Path) -> None:
    config = ServiceConfig(data=tmp_path)
    for free in (Standin(), Standin("rasr", place=str(tmp_path)), Standin("rasr", place=TimeoutError())):
        deployment._check_alone(free, config)
    with pytest.raises(UsageError, match=r"other applications on this cluster \(shop\)"):
        deployment._check_alone(Standin("rasr", "shop"), config)
    with pytest.raises(UsageError, match="whose data lie in /elsewhere"):
        deployment._check_alone(Standin("rasr", place="/elsewhere"), config)


def test_a_command_runs_where_the_head_is() -> None:
    def ray(here: str) -> Any:
        told = [
            {"NodeID": "1", "Alive": True, "Resources": {"node:__internal_head__": 1.0}},
            {"NodeID": "2", "Alive": True, "Resources": {"CPU": 4.0}},
        ]
        context = SimpleNamespace(get_node_id=lambda: here)
        return SimpleNamespace(nodes=lambda: told, get_runtime_context=lambda: context)

    deployment._check_head(ray("1"), "local")
    with pytest.raises(UsageError, match="head node's machine"):
        deployment._check_head(ray("2"), "10.0.0.5:6379")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "Traceback:\n  File x\nrasr.errors.ClusterError: No weights (on the machine b)\n\nmore",
            "No weights (on the machine b)",
        ),
        (
            "ray.exceptions.RayTaskError: x\nWeightsMissing: get them: rasr models download x",
            "get them: rasr models download x",
        ),
        ("it is late", "it is late"),
        ("", "no reason was told"),
    ],
)
def test_of_a_traceback_its_sentence_is_told(message: str, told: str) -> None:
    assert deployment.last_line(message) == told


@pytest.fixture(scope="session")
def where() -> str:
    return "rayserve"


def running(served: Served) -> int:
    """Jobs that are restored now."""
    return sum(job["state"] == "running" for job in served.client.get("/jobs").json()["jobs"])


class TestOnTheCluster:
    pytestmark = cluster

    def test_two_work_at_once_and_give_the_same(self, start: Callable[..., Served]) -> None:
        served = start("--replicas", 2)
        jobs = [slow(served, f"{number}.png") for number in range(4)]
        served.until(lambda: running(served) == 2)
        told = served.client.get("/metrics").text
        assert "rasr_restorers 2.0" in told
        results = {served.client.get(served.ended(job)["links"]["result"]).content for job in jobs}
        assert len(results) == 1, "the same picture gives the same bytes, whoever restored it"
        assert served.stop() == 0

    def test_a_killed_replica_costs_the_job_it_had(self, start: Callable[..., OnCluster]) -> None:
        served = start("--replicas", 2)
        jobs = [slow(served, f"{number}.png") for number in range(4)]
        served.until(lambda: running(served) == 2)
        os.kill(served.parents(WORKER)[0], signal.SIGKILL)
        ended = [served.ended(job) for job in jobs]
        (failed,) = [one for one in ended if one["state"] != "done"]
        assert failed["state"] == "failed"
        assert failed["error"].startswith(f"{failed['name']}: the process that restored it was lost (")
        assert failed["error"].endswith("Send it again.")
        served.until(lambda: len(served.parents(WORKER)) == 2)
        assert served.ended(slow(served))["state"] == "done"
        assert "rasr_worker_restarts_total 1.0" in served.client.get("/metrics").text
        assert served.stop() == 0

    def test_a_node_that_dies_costs_the_job_it_had(self, start: Callable[..., OnCluster]) -> None:
        served = start("--replicas", 3)
        served.until(lambda: len(served.children(WORKER)) == 3)
        jobs = [slow(served, f"{number}.png") for number in range(5)]
        served.until(lambda: running(served) == 3)
        served.nodes.kill(served.nodes.raylets[1])
        ended = [served.ended(job) for job in jobs]
        assert sorted(one["state"] for one in ended) == ["done"] * 4 + ["failed"]
        assert served.client.get("/health/ready").status_code == 200
        served.nodes.grow()
        assert served.stop() == 0

    def test_restorers_come_with_the_work(self, start: Callable[..., Served]) -> None:
        served = start("--replicas", "0-2")
        jobs = [slow(served, f"{number}.png") for number in range(6)]
        served.until(lambda: running(served) == 2, 120)
        assert {served.ended(job)["state"] for job in jobs} == {"done"}
        assert served.stop() == 0

    def test_a_killed_command_is_started_again_on_what_it_left(self, start: Callable[..., OnCluster]) -> None:
        served = start("--grace", 0)
        first, second = slow(served), served.submit(picture()).json()["id"]
        restoring(served, first)
        assert served.stop(signal.SIGKILL) == -signal.SIGKILL
        served.start()
        assert served.ended(second)["state"] == "done"
        assert served.client.get(f"/jobs/{first}").json()["state"] in {"done", "failed"}
        assert len(served.client.get("/jobs").json()["jobs"]) == 2
        assert served.stop() == 0

    def test_weights_that_are_nowhere_are_named(self, begin: Begin, tmp_path: Path) -> None:
        class Waiting(OnCluster):
            def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
                """It is never ready."""

        nodes: Any = begin.args[0]  # type: ignore[attr-defined]  # of the partial
        served = Waiting(nodes, tmp_path / "data", "--preset", "sd21", HF_HUB_OFFLINE="1")
        deadline = time.monotonic() + 200
        while "No restorer" not in (said := served.client.get("/health/ready").text):
            assert time.monotonic() < deadline, said
            time.sleep(0.5)
        assert "rasr models download" in said
        assert served.client.get("/health/live").status_code == 200
        assert served.stop() == 0
