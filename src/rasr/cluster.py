"""Cluster: Ray's machines, processes there that keep a model each, and work handed out to them.

This process alone decides and writes. What runs on the cluster is given items and answers with values; when it dies,
its items are given to others. It writes nothing, so that a machine that was taken for dead can do no harm.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Generic, TypeVar

from rasr.device import use_threads
from rasr.errors import ClusterError, RasrError, UsageError, error_facts, error_of
from rasr.options import check_options, option
from rasr.ray_client import connect, ray_errors, reason

Item = TypeVar("Item")
Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Gives as many answers as it is given items. A RasrError ends all work: what is an item's own is an answer."""

TRIES = 4
"""Times that an item is handed out whose process dies: machines fail without its fault, and more than once."""
STARTS = 3
"""Processes that die one after the other before they can begin, until the work is given up."""
LOOK = 2.0
"""Seconds between looks at which machines there are."""
PATIENCE = 900.0
"""Seconds without any process that is ready, after which the work is given up."""
_REPLICAS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
WINDOW = 3
"""Groups for each process that may be done before one whose turn it is, where the order is kept."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Where work is spread to, and what each process there is given."""

    cluster: str | None = option(
        None,
        "Work on a Ray cluster (extra 'cluster'): one started here, or that at HOST:PORT.",
        metavar="local|ADDRESS",
        valid=lambda name: name is None or (name == "".join(name.split()) != "" and "://" not in name),
        fault="--cluster {}: write local, auto, or HOST:PORT of the head node, from a machine of the cluster.",
    )
    actor_cpus: float = option(
        1.0,
        "Cores for each process on the cluster.",
        valid=lambda cpus: 0 < cpus < 1 or (1 <= cpus <= 1024 and cpus == int(cpus)),
        fault="--actor-cpus {}: a whole number of cores, or a part of one.",
    )
    actor_gpus: float = option(
        0.0,
        "GPUs for each: 0 uses none, 0.5 puts two on one.",
        valid=lambda gpus: 0 <= gpus < 1 or (1 <= gpus <= 64 and gpus == int(gpus)),
        fault="--actor-gpus {}: a whole number of GPUs, or a part of one.",
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.cluster is None and (self.actor_cpus, self.actor_gpus) != (1.0, 0.0):
            raise UsageError("--actor-cpus and --actor-gpus are for processes on a cluster: name one with --cluster.")

    def slots(self, resources: Mapping[str, float]) -> int:
        """How many processes a machine with these resources, as Ray names them, has room for."""
        by_cores = int(resources.get("CPU", 0.0) / self.actor_cpus + 1e-6)
        if not self.actor_gpus:
            return by_cores
        # A part of a GPU is never put together from two of them.
        gpus = int(resources.get("GPU", 0.0))
        by_gpus = gpus * int(1 / self.actor_gpus + 1e-6) if self.actor_gpus < 1 else gpus // int(self.actor_gpus)
        return min(by_cores, by_gpus)


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """How many processes of a service on a cluster restore."""

    replicas: str = option(
        "1-4",
        "Restorers on the cluster: a number, or the least (even none) and the most.",
        metavar="N|MIN-MAX",
        valid=lambda text: (
            (found := _REPLICAS.fullmatch(text)) is not None and int(found[2] or found[1]) >= max(1, int(found[1]))
        ),
        fault="--replicas {}: write a number of restorers, as 2, or the least and the most, as 1-4.",
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most."""
        least, _, most = self.replicas.partition("-")
        return int(least), int(most or least)


@dataclass(slots=True)
class Answered(Generic[Item]):
    """What became of an item: an answer, or why there is none."""

    item: Item
    answer: Any = None
    error: RasrError | None = None


@dataclass(slots=True)
class _Group:
    """Items that are handed out together, by number."""

    numbers: list[int]
    tries: int = TRIES


@dataclass(slots=True, eq=False)
class _Actor:
    handle: Any
    reference: Any
    """Stands for what it is going to say next; None when it has nothing to do."""
    ready: bool = False
    group: _Group | None = None


class Remote:
    """What runs on the cluster. Made without any work: what fails is answered, and is not its death."""

    def __init__(self, make: str, threads: int, version: str, *, gpus: bool) -> None:
        self._make, self._threads, self._version, self._gpus = make, threads, version, gpus
        self._work: Work = list

    def ready(self, setup: Mapping[str, Any]) -> dict[str, str] | None:
        """Load what the work needs; gives the error that ends all work, or None."""
        try:
            if (here := _version()) != self._version:
                raise ClusterError(
                    f"The machine {platform.node()} has RASR {here}, where {self._version} was started. "
                    "Install one version on all machines of the cluster."
                )
            if not self._gpus:  # Ray hides those of others, and from whoever has no share hides none
                os.environ["CUDA_VISIBLE_DEVICES"] = ""
            use_threads(self._threads)
            self._work = resolve_name(self._make)(setup)
        except RasrError as error:
            return error_facts(error)
        return None

    def do(self, items: Sequence[Any]) -> tuple[Sequence[Any], dict[str, str] | None]:
        """Answer items, or give the error that ends all work."""
        try:
            return self._work(items), None
        except RasrError as error:
            return [], error_facts(error)


class Actors:
    """Processes on a cluster, as many as there is room for, gone at the end of the block.

    ``make`` names, as ``module:callable``, what each of them makes its :data:`Work` of, from ``setup``, to which are
    added "processes", how many share a machine, and "driver", the name of the machine that this process runs on.
    Whatever the items name must be there on each machine. Raises ExtraMissing without Ray, and ClusterError where no
    cluster can be started or reached.
    """

    def __init__(self, options: ClusterOptions, make: str, setup: Mapping[str, Any]) -> None:
        self._options, self._make, self._setup = options, make, setup
        self._actors: list[_Actor] = []
        self._failed_starts = 0
        self.room = 0
        """How many processes the cluster has room for."""
        self._looked = self._last_ready = 0.0
        self._connected = False

    def __enter__(self) -> Actors:
        self._ray, self._connected = connect(str(self._options.cluster))
        try:
            rooms = self._rooms()
            self._check_room(rooms)
            self.room = sum(rooms)
            setup = {**self._setup, "processes": max(rooms), "driver": platform.node()}
            self._kept = self._ray.put(setup)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            self._kill(actor)
        self._actors.clear()
        if self._connected:
            self._ray.shutdown()

    def work(
        self,
        items: Sequence[Item],
        *,
        begin: Callable[[Item], Any] | None = None,
        size: int = 1,
        ordered: bool = False,
    ) -> Generator[Answered[Item]]:
        """Give what became of each item: in their order, or as they are answered.

        ``begin`` is called as an item is handed out, and gives what is sent for it; its RasrError is the outcome.
        ``size`` items are handed out together; those whose process dies, each alone. Raises the RasrError that a
        process met for all, and ClusterError.
        """
        waiting = deque(
            _Group(list(range(start, min(start + size, len(items))))) for start in range(0, len(items), size)
        )
        kept: dict[int, Answered[Item]] = {}
        given = 0
        self._last_ready = time.monotonic()

        def hand_out() -> None:
            """Give a group to each process that has none."""
            for actor in self._actors:
                while waiting and actor.ready and actor.group is None:
                    early = waiting[0].numbers[0] - given >= WINDOW * size * len(self._actors)
                    if ordered and early:
                        return
                    self._hand(actor, waiting.popleft(), items, begin, kept)

        while given < len(items):
            self._grow(len(waiting) + sum(actor.group is not None for actor in self._actors))
            hand_out()
            for actor in self._heard():
                self._hear(actor, items, waiting, kept)
            hand_out()  # before anybody takes their time for the answers
            while kept and (not ordered or given in kept):
                yield kept.pop(given if ordered else next(iter(kept)))
                given += 1

    def _hand(
        self,
        actor: _Actor,
        group: _Group,
        items: Sequence[Item],
        begin: Callable[[Item], Any] | None,
        kept: dict[int, Answered[Item]],
    ) -> None:
        """Hand a group to a process, without items that cannot begin."""
        sent, numbers = [], []
        for number in group.numbers:
            try:
                sent.append(items[number] if begin is None else begin(items[number]))
                numbers.append(number)
            except RasrError as error:
                kept[number] = Answered(items[number], error=error)
        if numbers:
            actor.group = _Group(numbers, group.tries - 1)
            actor.reference = actor.handle.do.remote(sent)

    def _grow(self, groups: int) -> None:
        """Start processes while there is room for more, and groups for them. Raises ClusterError."""
        now = time.monotonic()
        if now - self._looked > LOOK:
            self._looked, self.room = now, sum(self._rooms())
        while len(self._actors) < min(self.room, groups):
            made = self._ray.remote(Remote).options(
                num_cpus=self._options.actor_cpus,
                num_gpus=self._options.actor_gpus,
                max_restarts=0,  # started again here, where it is known what it was working on
                max_task_retries=0,
            )
            threads = max(1, int(self._options.actor_cpus))
            handle = made.remote(self._make, threads, _version(), gpus=self._options.actor_gpus > 0)
            self._actors.append(_Actor(handle, handle.ready.remote(self._kept)))
        if any(actor.ready for actor in self._actors):
            self._last_ready = now
        elif now - self._last_ready > PATIENCE:
            raise ClusterError(
                f"No process on the cluster {self._options.cluster} was ready within {PATIENCE / 60:.0f} minutes: "
                "it may be busy, or gone. The same command goes on later."
            )

    def _rooms(self) -> list[int]:
        """How many processes each machine has room for, of those that have any. Raises ClusterError."""
        with ray_errors(self._options.cluster):
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [slots for node in nodes if (slots := self._options.slots(node))]

    def _check_room(self, rooms: Sequence[int]) -> None:
        if not rooms:
            needed = f"{self._options.actor_cpus:g} core(s) and {self._options.actor_gpus:g} GPU(s)"
            raise ClusterError(f"No machine of the cluster {self._options.cluster} has {needed} for a process.")

    def _heard(self) -> list[_Actor]:
        """Wait, not long, for processes that have something to say."""
        speaking = {actor.reference: actor for actor in self._actors if actor.reference is not None}
        if not speaking:
            time.sleep(0.05)
            return []
        with ray_errors(self._options.cluster):
            done, _ = self._ray.wait(list(speaking), num_returns=1, timeout=LOOK)
            if done:  # and whoever else is done by now
                done, _ = self._ray.wait(list(speaking), num_returns=len(speaking), timeout=0)
        return [speaking[reference] for reference in done]

    def _hear(
        self, actor: _Actor, items: Sequence[Item], waiting: deque[_Group], kept: dict[int, Answered[Item]]
    ) -> None:
        """Take what a process says; where it is dead, its items wait again. Raises what it met for all items."""
        from ray.exceptions import RayError, RayTaskError

        group = actor.group
        try:
            said = self._ray.get(actor.reference)
        except RayTaskError:
            raise  # a bug, with its traceback
        except RayError as error:
            self._bury(actor, error)
            if group is not None and len(group.numbers) > 1:
                waiting.extendleft(_Group([number], group.tries) for number in reversed(group.numbers))
            elif group is not None and group.tries > 0:
                waiting.appendleft(group)
            elif group is not None:
                told = f"each of the {TRIES} processes that worked on it was lost, the last since {reason(error)}"
                kept[group.numbers[0]] = Answered(items[group.numbers[0]], error=ClusterError(told))
            return
        actor.reference = actor.group = None
        answers, fault = said if group is not None else ((), said)
        if fault is not None:
            raise error_of(fault)
        actor.ready, self._failed_starts = True, 0
        if group is not None:
            for number, answer in zip(group.numbers, answers, strict=True):
                kept[number] = Answered(items[number], answer)

    def _bury(self, actor: _Actor, error: Exception) -> None:
        """Take a dead process away. Raises ClusterError when several in a row were never ready."""
        self._kill(actor)  # it may only be out of reach
        self._actors.remove(actor)
        self._looked = 0.0
        if not actor.ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise ClusterError(f"{STARTS} processes in a row were lost before they could begin: {reason(error)}.")

    def _kill(self, actor: _Actor) -> None:
        with suppress(Exception):  # it is dead, or its machine is
            self._ray.kill(actor.handle)


def _version() -> str:
    return importlib.metadata.version("rasr")
