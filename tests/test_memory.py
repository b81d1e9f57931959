"""Free and usable memory, and what counts as running out of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

import rasr.memory as module
from rasr.errors import OutOfMemory
from rasr.memory import (
    LruCache,
    divide_memory,
    free_memory,
    is_out_of_memory,
    memory_errors_told,
    release_memory,
    sharing_memory,
    usable_memory,
)


def test_free_memory_is_what_the_system_says() -> None:
    available = psutil.virtual_memory().available
    assert 0 < free_memory() <= available * 1.2 + 2**28


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(str(500 * 2**20))
    (tmp_path / "memory.current").write_text(str(200 * 2**20))
    monkeypatch.setattr(module, "_CGROUPS", ((tmp_path / "memory.max", tmp_path / "memory.current"),))
    assert free_memory() == 300 * 2**20
    (tmp_path / "memory.max").write_text("max")
    assert free_memory() > 300 * 2**20


def test_a_container_with_less_memory_than_the_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    module._whole_memory.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda _: "1000000\n")
    assert usable_memory() == 1_000_000
    module._whole_memory.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda _: "max\n")
    assert usable_memory() > 1_000_000
    module._whole_memory.cache_clear()


def test_processes_beside_one_another_count_on_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_machine_free", lambda: 900)
    monkeypatch.setattr(module, "_container_free", lambda: 2000)
    monkeypatch.setattr(module, "_process_free", lambda: 350)
    monkeypatch.setattr(module, "_whole_memory", lambda: 3000)
    monkeypatch.setattr(module, "_processes", [1])
    assert (free_memory(), usable_memory()) == (350, 3000)
    divide_memory(3)
    assert (free_memory(), usable_memory()) == (300, 1000), "what ulimit leaves is each process's own"


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


def test_every_kind_of_running_out_is_recognised_and_nothing_else() -> None:
    for error in (MemoryError(), OutOfMemoryError(), RuntimeError("MPS backend out of memory (MPS allocated")):
        assert is_out_of_memory(error)
    for other in (RuntimeError("expected 4 channels"), ValueError("out of memory"), OSError("x")):
        assert not is_out_of_memory(other)
    release_memory()


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    cache: LruCache[bytes] = LruCache(100, len)
    made: list[str] = []

    def value(name: str, size: int) -> bytes:
        return cache.get(name, lambda: made.append(name) or bytes(size))  # type: ignore[func-returns-value]

    for name, size in (("a", 60), ("b", 40), ("a", 60), ("c", 30)):
        assert len(value(name, size)) == size
    assert made == ["a", "b", "c"]
    assert (cache.held, len(cache)) == (90, 2), "b, the least recently used, has left"
    assert len(value("large", 500)) == 500
    assert (cache.held, len(cache)) == (90, 2), "what is larger than the bound is made, not kept"


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache: LruCache[bytes] = LruCache(0, len)
    assert [cache.get("a", lambda: b"x") for _ in range(2)] == [b"x", b"x"]
    assert len(cache) == 0


def test_work_that_shares_memory_waits_for_what_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_memory", lambda: 200)
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def work(amount: int) -> None:
        with sharing_memory(amount):
            with lock:
                running.append(amount)
                most.append(sum(running))
            time.sleep(0.002)
            with lock:
                running.remove(amount)

    threads = [threading.Thread(target=work, args=(amount,)) for amount in [40, 40, 40, 70, 10] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 40
    assert max(most) <= 100
    with sharing_memory(5000):  # alone, more than there is does not wait for ever
        pass
    with pytest.raises(KeyError), sharing_memory(90):
        raise KeyError
    with sharing_memory(100):
        pass


def test_memory_errors_become_the_tree_s_and_others_stay() -> None:
    with pytest.raises(OutOfMemory, match="a picture: not enough"), memory_errors_told("a picture: not enough"):
        raise MemoryError
    with pytest.raises(KeyError), memory_errors_told("x"):
        raise KeyError
