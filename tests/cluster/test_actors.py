"""Handing out work: each item is answered once, in order where that is asked, whoever dies; what fails all ends all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rasr.cluster as module
from rasr import ray_client
from rasr.cluster import TRIES, Actors, ClusterOptions, Remote
from rasr.errors import ClusterError, PictureError, UsageError, WeightsMissing
from tests.cluster.fake_ray import FakeRay, install

LOCAL = ClusterOptions("local")


def squares(setup: Mapping[str, Any]) -> Callable[[Sequence[int]], list[int]]:
    """The work of these tests; ``setup["fatal"]`` is an item that ends all."""

    def work(items: Sequence[int]) -> list[int]:
        if setup.get("fatal") in items:
            raise WeightsMissing("gone")
        return [item * item for item in items]

    if setup.get("unloadable"):
        raise UsageError("not on this machine")
    return work


SQUARES = f"{__name__}:squares"


def outcomes(ray: FakeRay, count: int, *, setup: Mapping[str, Any] | None = None, **how: Any) -> list[Any]:
    with Actors(LOCAL, SQUARES, setup or {}) as actors:
        made = list(actors.work(range(100, 100 + count), **how))
    assert all(handle.killed for handle in ray.handles), "nobody is left behind"
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    count=st.integers(0, 60),
    size=st.integers(1, 9),
    machines=st.integers(1, 5),
    ordered=st.booleans(),
    deadly=st.dictionaries(st.integers(100, 160), st.integers(1, TRIES - 1), max_size=4),
)
def test_each_item_is_answered_once(
    monkeypatch: pytest.MonkeyPatch, count: int, size: int, machines: int, ordered: bool, deadly: dict[int, int]
) -> None:
    """Whoever dies: an item that kills fewer times than it is handed out is answered, and so are those beside it."""
    ray = install(monkeypatch, FakeRay(machines, deadly))
    made = outcomes(ray, count, size=size, ordered=ordered)
    answers = {one.item: one.answer for one in made if one.error is None}
    assert Counter(one.item for one in made) == Counter(range(100, 100 + count))
    assert all(answer == item * item for item, answer in answers.items())
    lost = {one.item for one in made if one.error is not None}
    assert lost <= set(deadly), "what dies beside another loses one try, and has three"
    assert not lost or len(deadly) > 1
    if ordered:
        assert [one.item for one in made] == list(range(100, 100 + count))


def test_what_kills_each_time_is_an_error_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = install(monkeypatch, FakeRay(2, {103: 99}))
    made = {one.item: one for one in outcomes(ray, 8, size=4)}
    assert [item for item, one in made.items() if one.error is not None] == [103]
    assert isinstance(made[103].error, ClusterError)
    assert f"each of the {TRIES} processes" in str(made[103].error)
    assert "died unexpectedly" in str(made[103].error)
    assert ray.deadly[103] == 99 - TRIES


def test_an_item_that_cannot_begin_is_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(item: int) -> int:
        if item == 101:
            raise PictureError("none")
        return item + 1

    made = {one.item: one for one in outcomes(install(monkeypatch, FakeRay()), 4, size=2, begin=begin)}
    assert str(made[101].error) == "none"
    assert made[100].answer == 101**2, "what begin gave was sent"


def test_what_fails_all_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = install(monkeypatch, FakeRay())
    with pytest.raises(WeightsMissing, match="gone"):
        outcomes(ray, 9, setup={"fatal": 104})
    assert all(handle.killed for handle in ray.handles)
    with pytest.raises(UsageError, match="not on this machine"):
        outcomes(ray, 9, setup={"unloadable": True})


def test_processes_that_never_begin_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(outcomes(install(monkeypatch, FakeRay(stillborn=2)), 3)) == 3
    with pytest.raises(ClusterError, match="3 processes in a row were lost before they could begin: The actor died"):
        outcomes(install(monkeypatch, FakeRay(stillborn=3)), 3)


def test_a_cluster_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = install(monkeypatch, FakeRay())
    with (
        pytest.raises(ClusterError, match=r"No machine of the cluster auto has 2 core\(s\) and 0\.5 GPU"),
        Actors(ClusterOptions("auto", 2.0, 0.5), SQUARES, {}),
    ):
        pass
    assert not ray.handles


def test_nobody_ready_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = install(monkeypatch, FakeRay())
    monkeypatch.setattr(ray, "wait", lambda *_, **__: ([], []))
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    with pytest.raises(ClusterError, match="was ready within"):
        outcomes(ray, 1)


def test_no_more_processes_than_there_is_work_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = install(monkeypatch, FakeRay(machines=5))
    outcomes(ray, 4, size=2)
    assert len(ray.handles) == 2
    assert ray.options_given[0] == {"num_cpus": 1.0, "num_gpus": 0.0, "max_restarts": 0, "max_task_retries": 0}


def test_another_version_there_ends_the_work() -> None:
    told = Remote(SQUARES, 1, "0.0.1", gpus=False).ready({})
    assert told is not None
    assert told["type"] == "ClusterError"
    assert "Install one version" in told["message"]


@pytest.mark.parametrize(("gpus", "seen"), [(True, "3"), (False, "")])
def test_who_has_no_share_of_a_gpu_sees_none(monkeypatch: pytest.MonkeyPatch, gpus: bool, seen: str) -> None:
    """Ray tells those that have one which, and hides none from the others: each would load its model into the first."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert Remote(SQUARES, 1, version("rasr"), gpus=gpus).ready({}) is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def test_nobody_at_the_address_is_told_at_once() -> None:
    with pytest.raises(ClusterError, match=r"Nobody answers at 127\.0\.0\.1:1 "):
        ray_client._check_answers("127.0.0.1:1")
