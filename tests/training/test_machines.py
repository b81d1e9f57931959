"""Several processes of one training: they begin alike or not at all, and one that dies ends the others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rasr.errors import ConfigError
from rasr.training.checkpoint import Checkpoint
from rasr.training.machines import check_alike, together
from tests.training.standin import make_photos
from tests.training.test_crash import SCRIPT, finish, losses, start

pytest.importorskip("accelerate")
psutil = pytest.importorskip("psutil")  # comes with accelerate


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def two(tmp_path: Path, *arguments: tuple[object, ...], **env: str) -> list[subprocess.Popen[str]]:
    """A process with the first arguments and one with the second, of one training."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "ACCELERATE_USE_CPU": "true"}
    return [
        start(tmp_path, *words, RANK=str(rank), LOCAL_RANK=str(rank), **common, **env)
        for rank, words in enumerate(arguments)
    ]


def until(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout
    for line in process.stdout:
        if line.strip() == str(step):
            return
    raise AssertionError(process.communicate()[1])


def test_a_process_that_is_killed_ends_the_other_with_a_sentence(tmp_path: Path, photos: Path) -> None:
    run = tmp_path / "run"
    first, second = two(tmp_path, *[(run, photos, 5000, 4, 0.01, 0)] * 2)
    until(second, 6)
    second.send_signal(signal.SIGKILL)
    second.communicate(timeout=60)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "ClusterError: Another process of this training has ended or cannot be reached" in said
    kept, damaged = Checkpoint.latest(run / "checkpoints")
    assert kept
    assert (kept.step, damaged) == (kept.step // 4 * 4, [])
    again = two(tmp_path, *[(run, photos, kept.step + 4, 4, 0, 0)] * 2)
    for process in again:
        finish(process)
    assert Checkpoint.latest(run / "checkpoints")[0].step == kept.step + 4  # type: ignore[union-attr]


def test_processes_that_see_other_photos_do_not_begin(tmp_path: Path, photos: Path) -> None:
    other = make_photos(tmp_path / "other", count=4)
    for process in two(tmp_path, (tmp_path / "run", photos, 4, 4, 0, 0), (tmp_path / "run", other, 4, 4, 0, 0)):
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "ConfigError: Process 1 of this training has other photos or loss networks than process 0" in said
    assert not (tmp_path / "run" / "checkpoints").exists()


class Two:
    """Stands for what two processes exchange: the other one has ``row`` where this one has its own."""

    num_processes, device = 2, torch.device("cpu")

    def __init__(self, row: list[int] | None = None) -> None:
        self.row = row

    def gather(self, mine: torch.Tensor) -> torch.Tensor:
        other = mine[0].tolist() if self.row is None else [self.row[0], mine[0, 1].item() + self.row[1]]
        return torch.cat([mine, torch.tensor([other])])


def test_processes_begin_alike_or_not_at_all() -> None:
    facts = {"photos": "a", "perceptual": "b"}
    check_alike(Two(), 4, facts)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"different steps \(4, 0, process by process\): all machines must see"):
        check_alike(Two([0, 0]), 4, facts)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Process 1 of this training has other photos"):
        check_alike(Two([4, 1]), 4, facts)  # type: ignore[arg-type]


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), together(Two()):  # type: ignore[arg-type]
        raise RuntimeError("shapes differ")


def launch(tmp_path: Path, rank: int, port: str, *arguments: object) -> subprocess.Popen[str]:
    """A machine of two, by `accelerate launch`, with the command that docs/training.md gives."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    words = "launch --multi_gpu --num_machines 2 --num_processes 2 --main_process_ip 127.0.0.1 --mixed_precision no"
    return subprocess.Popen(
        [
            sys.executable, "-m", "accelerate.commands.accelerate_cli", *words.split(), "--dynamo_backend", "no",
            "--main_process_port", port, "--machine_rank", str(rank), script, *map(str, arguments),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.large
@pytest.mark.timeout(900)
def test_two_machines_by_accelerate_train_as_one_with_the_summed_batch(tmp_path: Path, photos: Path) -> None:
    finish(start(tmp_path, tmp_path / "one", photos, 20, 10, 0, 0))
    first, _ = Checkpoint.latest(tmp_path / "one" / "checkpoints")
    newest = tmp_path / "two" / "checkpoints" / "step-00000020.safetensors"
    for _ in range(2):  # the second time they go on after step 10
        port = free_port()
        for process in [launch(tmp_path, rank, port, tmp_path / "two", photos, 20, 10, 0, 0) for rank in (0, 1)]:
            finish(process)
        one, two_ = losses(tmp_path / "one"), losses(tmp_path / "two")
        assert len(one) == 20
        assert two_ == pytest.approx(one, rel=1e-4)
        second, _ = Checkpoint.latest(tmp_path / "two" / "checkpoints")
        assert first
        assert second
        assert first.step == second.step == 20
        assert first.tensors.keys() == second.tensors.keys()
        for name, value in first.tensors.items():
            torch.testing.assert_close(value, second.tensors[name], rtol=1e-3, atol=1e-5)
        del second  # its tensors are mapped from the file
        newest.unlink()


@pytest.mark.large
@pytest.mark.timeout(900)
def test_a_machine_that_dies_ends_the_other(tmp_path: Path, photos: Path) -> None:
    """Launcher and all: the other's command ends by itself, with an error."""
    port = free_port()
    first, second = (launch(tmp_path, rank, port, tmp_path / "run", photos, 5000, 4, 0.01, 0) for rank in (0, 1))
    until(second, 6)
    for process in [*psutil.Process(second.pid).children(recursive=True), psutil.Process(second.pid)]:
        process.kill()
    second.communicate(timeout=60)
    _, said = first.communicate(timeout=120)
    assert first.returncode != 0
    assert "ClusterError: Another process of this training has ended or cannot be reached" in said
