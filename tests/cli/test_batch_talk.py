"""What a batch keeps until its end: sentences, and no pictures."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

from rasr.cli.batch_talk import Telling
from rasr.errors import PictureError
from rasr.restoration import Outcome, Restorer, Settings, plan_jobs
from rasr.restoration.batch import Run


class Content:
    """Stands for what was read of a file."""


def broken(kept: list[weakref.ref[Any]]) -> PictureError:
    """An error with a cause, in whose frames a file's content is."""
    content = Content()
    kept.append(weakref.ref(content))
    try:
        _parse(content)
    except PictureError as error:
        return error
    raise AssertionError


def _parse(content: Content) -> None:
    try:
        int(f"{content}")
    except ValueError as error:
        raise PictureError("a.png: broken") from error


def test_failures_of_a_batch_keep_no_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"none")
    jobs = plan_jobs([tmp_path], tmp_path / "out")
    run = Run(jobs, Restorer("bicubic"), Settings())
    run.left = []
    telling = Telling(run, ("restore",))
    kept: list[weakref.ref[Any]] = []
    told = telling.follow([Outcome(job, error=broken(kept)) for job in jobs], maps={}, keep_evidence=False)
    assert len(list(told)) == 2
    gc.collect()
    assert [str(error) for error in telling.failed] == ["a.png: broken"] * 2
    assert [content() for content in kept] == [None, None]
