"""A stand-in for Ray: actors are objects here, and die or answer when the test says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import rasr.cluster as module


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class Reference:
    """What an actor was asked; done when the cluster gets to it."""

    def __init__(self, handle: Handle, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.handle, self.function, self.arguments = handle, function, arguments


class Method:
    def __init__(self, handle: Handle, function: Callable[..., Any]) -> None:
        self._handle, self._function = handle, function

    def remote(self, *arguments: Any) -> Reference:
        return Reference(self._handle, self._function, arguments)


class Handle:
    def __init__(self, actor: Any) -> None:
        self.killed = False
        self.ready, self.do = Method(self, actor.ready), Method(self, actor.do)


class FakeRay(ModuleType):
    """Rooms of one-core machines; ``deadly`` items kill whoever works on them, as often as is said."""

    def __init__(self, machines: int = 2, deadly: dict[Any, int] | None = None, stillborn: int = 0) -> None:
        super().__init__("ray")
        self.machines, self.deadly, self.stillborn = machines, deadly or {}, stillborn
        self.handles: list[Handle] = []
        self.options_given: list[dict[str, Any]] = []

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"Alive": False, "Resources": {"CPU": 64.0}}
        return [dead, *({"Alive": True, "Resources": {"CPU": 1.0}} for _ in range(self.machines))]

    def put(self, value: Any) -> Any:
        return value

    def remote(self, kind: type) -> Any:
        ray = self

        class Made:
            @staticmethod
            def options(**facts: Any) -> type[Made]:
                ray.options_given.append(facts)
                return Made

            @staticmethod
            def remote(*arguments: Any, **named: Any) -> Handle:
                handle = Handle(kind(*arguments, **named))
                ray.handles.append(handle)
                return handle

        return Made

    def wait(
        self, references: list[Reference], *, num_returns: int, timeout: float
    ) -> tuple[list[Reference], list[Any]]:
        """The latest first: an order that nobody may count on."""
        return list(reversed(references))[:num_returns], []

    def get(self, reference: Reference) -> Any:
        if reference.handle.killed:
            raise RayError("The actor is dead because it was killed.")
        if self.stillborn:
            self.stillborn -= 1
            raise RayError("The actor died unexpectedly before finishing this task. Some common causes include: …")
        for item in reference.arguments[0] if isinstance(reference.arguments[0], list) else ():
            if isinstance(item, int) and self.deadly.get(item, 0):
                self.deadly[item] -= 1
                raise RayError("The actor died unexpectedly before finishing this task.")
        return reference.function(*reference.arguments)

    def kill(self, handle: Handle) -> None:
        handle.killed = True

    def shutdown(self) -> None:
        pass


def install(patch: pytest.MonkeyPatch, ray: FakeRay) -> FakeRay:
    """Have RASR connect to the stand-in."""
    exceptions = ModuleType("ray.exceptions")
    exceptions.RayError, exceptions.RayTaskError = RayError, RayTaskError  # type: ignore[attr-defined]
    patch.setenv("CUDA_VISIBLE_DEVICES", "")  # which what runs on a cluster sets, and here is this process
    patch.setitem(sys.modules, "ray", ray)
    patch.setitem(sys.modules, "ray.exceptions", exceptions)
    patch.setattr(module, "connect", lambda address: (ray, True))
    return ray
