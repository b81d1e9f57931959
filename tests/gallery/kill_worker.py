"""Kills itself at one point of a change: ``kill_worker.py GALLERY PHOTOS|upgrade FUNCTION before|after``."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from standin import ColourLayout

from rasr.gallery import Gallery


def kill_at(function: str, moment: str) -> None:
    module, _, name = function.partition(":")
    owner: Any = importlib.import_module(module)
    *parts, name = name.split(".")
    for part in parts:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    def killed(*arguments: Any, **options: Any) -> None:
        if moment == "after":
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killed)


if __name__ == "__main__":
    _, folder, photos, function, moment = sys.argv
    gallery = Gallery(folder, encoder=ColourLayout())
    kill_at(function, moment)
    if photos == "upgrade":
        gallery.upgrade()
    else:
        gallery.add(photos, workers=1)
    print("survived")  # noqa: T201
