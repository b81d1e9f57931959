"""Child processes: what is said arrives as it was, strange messages end the talk, and no child outlives its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rasr.child import Child, Pipe

ECHO = """
import sys
from rasr.child import parent_of

pipe = parent_of(sys.argv)
while True:
    said, content = pipe.receive()
    pipe.send({**said, "score": open("/proc/self/oom_score_adj").read().strip()}, content[::-1])
"""
BUSY = """
import re, sys
from rasr.child import parent_of

pipe = parent_of(sys.argv)
pipe.send({"busy": True})
re.match("(a*)*$", "a" * 64 + "b")  # for ever, and no other thread gets a turn
"""
PARENT = """
import sys, time
from rasr.child import Child

child = Child("busy_child")
child.pipe.receive()
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "echo_child.py").write_text(ECHO)
    (tmp_path / "busy_child.py").write_text(BUSY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


def test_words_and_bytes_go_both_ways(scripts: Path) -> None:
    child = Child("echo_child")
    name = "\udcff \u2028 é.png"
    child.pipe.send({"name": name, "list": [1, 2.5, None]}, b"abc" * 100_000)
    said, content = child.pipe.receive()
    assert said == {"name": name, "list": [1, 2.5, None], "score": "500"}
    assert content == b"cba" * 100_000
    child.kill()
    with pytest.raises((EOFError, OSError)):
        child.pipe.receive()
    assert child.end() == "was ended by signal 9"


@pytest.mark.parametrize("content", [b"", b"abc", b"\0\0\0\5[1,2]", b"\0\0\0\x02{", b"\0\0\0\x02{]rest"])
def test_what_is_no_message_ends_the_talk(content: bytes) -> None:
    ours, theirs = socket.socketpair()
    pipe, other = Pipe(ours.detach()), Pipe(theirs.detach())
    other._connection.send_bytes(content)
    with pytest.raises(EOFError, match="not a message"):
        pipe.receive()
    pipe.close()
    other.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the system's own watch over parents is Linux's")
def test_a_child_in_the_middle_of_a_library_goes_with_its_parent(scripts: Path) -> None:
    """No thread of the child gets a turn there: it is the system that ends it."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while _lives(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
