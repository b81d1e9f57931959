"""Ray: connected to, or started on this machine with a token of its own, and its errors in one sentence."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rasr.device import choose_threads
from rasr.errors import ClusterError, ExtraMissing

STORE = 512 << 20
"""Bytes of shared memory for answers, in a cluster that is started here."""
ATTEMPTS = 3
"""Starts of a cluster here: Ray gives each 30 seconds, which a busy machine may not keep to."""
ANSWER = 10.0
"""Seconds that the head node has to answer at all."""
LONGEST_REASON = 300


@contextmanager
def ray_errors(cluster: str | None) -> Iterator[None]:
    """Raise ClusterError in place of what Ray raises when the cluster itself is out of reach."""
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, ConnectionError, TimeoutError) as error:
        raise ClusterError(f"The cluster {cluster} is out of reach: {reason(error)}.") from error


def connect(address: str) -> tuple[Any, bool]:
    """Ray, connected to a cluster, and whether that was done here. Raises ExtraMissing and ClusterError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local" and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on all of the machine's addresses. This token is known to this process and its children.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        import ray
    except ImportError as error:
        raise ExtraMissing("Working on a cluster", "cluster") from error
    if ray.is_initialized():
        return ray, False
    _check_answers(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        quiet |= {"num_cpus": choose_threads().count, "include_dashboard": False, "object_store_memory": STORE}
    for left in reversed(range(ATTEMPTS if address == "local" else 1)):
        try:
            ray.init(address=address, **quiet)
        except Exception as error:  # Ray has a kind for each, and a bare Exception for a start that took too long
            ray.shutdown()
            if not left:
                if address == "local":
                    raise ClusterError(f"No cluster could be started: {reason(error)}.") from error
                raise ClusterError(
                    f"No cluster could be reached at {address}: {reason(error)}. Where it has a token, "
                    "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN must name it here, too."
                ) from error
        else:
            break
    return ray, True


def _check_answers(address: str) -> None:
    """Ask whether anybody is at HOST:PORT: Ray's own client takes minutes to find out. Raises ClusterError."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(f"Nobody answers at {address} ({error}). Is it the head node of the cluster?") from error


def reason(error: BaseException) -> str:
    """What Ray says, without its lists of ids and of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("The actor is dead", "The actor died", "The actor is unavail"))]
    text = (told or lines or [type(error).__name__])[-1 if told else 0]
    text = text.partition("Some common causes")[0].strip().rstrip(".")
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON].rstrip()} …"
