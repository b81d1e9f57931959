"""Where RASR keeps what it can rebuild: indexed photo folders and downloaded weights."""

import os
from pathlib import Path

__all__ = ["cache_dir", "home", "offline"]


def home() -> Path:
    """Folder for everything RASR stores on its own account.

    ``RASR_HOME`` if set, else ``$XDG_CACHE_HOME/rasr``, else ``~/.cache/rasr``. The folder is not created here.
    """
    explicit = os.environ.get("RASR_HOME")
    if explicit:
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "rasr"


def cache_dir(kind: str) -> Path:
    """Sub-folder of :func:`home` for one kind of thing (``"galleries"``, ``"models"``), created when missing."""
    folder = home() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def offline() -> bool:
    """True when the network must not be used: ``RASR_OFFLINE`` or the hub's own ``HF_HUB_OFFLINE`` is set."""
    truthy = {"1", "true", "yes", "on"}
    return any(os.environ.get(name, "").strip().lower() in truthy for name in ("RASR_OFFLINE", "HF_HUB_OFFLINE"))
