"""Options of a cluster: what is refused before anything is started, and how many processes a machine has room for."""

from __future__ import annotations

import pytest

from rasr.cluster import ClusterOptions
from rasr.errors import ClusterError, ExtraMissing, RasrError, UsageError, error_facts, error_of


@pytest.mark.parametrize("address", ["", " local", "ray://10.0.0.5:10001", "s3://bucket"])
def test_addresses_that_are_none_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        ClusterOptions(address)


@pytest.mark.parametrize("facts", [{"actor_cpus": 0.0}, {"actor_cpus": 1.5}, {"actor_gpus": -1.0}, {"actor_gpus": 1.5}])
def test_parts_of_more_than_one_are_refused(facts: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="whole number"):
        ClusterOptions("local", **facts)


def test_what_needs_a_cluster_names_one() -> None:
    assert ClusterOptions().cluster is None
    with pytest.raises(UsageError, match="--cluster"):
        ClusterOptions(actor_cpus=2.0)


@pytest.mark.parametrize(
    ("cpus", "gpus", "resources", "slots"),
    [
        (1.0, 0.0, {"CPU": 4.0}, 4),
        (3.0, 0.0, {"CPU": 8.0}, 2),
        (0.1, 0.0, {"CPU": 1.0}, 10),
        (1.0, 0.0, {}, 0),
        (1.0, 0.5, {"CPU": 16.0, "GPU": 3.0}, 6),
        (1.0, 0.4, {"CPU": 16.0, "GPU": 2.0}, 4),  # no part of a GPU is put together from two
        (1.0, 2.0, {"CPU": 16.0, "GPU": 3.0}, 1),
        (4.0, 0.5, {"CPU": 4.0, "GPU": 8.0}, 1),
        (1.0, 1.0, {"CPU": 4.0}, 0),
    ],
)
def test_room_on_a_machine(cpus: float, gpus: float, resources: dict[str, float], slots: int) -> None:
    assert ClusterOptions("local", cpus, gpus).slots(resources) == slots


def test_errors_come_back_as_they_were() -> None:
    made = error_of(error_facts(ClusterError("gone")))
    assert (type(made), str(made)) == (ClusterError, "gone")
    extra = ExtraMissing("This", "cluster")
    assert str(error_of(error_facts(extra))) == str(extra)
    assert type(error_of({"type": "shlex", "message": "x"})) is RasrError
