"""Deployment: the service on a Ray cluster, one ingress with the queue and as many restorers as work needs."""

from __future__ import annotations

import asyncio
import importlib.metadata
import io
import logging
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from rasr.cluster import ClusterOptions, ReplicaOptions
from rasr.errors import ClusterError, ExtraMissing, GalleryError, UsageError
from rasr.files import home
from rasr.gallery.gallery import gallery_address
from rasr.object_path import expand
from rasr.ray_client import connect, ray_errors
from rasr.restoration.spread import check_shared
from rasr.service.app import create_app
from rasr.service.config import ServiceConfig, take_folder
from rasr.service.core import Service
from rasr.service.guard import Lasting
from rasr.service.replica import Restorer
from rasr.service.replicas import Replicas, Stream
from rasr.service.server import SIGNALS, listen

APP, INGRESS, RESTORER = "rasr", "Ingress", "Restorer"
"""Names of the application and of its two deployments, as Ray shows them."""
LOOK = 1.0
"""Seconds between two looks at the cluster."""
REQUESTS = 2000
"""Requests that the ingress answers at once; an event stream is one for as long as it is open."""
UPSCALE, DOWNSCALE = 1.0, 120.0
"""Seconds that work has waited before another restorer is started, and that it was idle before one is ended."""
ANSWER = 10.0
"""Seconds that an ingress which is there has to say where its data lie."""
LOOK_BACK = 15.0
"""Seconds over which Serve averages the work; it is told of it every ten."""
MARGIN = 15.0
"""Seconds, beyond the grace, that the ingress may take to end."""
DRAIN = 86400.0
"""Seconds that a restorer which is not needed has for the job it has; its own supervisor ends a hanging one."""


class Ingress:
    """The service behind Ray Serve: its queue, uploads and galleries lie where it runs, on the head node's machine."""

    def __init__(self, config: ServiceConfig, most: int, environment: Mapping[str, str], restorer: Any) -> None:
        os.environ.update(environment)
        logging.getLogger("rasr.service").setLevel(logging.INFO)
        self._service = Service(config, partial(Replicas, cluster=_OnRay(restorer, most)))

    def __serve_build_asgi_app__(self) -> Lasting:
        """Of Serve: the application."""
        return Lasting(create_app(self._service))

    def place(self) -> str:
        """Its data folder."""
        return str(self._service.data)

    async def stop(self) -> None:
        """Take no more work, and end once the running jobs are done or their grace is over."""
        self._service.refuse()
        await asyncio.to_thread(self._service.stop)


class _OnRay:
    """The restorers, by Serve's handle."""

    def __init__(self, handle: Any, most: int) -> None:
        self._handle, self.most = handle.options(stream=True), most

    def restore(self, said: Mapping[str, Any], files: Mapping[str, bytes], removed: int) -> Stream:
        """Hand a job to a replica."""
        stream: Stream = self._handle.restore.remote(said, files, removed)
        return stream

    def look(self) -> tuple[int, str]:
        """How many there are, and why no job could be restored."""
        from ray import serve

        told = serve.status().applications[APP].deployments[RESTORER]
        running = int(told.replica_states.get("RUNNING", 0))
        if running or told.status == "HEALTHY":  # healthy with none: they are started when there is work
            return running, ""
        if told.status in {"DEPLOY_FAILED", "UNHEALTHY"} and told.message:
            return 0, f"No restorer could be started: {last_line(told.message)}"
        return 0, "The restorers are starting."


def application(config: ServiceConfig, cluster: ClusterOptions, replicas: ReplicaOptions, rooms: Sequence[int]) -> Any:
    """The application as ``serve.run`` takes it: an ingress on the head node's machine, and its restorers.

    ``rooms`` tells how many restorers each machine has room for.
    """
    from ray import serve

    least, most = replicas.bounds
    scaling: dict[str, Any] = {"num_replicas": least}
    if least != most:
        scaling = {"autoscaling_config": {
            "min_replicas": least, "initial_replicas": max(1, least), "max_replicas": most,
            "target_ongoing_requests": 1, "upscale_delay_s": UPSCALE, "downscale_delay_s": DOWNSCALE,
            "look_back_period_s": LOOK_BACK,
        }}  # fmt: skip
    restorer = serve.deployment(Restorer).options(
        name=RESTORER, max_ongoing_requests=1, graceful_shutdown_timeout_s=DRAIN, **scaling,
        ray_actor_options={"num_cpus": cluster.actor_cpus, "num_gpus": cluster.actor_gpus},
    )  # fmt: skip
    ingress = serve.deployment(serve.ingress()(Ingress)).options(
        name=INGRESS, num_replicas=1, max_ongoing_requests=REQUESTS,
        graceful_shutdown_timeout_s=config.grace + MARGIN, graceful_shutdown_wait_loop_s=1,
        ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
    )  # fmt: skip
    threads = max(1, int(cluster.actor_cpus))
    version = importlib.metadata.version("rasr")
    processes = max(1, min(most, max(rooms, default=1)))
    bound = restorer.bind(
        replace(config, token=""), version, platform.node(), threads, processes, gpus=cluster.actor_gpus > 0
    )
    return ingress.bind(config, most, {"RASR_HOME": str(home())}, bound)


def serve_on_cluster(
    config: ServiceConfig, cluster: ClusterOptions, replicas: ReplicaOptions, started: Callable[[str], None]
) -> None:
    """Serve on a cluster until SIGTERM or SIGINT; ``started`` is told the address.

    Raises ExtraMissing, UsageError, OutputError where nobody can listen, and ClusterError.
    """
    asked, output = threading.Event(), sys.stdout

    def tell(address: str) -> None:
        with redirect_stdout(output):
            started(address)

    with _alone(config), redirect_stdout(sys.stderr):  # Ray prints what it meets, this command the address
        ray, connected = connect(str(cluster.cluster))
        try:
            with _signals(asked), ray_errors(cluster.cluster):  # Ray has taken the signals as it was connected
                _run(ray, config, cluster, replicas, tell, asked)
        finally:
            if connected:
                ray.shutdown()


def _run(
    ray: Any,
    config: ServiceConfig,
    cluster: ClusterOptions,
    replicas: ReplicaOptions,
    started: Callable[[str], None],
    asked: threading.Event,
) -> None:
    try:
        from ray import serve
    except ImportError as error:
        raise ExtraMissing("rasr serve --cluster", "cluster") from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    _check_head(ray, str(cluster.cluster))
    rooms = [cluster.slots(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    _check_galleries(ray, config)
    _check_alone(serve, config)
    serve.shutdown()  # what a command left that was killed
    _check_free(config)
    with listen(config.host, config.port) as listening:
        port = listening.getsockname()[1]
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": config.host, "port": port, "keep_alive_timeout_s": 15},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    target = serve.RunTarget(
        application(config, cluster, replicas, rooms), APP, "/", {"enable_access_log": False, "log_level": "WARNING"}
    )
    try:
        serve.run_many([target], wait_for_applications_running=False)
        _wait_for_ingress(serve, asked)
        host = f"[{config.host}]" if ":" in config.host else config.host
        if not asked.is_set():
            started(f"http://{host}:{port}")
        while not asked.wait(LOOK):
            if APP not in serve.status().applications:  # raises where the cluster itself is gone
                raise ClusterError("The service was ended on the cluster by somebody else.")
        with suppress(Exception):  # it may have ended before
            serve.get_app_handle(APP).stop.remote().result(timeout_s=config.grace + MARGIN)
    finally:
        with redirect_stdout(io.StringIO()):  # of its own processes, that they were ended
            serve.shutdown()


def _wait_for_ingress(serve: Any, asked: threading.Event) -> None:
    """Wait until the ingress answers. Raises ClusterError when it cannot be started."""
    while not asked.wait(0.2):
        told = serve.status().applications[APP].deployments.get(INGRESS)
        if told is not None and told.replica_states.get("RUNNING", 0):
            return
        if told is not None and told.status in {"DEPLOY_FAILED", "UNHEALTHY"}:
            raise ClusterError(f"The service could not be started on the cluster: {last_line(told.message)}")


def _check_head(ray: Any, cluster: str) -> None:
    """Refuse to serve from a machine where the ingress would not find its data. Raises UsageError."""
    here = ray.get_runtime_context().get_node_id()
    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and "node:__internal_head__" in node["Resources"]]
    if here not in heads:
        raise UsageError(
            f"Run 'rasr serve --cluster {cluster}' on the head node's machine: queue and results lie there."
        )


def _check_galleries(ray: Any, config: ServiceConfig) -> None:
    """Refuse folders of photos, which are indexed on this machine alone, where there are others. Raises UsageError."""
    if len({node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}) > 1:
        for place in config.galleries:
            with suppress(GalleryError):  # there is none: it is told in the log, as on one machine
                check_shared(gallery_address(place))


def _check_alone(serve: Any, config: ServiceConfig) -> None:
    """Refuse to take the place of others on this cluster, but for what a killed command left. Raises UsageError."""
    running = set(serve.status().applications)
    if others := sorted(running - {APP}):
        raise UsageError(
            f"Ray Serve runs other applications on this cluster ({', '.join(others)[:200]}), and has one address for "
            "all. Use another cluster, or end them."
        )
    if APP not in running:
        return
    mine, found = str(expand(config.data).resolve()), ""
    with suppress(Exception):  # what does not answer is broken, and gives way
        found = serve.get_app_handle(APP).place.remote().result(timeout_s=ANSWER)
    if found not in {mine, ""}:
        raise UsageError(
            f"Another service runs on this cluster, whose data lie in {found}, not in {mine}. Use another cluster, or "
            "end it: its own command with Ctrl-C, or 'serve shutdown' where that was killed."
        )


@contextmanager
def _alone(config: ServiceConfig) -> Iterator[None]:
    """Keep the data folder for this command, which is refused where another one has it. Raises UsageError."""
    lock = take_folder(config, "command.lock")
    try:
        yield
    finally:
        lock.release()


def _check_free(config: ServiceConfig) -> None:
    """Refuse a data folder that a service outside the cluster uses, before anything is deployed. Raises UsageError."""
    take_folder(config, "service.lock", seconds=5).release()  # an ingress that was ended may not be gone yet


def last_line(message: str) -> str:
    """The sentence at the end of a traceback that Ray tells."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(?:\w+\.)*\w*(?:Error|Missing|Mismatch)\b.*?: ", line)]
    line = named[-1] if named else (lines or ["no reason was told"])[-1]
    return re.sub(r"^(?:\w+\.)*\w+: ", "", line)[:500]


@contextmanager
def _signals(asked: threading.Event) -> Iterator[None]:
    """Take the signals that end the service; the second one ends the command at once."""
    before = {one: signal.getsignal(one) for one in SIGNALS}

    def stop(_number: int, _frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    for one in SIGNALS:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
