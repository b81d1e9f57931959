"""Build again and again in child processes that are killed at random moments; a helper process of test_crash.py.

Everything is imported once and each build is forked, so that what is killed is the build and not Python's start.
Usage: kill_builds.py CONFIG.json OUT DELAY... — prints, after every kill, the downloads that are complete, and goes on
when a line comes in. A delay of 0 lets the build come to its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import transformers  # noqa: F401

import rasr.degrade.files
import rasr.gallery.encoders.efficientnet  # noqa: F401
from rasr.dataset import build_dataset
from rasr.dataset.config import DatasetConfig, parse_config


def _build(config: DatasetConfig, out: Path) -> None:
    code = 1
    try:
        torch.set_num_threads(1)
        build_dataset(config, out)
        code = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the test has to see it
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> None:
    config = parse_config(json.loads(Path(sys.argv[1]).read_text("utf-8")), "test", Path())
    out = Path(sys.argv[2])
    for delay in map(float, sys.argv[3:]):
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _build(config, out)
        if delay:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stored = out / ".build" / "photos"
        complete = sorted(path.name for path in stored.iterdir() if not path.suffix) if stored.is_dir() else []
        sys.stdout.write(
            json.dumps({"status": status, "seconds": time.monotonic() - started, "complete": complete}) + "\n"
        )
        sys.stdout.flush()
        sys.stdin.readline()


if __name__ == "__main__":
    main()
