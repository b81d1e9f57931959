"""Child processes: started fresh, spoken to over a socket in JSON and bytes, never outliving their parent."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rasr.files import parse_json

Message = tuple[dict[str, Any], bytes]
"""What is said, as JSON, and the bytes that go with it."""

WATCH = 0.5
"""Seconds between looks for the parent."""
PR_SET_PDEATHSIG = 1
"""Of Linux's ``prctl``: the signal that a process gets when its parent is gone."""


class Pipe:
    """One end of the socket between parent and child. Nothing is ever unpickled: a child may have been taken over."""

    def __init__(self, descriptor: int, largest: int = 2**30) -> None:
        self._connection: Connection[Any, Any] = Connection(descriptor)
        self._largest = largest
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """Descriptor, for waiting on several."""
        return self._connection.fileno()

    def send(self, said: Mapping[str, Any], content: bytes = b"") -> None:
        """Send a message. Raises OSError when nobody is at the other end."""
        head = json.dumps(said).encode("utf-8")
        with self._sending:
            self._connection.send_bytes(struct.pack("!I", len(head)) + head + content)

    def receive(self) -> Message:
        """Wait for a message. Raises EOFError or OSError when the other end is closed or sends what is none."""
        received = self._connection.recv_bytes(self._largest)
        try:
            (length,) = struct.unpack_from("!I", received)
            said = parse_json(received[4 : 4 + length], deepest=0)
        except (struct.error, ValueError) as error:
            raise EOFError("not a message") from error
        if not isinstance(said, dict):
            raise EOFError("not a message")  # noqa: TRY004  (the pipe's one error)
        return said, received[4 + length :]

    def waiting(self, seconds: float = 0.0) -> bool:
        """Whether something can be received, now or within ``seconds``."""
        return self._connection.poll(seconds)

    def close(self) -> None:
        """Close this end."""
        with suppress(OSError):
            self._connection.close()


class Child:
    """A module run as a process of its own: ``python -m module DESCRIPTOR PARENT``, in its own session."""

    def __init__(self, module: str, *, largest: int = 2**30, threads: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        environment = dict(os.environ)
        source = str(Path(__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH", "")]))
        if threads is not None:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is the parent's affair
            )
        self.pipe = Pipe(ours.detach(), largest)
        self.begun = time.monotonic()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once."""
        with suppress(OSError):
            self._process.kill()

    def end(self) -> str:
        """Close the pipe, see that the process is gone, and say how it ended."""
        self.pipe.close()
        try:
            code = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"


def parent_of(arguments: list[str], largest: int = 2**30) -> Pipe:
    """In a child: the pipe to the parent, with whom this process is going to end.

    On Linux the system itself ends it, in the middle of whatever it does, when the thread that started it is gone;
    elsewhere a thread looks. Where memory runs out, the system takes this process rather than its parent.
    """
    descriptor, parent = int(arguments[1]), int(arguments[2])
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    if os.getppid() != parent:  # it ended before the system was told
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os._exit(1)

    threading.Thread(target=watch, name="rasr-parent", daemon=True).start()
    return Pipe(descriptor, largest)


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process has now; 0 where that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
